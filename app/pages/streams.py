"""What a page is told while it is open: server-sent events for the script, one stream a page.

The id of an event is where to go on: for one job the number of the last line of its log, for the list a time.
"""

import time
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any
from uuid import UUID

import orjson
from flask import Response, request

from app.errors import BadRequest, NotFound
from app.jobs.models import ENDED, QUEUED
from app.jobs.progress import KEEP_ALIVE, Stream
from app.jsonapi.permissions import Access
from app.pages import cookies, listing, reading, shown
from app.pages.cookies import SignedIn
from app.pages.routing import page

PAUSE = 0.3
"""Seconds between two events: whoever looks cannot read faster."""

PLACE_SECONDS = 2.0
"""How old the place in the queue may be, which the jobs before it change."""

RETRY_MS = 2000
"""After which a browser comes again when the connection is lost."""

MARGIN_MS = 30_000
"""For clocks of other machines, and for what is committed later than it was written."""

LONGEST_ABSENCE_MS = 600_000
"""After which the page is asked for anew, instead of all that has changed."""

SILENCE = ":\n\n"
RELOAD = "event: reload\ndata:\n\n"


@page("/stream")
def follow_list(caller: SignedIn) -> Response:
    """Jobs of the list, each time one of them has changed."""
    filters = listing.read_filters(request.args)
    since = _resumed_at(int(marker()))
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


def marker() -> str:
    """The time, from which a list goes on."""
    return str(time.time_ns() // 1_000_000)


def _resumed_at(default: int) -> int:
    """What the browser has seen already: it says so when it comes again, and in the URL when it comes first."""
    sent = request.headers.get("Last-Event-ID") or request.args.get("after") or str(default)
    if not (sent.isascii() and sent.isdigit() and len(sent) < 16):
        raise BadRequest("There is no such event.", header="Last-Event-ID", code="unknown-event")
    return int(sent)


def _streamed(make: Any) -> Response:
    response = Response(content_type="text/event-stream")
    if request.method == "GET":
        response.response = make()
    response.headers["X-Accel-Buffering"] = "no"
    return response


class _Live(Stream):
    """Server-sent events: what is new, at most once in PAUSE seconds."""

    def __init__(self, caller: SignedIn, job_id: UUID | None) -> None:
        self.caller = caller
        self.access: Access = reading.access_of(caller.viewer)
        self.is_over = False
        super().__init__(caller.viewer, job_id)

    def _write(self) -> Iterator[str]:
        yield f"retry: {RETRY_MS}\n\n"
        yield from self._while_it_can(self._events())

    def _events(self) -> Iterator[str]:
        while self._goes_on() and cookies.now() < self.caller.ends_at:
            news = self._news()
            if news:
                yield news
            if self.is_over:
                return
            spoke_at = time.monotonic()
            while not self._is_time(spoke_at):
                ...
            time.sleep(PAUSE)

    def _news(self) -> str:
        """An event, "" when nothing has changed."""
        raise NotImplementedError
