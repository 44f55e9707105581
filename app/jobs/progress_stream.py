"""/v1/jobs/{id}/progress: what a job says, as it says it, in the three formats that people stream."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from http import HTTPStatus
from time import monotonic, sleep
from typing import Any, ClassVar, NamedTuple, TypeVar
from uuid import UUID

import orjson
import structlog
from flask import Flask, Response, current_app, request
from flask.views import MethodView
from sqlalchemy import BigInteger, Uuid, bindparam, select
from sqlalchemy.exc import SQLAlchemyError

from app.database import PreparedStatement, open_transaction
from app.errors import BadRequest, NotAcceptable, NotFound, TooManyRequests, Unavailable
from app.jobs.models import QUEUED, TERMINAL_STATES, Job, JobEvent
from app.jobs.notify_hub import Subscriber, current_hub
from app.jobs.queue_position import get_queue_position
from app.jsonapi.current_user import CurrentUser, Role, require_current_user
from app.jsonapi.permissions import AccessContext, VisibilityScope, any_user, describe_predicate
from app.jsonapi.query_params import parse_parameters
from app.jsonapi.resource_type import parse_uuid
from app.slots import NoFreeSlotError, caller_holders
from app.users.auth import is_session_valid
from app.users.ownership import is_owned_by_viewer

KEEP_ALIVE_INTERVAL_SECONDS = 15.0
"""Seconds of silence after which a stream says that it lives."""

LAST_EVENT_ID = "Last-Event-ID"
LAST_EVENT_ID_PARAMETER = "lastEventId"
"""The same as a query parameter: what event-source-polyfill sends, since a script may not always set the header."""

POLL_INTERVAL_SECONDS = 1.0
"""How often the place of a job in the queue is looked at: nobody is told of it."""

RETRY_DELAY_SECONDS = 1.0
"""Pause of a stream that found no slot to read with."""

BATCH_SIZE = 500
"""Events that are read at once."""

_events = JobEvent.__table__
_select_events_after = PreparedStatement(
    select(_events.c.seq, _events.c.fraction, _events.c.message, _events.c.state, _events.c.level)
    .where(_events.c.job_id == bindparam("job_id", type_=Uuid), _events.c.seq > bindparam("seq", type_=BigInteger))
    .order_by(_events.c.seq)
    .limit(BATCH_SIZE)
)

T = TypeVar("T")

log = structlog.get_logger(__name__)


class ProgressEvent(NamedTuple):
    """One element of a stream."""

    seq: int
    fraction: float | None
    message: str | None
    state: str
    level: str = "info"
    queue_position: int | None = None
    """How many are before the job, where it waits."""

    def to_dict(self) -> dict[str, Any]:
        """As it is sent."""
        members = self._asdict()
        if self.queue_position is None:
            del members["queue_position"]
        return members


def list_events_after(job_id: UUID, seq: int) -> list[ProgressEvent]:
    """What a job has said after this event, at most BATCH elements of it."""
    return [ProgressEvent(*row) for row in _select_events_after.fetch_rows({"job_id": job_id, "seq": seq})]


@dataclass(frozen=True)
class StreamFormat:
    """How elements are written: before the first, between two, after the last, and while there is nothing to say."""

    media_type: str
    write: Callable[[ProgressEvent], str]
    first: str = ""
    between: str = ""
    last: str = ""
    silence: str = " "
    """Before the next element on the same line, where JSON and line readers ignore it; no line of its own."""
    ends_lines: bool = False
    """True if each element is a line."""


def _to_json(element: ProgressEvent) -> str:
    return orjson.dumps(element.to_dict()).decode()


FORMATS = (
    StreamFormat("application/json", _to_json, first="[", between=",\n", last="]\n"),
    StreamFormat("application/x-ndjson", lambda element: f"{_to_json(element)}\n", ends_lines=True),
    StreamFormat(
        "text/event-stream", lambda element: f"id: {element.seq}\ndata: {_to_json(element)}\n\n", silence=":\n\n"
    ),
)
"""A JSON array streamed element by element, JSON lines, server-sent events (HTML, 9.2)."""


@dataclass(frozen=True)
class StreamTarget:
    """The job of a stream, who watches it, and the last event that he knows of."""

    job_id: UUID
    viewer: CurrentUser
    seq: int
    state: str
    is_over: bool
    """Whether there is nothing more to say: the job has ended, and its last event is known."""


class ProgressView(MethodView):
    """The events of a job, from its present state on or after Last-Event-ID, until it has ended."""

    methods: ClassVar[set[str]] = {"GET"}

    @classmethod
    def permissions_by_method(cls) -> dict[str, str]:
        """As for the job itself."""
        return {"GET": describe_predicate(any_user)}

    def get(self, id: str) -> Response:
        """A stream in the format that Accept names; 204 where there is nothing more to come."""
        parse_parameters(request.query_string, frozenset({LAST_EVENT_ID_PARAMETER}))
        chosen = _choose_format()
        with open_transaction(is_read=True):
            watched = _find_target(id, require_current_user())
        if watched.is_over and chosen.media_type == "text/event-stream":
            return _no_content_response()
        response = Response(content_type=chosen.media_type)
        if request.method == "GET":
            response.response = _ProgressBody(watched, chosen)
        response.headers["Vary"] = "Accept, Authorization"
        response.headers["X-Accel-Buffering"] = "no"
        return response


def _no_content_response() -> Response:
    """What tells an EventSource not to come again (HTML, 9.2.3)."""
    response = Response(status=HTTPStatus.NO_CONTENT)
    del response.headers["Content-Type"]
    return response


def _choose_format() -> StreamFormat:
    """The format of the stream; a client that takes anything gets the JSON array."""
    found = request.accept_mimetypes.best_match([each.media_type for each in FORMATS])
    if request.headers.get("Accept") and found is None:
        names = ", ".join(each.media_type for each in FORMATS)
        raise NotAcceptable(f"Progress comes as {names}.", header="Accept")
    return next((each for each in FORMATS if each.media_type == found), FORMATS[0])


def _find_target(name: str, viewer: CurrentUser) -> StreamTarget:
    """The job of the URL; 404 where there is none for this caller."""
    access = AccessContext(viewer, VisibilityScope(viewer.role))
    for job_id, state, last_seq in _build_state_query(access.scope.role).fetch_rows(
        {**access.sql_parameters(), "id": parse_uuid(name)}
    ):
        asked = read_last_event_id(LAST_EVENT_ID_PARAMETER, at_most=last_seq)
        seq = max(last_seq - 1, 0) if asked is None else asked
        return StreamTarget(job_id, viewer, seq, state, is_over=asked == last_seq and state in TERMINAL_STATES)
    raise NotFound(f"There is no job {name[:80]!r} here.")


def read_last_event_id(*parameters: str, at_most: int | None = None) -> int | None:
    """Return the id of the event after which a stream goes on, None for none; raise 400 for what cannot be one.

    The header counts first, then the query parameters of these names in their order.
    """
    sent: list[tuple[str | None, dict[str, Any]]] = [(request.headers.get(LAST_EVENT_ID), {"header": LAST_EVENT_ID})]
    sent += [(request.args.get(name), {"parameter": name}) for name in parameters]
    value, source = next((each for each in sent if each[0] is not None), (None, {}))
    if value is None:
        return None
    is_number = value.isascii() and value.isdigit() and len(value) < 19
    if not is_number or (at_most is not None and int(value) > at_most):
        raise BadRequest("There is no such event here.", code="unknown-event", **source)
    return int(value)


@cache
def _build_state_query(role: Role) -> PreparedStatement:
    jobs = Job.__table__
    columns = (jobs.c.id, jobs.c.state, jobs.c.last_seq)
    return PreparedStatement(
        select(*columns).where(
            jobs.c.id == bindparam("id", type_=Uuid), is_owned_by_viewer(VisibilityScope(role), jobs)
        )
    )


class StreamBody:
    """The body of an answer that goes on: it holds a thread and, while it reads, a connection; news wakes it.

    Each part is made in an application context of its own: the request has ended. The stream ends with the server and
    with the sign-in of its user.
    """

    def __init__(self, viewer: CurrentUser, job_id: UUID | None) -> None:
        self.app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # the documented way to hand it to what runs later
        self.viewer = viewer
        self.stack = ExitStack()
        self.watcher: Subscriber = self.stack.enter_context(
            current_hub().subscribe(job_id, viewer, *caller_holders(request.remote_addr, viewer.id))
        )
        self.asked_at = monotonic()
        self._chunks = self._write_chunks()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self.app.app_context():
            return next(self._chunks).encode()

    def close(self) -> None:
        """Called by the server, also when the client has gone away."""
        self.stack.close()

    def _write_chunks(self) -> Iterator[str]:
        """What it says, part by part."""
        raise NotImplementedError

    def _until_database_error(self, news: Iterator[T]) -> Iterator[T]:
        try:
            yield from news
        except SQLAlchemyError as error:
            log.warning("stream ends: the database does not answer", error=type(error).__name__)

    def _should_continue(self) -> bool:
        """Not when the server stops; nor, asked now and then, when whoever watches has logged out."""
        if self.watcher.hub.is_stopping:
            return False
        if monotonic() - self.asked_at < KEEP_ALIVE_INTERVAL_SECONDS:
            return True
        self.asked_at = monotonic()
        return self._read(lambda: is_session_valid(self.viewer)) is not False

    def _read(self, read: Callable[[], T]) -> T | None:
        """Run statements when it is the turn of the user; None, after a pause, where it was not in time.

        Nothing is lost then: what was to be read is read the next time.
        """
        try:
            with self.watcher.hub.open_read(self.watcher):
                return read()
        except (NoFreeSlotError, TooManyRequests, Unavailable):
            sleep(RETRY_DELAY_SECONDS)
            self.watcher.wake()
            return None


class _ProgressBody(StreamBody):
    """What one job says, in one of the formats."""

    def __init__(self, watched: StreamTarget, chosen: StreamFormat) -> None:
        self.watched = watched
        self.format = chosen
        super().__init__(watched.viewer, watched.job_id)

    def _write_chunks(self) -> Iterator[str]:
        chosen = self.format
        separator = ""
        was_silent = False
        last = ProgressEvent(self.watched.seq, None, None, self.watched.state)
        if chosen.first:
            yield chosen.first
        for element in self._iter_events():
            was_silent = element is None
            if element is None:
                yield chosen.silence
                continue
            yield separator + chosen.write(element)
            separator = chosen.between
            last = element
        if was_silent and chosen.ends_lines:
            # The stream ends before the job: white space alone would be a last line that is no JSON.
            yield chosen.write(last._replace(message=None))
        if chosen.last:
            yield chosen.last

    def _iter_events(self) -> Iterator[ProgressEvent | None]:
        """What the job says; None while it says nothing."""
        if self.watched.is_over:
            return
        yield from self._until_database_error(self._poll_events())

    def _poll_events(self) -> Iterator[ProgressEvent | None]:
        seq = self.watched.seq
        ahead: int | None = None
        while self._should_continue():
            found = self._read(partial(self._read_events, seq))
            if found is None:
                yield None
                continue
            elements, waits = found
            yield from elements
            seq = elements[-1].seq if elements else seq
            if elements and elements[-1].state in TERMINAL_STATES:
                return
            if waits is not None and waits != ahead:
                yield ProgressEvent(seq, None, None, QUEUED, queue_position=waits)
            ahead = waits
            if len(elements) < BATCH_SIZE and not self.watcher.wait_for_change(
                KEEP_ALIVE_INTERVAL_SECONDS if waits is None else POLL_INTERVAL_SECONDS
            ):
                yield None

    def _read_events(self, seq: int) -> tuple[list[ProgressEvent], int | None]:
        """What the job has said since, and its place in the queue."""
        waits = get_queue_position(self.watched.job_id)  # first: what begins meanwhile has said so
        return list_events_after(self.watched.job_id, seq), waits
