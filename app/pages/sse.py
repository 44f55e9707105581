"""What a page is told while it is open: server-sent events for the script, one stream a page.

The id of an event is where to go on: for one job the number of the last line of its log, for the list a time.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any
from uuid import UUID

import orjson
from flask import Response, request

from app.errors import NotFound
from app.jobs.models import FINALIZING, QUEUED, TERMINAL_STATES, WAITING
from app.jobs.progress_stream import (
    KEEP_ALIVE_INTERVAL_SECONDS,
    LAST_EVENT_ID_PARAMETER,
    StreamBody,
    read_last_event_id,
)
from app.pages import cookies, job_list, job_presenter, job_queries, treatment_presenter, treatment_queries
from app.pages.cookies import PageSession
from app.pages.decorators import page_view

MIN_EVENT_INTERVAL_SECONDS = 0.3
"""Seconds between two events: whoever looks cannot read faster."""

POLL_INTERVAL_SECONDS = 2.0
"""How old that may be of which nobody is told: the place in a queue, and what a processor is asked."""

RETRY_MS = 1000
"""After which a browser comes again when the connection is lost."""

RESUME_MARGIN_MS = 30_000
"""For clocks of other machines, and for what is committed later than it was written."""

MAX_ABSENCE_MS = 600_000
"""After which the page is asked for anew, instead of all that has changed."""

MAX_MARKER = 10**14 - 1
"""Milliseconds since 1970, in the year 5138; the number of an event is less."""

RELOAD_EVENT = "event: reload\ndata:\n\n"


@page_view("/stream")
def follow_list(caller: PageSession) -> Response:
    """Jobs of the list, each time one of them has changed."""
    filters = job_list.parse_filters(request.args)
    now = resume_marker()
    since = _get_resume_position(now)
    if now - since > MAX_ABSENCE_MS:
        return _build_stream_response(lambda: [RELOAD_EVENT])
    return _build_stream_response(lambda: _ListStream(caller, filters.kind, since))


@page_view("/<id>/stream")
def follow_job(caller: PageSession, id: str) -> Response:
    """One job, each time it has changed; 204 where nothing more is to come."""
    job = job_queries.get_job(job_queries.build_access(caller.viewer), id)
    if job is None:
        raise NotFound("There is no such job.")
    seq = _get_resume_position(0)
    if job.state in TERMINAL_STATES and seq >= job.last_seq:
        return Response(status=HTTPStatus.NO_CONTENT)  # tells the browser not to come again (HTML, 9.2.3)
    return _build_stream_response(lambda: _JobStream(caller, job.id, seq))


def resume_marker() -> int:
    """The time, from which a list goes on."""
    return time.time_ns() // 1_000_000


def _get_resume_position(default: int) -> int:
    """What the browser has seen already: it says so when it comes again, and in the URL when it comes first."""
    sent = read_last_event_id(LAST_EVENT_ID_PARAMETER, "after", at_most=MAX_MARKER)
    return default if sent is None else sent


def _build_stream_response(make: Callable[[], Iterable[str] | StreamBody]) -> Response:
    response = Response(content_type="text/event-stream")
    if request.method == "GET":
        response.response = make()
    response.headers["X-Accel-Buffering"] = "no"
    return response


class _EventStream(StreamBody):
    """Server-sent events: what is new, at most once in PAUSE seconds."""

    wait_seconds = KEEP_ALIVE_INTERVAL_SECONDS
    """Seconds without news after which it says that it lives."""

    def __init__(self, caller: PageSession, job_id: UUID | None) -> None:
        self.caller = caller
        self.access = job_queries.build_access(caller.viewer)
        self.is_over = False
        super().__init__(caller.viewer, job_id)
        self.watcher.notify(None)  # of what came before nobody was told

    def _write_chunks(self) -> Iterator[str]:
        yield f"retry: {RETRY_MS}\n\n"
        yield from self._until_database_error(self._generate_events())

    def _generate_events(self) -> Iterator[str]:
        while self._should_continue() and cookies.get_current_time() < self.caller.expires_at:
            if not self.watcher.wait_for_change(self.wait_seconds):
                yield self._format_keep_alive()
            news = self._read(self._read_event)
            if news is None:
                yield self._format_keep_alive()
            elif news:
                yield news
            if self.is_over:
                return
            time.sleep(MIN_EVENT_INTERVAL_SECONDS)

    def _format_keep_alive(self) -> str:
        return ":\n\n"

    def _read_event(self) -> str:
        """An event, "" when nothing has changed."""
        raise NotImplementedError


class _ListStream(_EventStream):
    """What changes in a list."""

    def __init__(self, caller: PageSession, kind: str, since: int) -> None:
        self.kind = kind
        self.since = since
        self.active_jobs: dict[UUID, job_presenter.TemplateData] = {}
        """What is known of jobs that have not ended."""
        super().__init__(caller, None)

    def _format_keep_alive(self) -> str:
        return f"id: {self.since}\n\n"

    def _read_event(self) -> str:
        read_at = resume_marker()
        rows = self._read_changed_jobs()
        if (
            len(rows) >= job_queries.MAX_CHANGED_JOBS and read_at - self.since > RESUME_MARGIN_MS
        ):  # not of a page just made
            self.is_over = True
            return RELOAD_EVENT
        self.since = read_at
        jobs = [job_presenter.job_row(row, self.viewer) for row in rows if self.kind in ("", row.kind)]
        news = [job for job in jobs if self.active_jobs.get(UUID(job["id"])) != job]
        self._remember_active_jobs(jobs)
        return _format_event(self.since, {"jobs": news}) if news else ""

    def _read_changed_jobs(self) -> list[job_queries.JobListItem]:
        """The jobs there is news of, and those that wait, whose place may be another one."""
        named = self.watcher.take_changed_ids()
        if None in named:
            ids = job_queries.list_changed_ids(self.access, _build_min_id(self.since - RESUME_MARGIN_MS))
        else:
            ids = {id_ for id_ in named if id_ is not None}
        ids.update(self._list_waiting_ids()[-job_queries.MAX_ACTIVE_JOBS :])
        return job_queries.get_jobs(self.access, ids) if ids else []

    def _list_waiting_ids(self) -> list[UUID]:
        return [id_ for id_, job in self.active_jobs.items() if job["state"] == QUEUED]

    def _remember_active_jobs(self, jobs: list[job_presenter.TemplateData]) -> None:
        for job in jobs:
            if job["state"] in TERMINAL_STATES:
                self.active_jobs.pop(UUID(job["id"]), None)
            else:
                self.active_jobs[UUID(job["id"])] = job
        # Jobs of others change the places of those that wait, and wake no list of this user.
        self.wait_seconds = POLL_INTERVAL_SECONDS if self._list_waiting_ids() else KEEP_ALIVE_INTERVAL_SECONDS


class _JobStream(_EventStream):
    """What one job says, does and makes."""

    def __init__(self, caller: PageSession, job_id: UUID, seq: int) -> None:
        self.job_id = job_id
        self.seq = seq
        self.last_data: dict[str, Any] = {}
        self.may_be_treatment = True
        super().__init__(caller, job_id)

    def _read_event(self) -> str:
        job = next(iter(job_queries.get_jobs(self.access, [self.job_id])), None)
        if job is None:
            self.is_over = True
            return RELOAD_EVENT
        lines = job_queries.list_lines_after(job.id, self.seq)
        attempts = [job_presenter.attempt_row(each) for each in job_queries.list_attempts(job.id)]
        made = job_queries.list_artifacts(job.id)
        seen = {
            **job_presenter.job_detail(job, job_queries.get_job_result(job.id), self.viewer),
            **self._read_processor_fields(job, made),
        }
        if lines:
            self.seq = lines[-1].seq
        if len(lines) == job_queries.MAX_LOG_LINES:
            self.watcher.notify(self.job_id)
        self.wait_seconds = (
            POLL_INTERVAL_SECONDS if job.state in (QUEUED, WAITING, FINALIZING) else KEEP_ALIVE_INTERVAL_SECONDS
        )
        self.is_over = job.state in TERMINAL_STATES and self.seq >= job.last_seq
        files = [job_presenter.artifact_row(each, job.id) for each in made]
        said = {"job": seen, "attempts": attempts, "files": files, "is_over": self.is_over}
        is_news = bool(lines) or said != self.last_data
        self.last_data = said
        return (
            _format_event(self.seq, {**said, "lines": [job_presenter.log_line(each) for each in lines]})
            if is_news
            else ""
        )

    def _read_processor_fields(
        self, job: job_queries.JobListItem, made: list[job_queries.ArtifactRow]
    ) -> job_presenter.TemplateData:
        """How the processor is; nothing for a job that belongs to no treatment, once it is known to be none."""
        state = treatment_queries.get_treatment_state(job.id) if self.may_be_treatment else None
        self.may_be_treatment = state is not None
        return treatment_presenter.processor_status(job, state, made) if state else {}


def _format_event(id_: int, data: dict[str, Any]) -> str:
    return f"id: {id_}\ndata: {orjson.dumps(data).decode()}\n\n"


def _build_min_id(at: int) -> UUID:
    """What all ids made since then are greater than: they begin with the time (RFC 9562, 5.7)."""
    return UUID(int=max(at, 0) << 80)
