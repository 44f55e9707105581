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
from app.jobs.models import ENDED, FINALIZING, QUEUED, WAITING
from app.jobs.progress import KEEP_ALIVE, LAST_EVENT_ID_PARAMETER, Stream, read_last_event_id
from app.pages import cookies, findings, listing, reading, shown, treated
from app.pages.cookies import SignedIn
from app.pages.routing import page

PAUSE = 0.3
"""Seconds between two events: whoever looks cannot read faster."""

UNTOLD_SECONDS = 2.0
"""How old that may be of which nobody is told: the place in a queue, and what a processor is asked."""

RETRY_MS = 1000
"""After which a browser comes again when the connection is lost."""

MARGIN_MS = 30_000
"""For clocks of other machines, and for what is committed later than it was written."""

LONGEST_ABSENCE_MS = 600_000
"""After which the page is asked for anew, instead of all that has changed."""

MAX_MARKER = 10**14 - 1
"""Milliseconds since 1970, in the year 5138; the number of an event is less."""

RELOAD = "event: reload\ndata:\n\n"


@page("/stream")
def follow_list(caller: SignedIn) -> Response:
    """Jobs of the list, each time one of them has changed."""
    filters = listing.read_filters(request.args)
    now = marker()
    since = _resumed_at(now)
    if now - since > LONGEST_ABSENCE_MS:
        return _streamed(lambda: [RELOAD])
    return _streamed(lambda: _ListStream(caller, filters.kind, since))


@page("/<id>/stream")
def follow_job(caller: SignedIn, id: str) -> Response:
    """One job, each time it has changed; 204 where nothing more is to come."""
    job = reading.job(reading.access_of(caller.viewer), id)
    if job is None:
        raise NotFound("There is no such job.")
    seq = _resumed_at(0)
    if job.state in ENDED and seq >= job.last_seq:
        return Response(status=HTTPStatus.NO_CONTENT)  # tells the browser not to come again (HTML, 9.2.3)
    return _streamed(lambda: _JobStream(caller, job.id, seq))


def marker() -> int:
    """The time, from which a list goes on."""
    return time.time_ns() // 1_000_000


def _resumed_at(default: int) -> int:
    """What the browser has seen already: it says so when it comes again, and in the URL when it comes first."""
    sent = read_last_event_id(LAST_EVENT_ID_PARAMETER, "after", at_most=MAX_MARKER)
    return default if sent is None else sent


def _streamed(make: Callable[[], Iterable[str] | Stream]) -> Response:
    response = Response(content_type="text/event-stream")
    if request.method == "GET":
        response.response = make()
    response.headers["X-Accel-Buffering"] = "no"
    return response


class _Live(Stream):
    """Server-sent events: what is new, at most once in PAUSE seconds."""

    patience = KEEP_ALIVE
    """Seconds without news after which it says that it lives."""

    def __init__(self, caller: SignedIn, job_id: UUID | None) -> None:
        self.caller = caller
        self.access = reading.access_of(caller.viewer)
        self.is_over = False
        super().__init__(caller.viewer, job_id)
        self.watcher.wake(None)  # of what came before nobody was told

    def _write(self) -> Iterator[str]:
        yield f"retry: {RETRY_MS}\n\n"
        yield from self._while_it_can(self._events())

    def _events(self) -> Iterator[str]:
        while self._goes_on() and cookies.now() < self.caller.ends_at:
            if not self.watcher.wait(self.patience):
                yield self._silence()
            if news := self._news():
                yield news
            if self.is_over:
                return
            time.sleep(PAUSE)

    def _silence(self) -> str:
        return ":\n\n"

    def _news(self) -> str:
        """An event, "" when nothing has changed."""
        raise NotImplementedError


class _ListStream(_Live):
    """What changes in a list."""

    def __init__(self, caller: SignedIn, kind: str, since: int) -> None:
        self.kind = kind
        self.since = since
        self.told: dict[UUID, shown.Shown] = {}
        """What is known of jobs that have not ended."""
        super().__init__(caller, None)

    def _silence(self) -> str:
        return f"id: {self.since}\n\n"

    def _news(self) -> str:
        read_at = marker()
        with self._reading():
            rows = self._changed()
        if len(rows) >= reading.MOST_CHANGED and read_at - self.since > MARGIN_MS:  # not of a page just made
            self.is_over = True
            return RELOAD
        self.since = read_at
        jobs = [shown.listed(row, self.viewer) for row in rows if self.kind in ("", row.kind)]
        news = [job for job in jobs if self.told.get(UUID(job["id"])) != job]
        self._remember(jobs)
        return _event(self.since, {"jobs": news}) if news else ""

    def _changed(self) -> list[reading.Listed]:
        """The jobs there is news of, and those that wait, whose place may be another one."""
        named = self.watcher.named()
        if None in named:
            ids = reading.changed_since(self.access, _first_id(self.since - MARGIN_MS))
        else:
            ids = {id_ for id_ in named if id_ is not None}
        waiting = [id_ for id_, job in self.told.items() if job["state"] == QUEUED]
        return reading.among(self.access, {*ids, *waiting[-reading.MOST_LIVE :]}) if named else []

    def _remember(self, jobs: list[shown.Shown]) -> None:
        for job in jobs:
            if job["state"] in ENDED:
                self.told.pop(UUID(job["id"]), None)
            else:
                self.told[UUID(job["id"])] = job


class _JobStream(_Live):
    """What one job says, does and makes."""

    def __init__(self, caller: SignedIn, job_id: UUID, seq: int) -> None:
        self.job_id = job_id
        self.seq = seq
        self.told: dict[str, Any] = {}
        self.may_be_treatment = True
        super().__init__(caller, job_id)

    def _news(self) -> str:
        with self._reading():
            job = next(iter(reading.among(self.access, [self.job_id])), None)
            if job is None:
                self.is_over = True
                return RELOAD
            lines = reading.lines_after(job.id, self.seq)
            attempts = [shown.tried(each) for each in reading.tries(job.id)]
            made = reading.files(job.id)
            seen = {**shown.whole(job, reading.outcome(job.id), self.viewer), **self._remote(job, made)}
        if lines:
            self.seq = lines[-1].seq
        if len(lines) == reading.MOST_LINES:
            self.watcher.wake(self.job_id)
        self.patience = UNTOLD_SECONDS if job.state in (QUEUED, WAITING, FINALIZING) else KEEP_ALIVE
        self.is_over = job.state in ENDED and self.seq >= job.last_seq
        files = [shown.file(each, job.id) for each in made]
        said = {"job": seen, "attempts": attempts, "files": files, "is_over": self.is_over}
        is_news = bool(lines) or said != self.told
        self.told = said
        return _event(self.seq, {**said, "lines": [shown.line(each) for each in lines]}) if is_news else ""

    def _remote(self, job: reading.Listed, made: list[reading.File]) -> shown.Shown:
        """How the processor is; nothing for a job that belongs to no treatment, once it is known to be none."""
        state = treated.state(job.id) if self.may_be_treatment else None
        self.may_be_treatment = state is not None
        return findings.remote(job, state, made) if state else {}


def _event(id_: int, data: dict[str, Any]) -> str:
    return f"id: {id_}\ndata: {orjson.dumps(data).decode()}\n\n"


def _first_id(at: int) -> UUID:
    """What all ids made since then are greater than: they begin with the time (RFC 9562, 5.7)."""
    return UUID(int=max(at, 0) << 80)
