"""Streams of server-sent events that keep an open page up to date, one for each page.

The id of an event is the position to resume at: the sequence number of the last log line of a job, or a time for the
list.
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
"""Minimum seconds between two events: users cannot read faster."""

POLL_INTERVAL_SECONDS = 2.0
"""Seconds after which values without notifications are read again: queue position and status at the processor."""

RETRY_MS = 1000
"""Milliseconds after which a browser reconnects when the connection is lost."""

RESUME_MARGIN_MS = 30_000
"""Milliseconds that are read again, for clock skew and for transactions that commit late."""

MAX_ABSENCE_MS = 600_000
"""Milliseconds of absence after which the page is reloaded instead of sending all changes."""

MAX_MARKER = 10**14 - 1
"""Maximum resume position: milliseconds since 1970, in the year 5138; sequence numbers are less."""

RELOAD_EVENT = "event: reload\ndata:\n\n"


@page_view("/stream")
def follow_list(caller: PageSession) -> Response:
    """Stream the jobs of the list that change."""
    filters = job_list.parse_filters(request.args)
    now = resume_marker()
    since = _get_resume_position(now)
    if now - since > MAX_ABSENCE_MS:
        return _build_stream_response(lambda: [RELOAD_EVENT])
    return _build_stream_response(lambda: _ListStream(caller, filters.kind, since))


@page_view("/<id>/stream")
def follow_job(caller: PageSession, id: str) -> Response:
    """Stream the changes of a job; return 204 if there are no more to come."""
    job = job_queries.get_job(job_queries.build_access(caller.viewer), id)
    if job is None:
        raise NotFound("There is no such job.")
    seq = _get_resume_position(0)
    if job.state in TERMINAL_STATES and seq >= job.last_seq:
        return Response(status=HTTPStatus.NO_CONTENT)  # the browser does not reconnect after a 204 (HTML, 9.2.3)
    return _build_stream_response(lambda: _JobStream(caller, job.id, seq))


def resume_marker() -> int:
    """Return the current time in milliseconds, as the position from which a list resumes."""
    return time.time_ns() // 1_000_000


def _get_resume_position(default: int) -> int:
    """Return the position in Last-Event-ID, or in the URL for the first connection; else the default."""
    sent = read_last_event_id(LAST_EVENT_ID_PARAMETER, "after", at_most=MAX_MARKER)
    return default if sent is None else sent


def _build_stream_response(make: Callable[[], Iterable[str] | StreamBody]) -> Response:
    response = Response(content_type="text/event-stream")
    if request.method == "GET":
        response.response = make()
    response.headers["X-Accel-Buffering"] = "no"
    return response


class _EventStream(StreamBody):
    """Stream that sends an event for changes, at most one in MIN_EVENT_INTERVAL_SECONDS."""

    wait_seconds = KEEP_ALIVE_INTERVAL_SECONDS
    """Seconds without an event after which a keep-alive is sent."""

    def __init__(self, caller: PageSession, job_id: UUID | None) -> None:
        self.caller = caller
        self.access = job_queries.build_access(caller.viewer)
        self.is_over = False
        super().__init__(caller.viewer, job_id)
        self.watcher.notify(None)  # changes before the subscription were not notified

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
        """Read the current state and return an event, "" without changes."""
        raise NotImplementedError


class _ListStream(_EventStream):
    """Stream of the jobs of a list that change."""

    def __init__(self, caller: PageSession, kind: str, since: int) -> None:
        self.kind = kind
        self.since = since
        self.active_jobs: dict[UUID, job_presenter.TemplateData] = {}
        """Last sent values of active jobs, by id."""
        super().__init__(caller, None)

    def _format_keep_alive(self) -> str:
        return f"id: {self.since}\n\n"

    def _read_event(self) -> str:
        read_at = resume_marker()
        rows = self._read_changed_jobs()
        if (
            len(rows) >= job_queries.MAX_CHANGED_JOBS and read_at - self.since > RESUME_MARGIN_MS
        ):  # not for a page that was just rendered
            self.is_over = True
            return RELOAD_EVENT
        self.since = read_at
        jobs = [job_presenter.job_row(row, self.viewer) for row in rows if self.kind in ("", row.kind)]
        news = [job for job in jobs if self.active_jobs.get(UUID(job["id"])) != job]
        self._remember_active_jobs(jobs)
        return _format_event(self.since, {"jobs": news}) if news else ""

    def _read_changed_jobs(self) -> list[job_queries.JobListItem]:
        """Return the changed jobs, and the queued ones, whose position may have changed."""
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
    """Stream of the log, the attempts, the files and the state of one job."""

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
        """Return the status at the processor; {} for a job without a treatment, which is queried only once."""
        state = treatment_queries.get_treatment_state(job.id) if self.may_be_treatment else None
        self.may_be_treatment = state is not None
        return treatment_presenter.processor_status(job, state, made) if state else {}


def _format_event(id_: int, data: dict[str, Any]) -> str:
    return f"id: {id_}\ndata: {orjson.dumps(data).decode()}\n\n"


def _build_min_id(at: int) -> UUID:
    """Return the least UUIDv7 of a time in milliseconds: ids begin with their time (RFC 9562, 5.7)."""
    return UUID(int=max(at, 0) << 80)
