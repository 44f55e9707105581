"""View of /v1/jobs/{id}/progress: streams of progress events as server-sent events, JSON lines or a JSON array."""

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
"""Seconds without an event after which a stream sends a keep-alive."""

LAST_EVENT_ID = "Last-Event-ID"
LAST_EVENT_ID_PARAMETER = "lastEventId"
"""Query parameter with the same meaning, as event-source-polyfill sends it if a script cannot set the header."""

POLL_INTERVAL_SECONDS = 1.0
"""Seconds between two reads of the queue position, for which there are no notifications."""

RETRY_DELAY_SECONDS = 1.0
"""Seconds before a stream that got no slot tries to read again."""

BATCH_SIZE = 500
"""Events that are read with one statement."""

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
    """One event of a stream."""

    seq: int
    fraction: float | None
    message: str | None
    state: str
    level: str = "info"
    queue_position: int | None = None
    """Queue position of a queued job."""

    def to_dict(self) -> dict[str, Any]:
        """Return the members of the JSON object that is sent."""
        members = self._asdict()
        if self.queue_position is None:
            del members["queue_position"]
        return members


def list_events_after(job_id: UUID, seq: int) -> list[ProgressEvent]:
    """Return up to BATCH_SIZE events of a job after the event number `seq`."""
    return [ProgressEvent(*row) for row in _select_events_after.fetch_rows({"job_id": job_id, "seq": seq})]


@dataclass(frozen=True)
class StreamFormat:
    """Format of a stream: one event, and the text before the first, between two and after the last event."""

    media_type: str
    write: Callable[[ProgressEvent], str]
    first: str = ""
    between: str = ""
    last: str = ""
    silence: str = " "
    """Keep-alive text; a space, before the next event on the same line, is ignored by readers of JSON and of lines."""
    ends_lines: bool = False
    """True if each event is one line."""


def _to_json(element: ProgressEvent) -> str:
    return orjson.dumps(element.to_dict()).decode()


FORMATS = (
    StreamFormat("application/json", _to_json, first="[", between=",\n", last="]\n"),
    StreamFormat("application/x-ndjson", lambda element: f"{_to_json(element)}\n", ends_lines=True),
    StreamFormat(
        "text/event-stream", lambda element: f"id: {element.seq}\ndata: {_to_json(element)}\n\n", silence=":\n\n"
    ),
)
"""A JSON array that is sent element by element, JSON lines, and server-sent events (HTML Standard, 9.2)."""


@dataclass(frozen=True)
class StreamTarget:
    """The job of a stream, the current user, and the last event that the client has received."""

    job_id: UUID
    viewer: CurrentUser
    seq: int
    state: str
    is_over: bool
    """True if the job has ended and the client has received its last event."""


class ProgressView(MethodView):
    """The events of a job until it ends, beginning with its current state or after Last-Event-ID."""

    methods: ClassVar[set[str]] = {"GET"}

    @classmethod
    def permissions_by_method(cls) -> dict[str, str]:
        """Return the permission of each method: that of reading the job."""
        return {"GET": describe_predicate(any_user)}

    def get(self, id: str) -> Response:
        """Return a stream in the format of the Accept header; 204 if no events follow for an EventSource."""
        parse_parameters(request.query_string, frozenset({LAST_EVENT_ID_PARAMETER}))
        chosen = _choose_format()
        with open_transaction(is_read=True):
            target = _find_target(id, require_current_user())
        if target.is_over and chosen.media_type == "text/event-stream":
            return _no_content_response()
        response = Response(content_type=chosen.media_type)
        if request.method == "GET":
            response.response = _ProgressBody(target, chosen)
        response.headers["Vary"] = "Accept, Authorization"
        response.headers["X-Accel-Buffering"] = "no"
        return response


def _no_content_response() -> Response:
    """Return 204, which makes an EventSource stop reconnecting (HTML Standard, 9.2.3)."""
    response = Response(status=HTTPStatus.NO_CONTENT)
    del response.headers["Content-Type"]
    return response


def _choose_format() -> StreamFormat:
    """Return the best format for the Accept header, the JSON array by default; raise NotAcceptable if none fits."""
    media_type = request.accept_mimetypes.best_match([each.media_type for each in FORMATS])
    if request.headers.get("Accept") and media_type is None:
        names = ", ".join(each.media_type for each in FORMATS)
        raise NotAcceptable(f"Progress is available as {names}.", header="Accept")
    return next((each for each in FORMATS if each.media_type == media_type), FORMATS[0])


def _find_target(name: str, viewer: CurrentUser) -> StreamTarget:
    """Return the job of the URL as the target of a stream; raise NotFound if the current user may not see it."""
    access = AccessContext(viewer, VisibilityScope(viewer.role))
    for job_id, state, last_seq in _build_state_query(access.scope.role).fetch_rows(
        {**access.sql_parameters(), "id": parse_uuid(name)}
    ):
        last_event_id = read_last_event_id(LAST_EVENT_ID_PARAMETER, at_most=last_seq)
        seq = max(last_seq - 1, 0) if last_event_id is None else last_event_id
        return StreamTarget(job_id, viewer, seq, state, is_over=last_event_id == last_seq and state in TERMINAL_STATES)
    raise NotFound(f"There is no job {name[:80]!r} here.")


def read_last_event_id(*parameters: str, at_most: int | None = None) -> int | None:
    """Return the number of the event after which a stream continues, or None; raise BadRequest for an invalid one.

    The header takes precedence over the query parameters, which are tried in their order.
    """
    values: list[tuple[str | None, dict[str, Any]]] = [(request.headers.get(LAST_EVENT_ID), {"header": LAST_EVENT_ID})]
    values += [(request.args.get(name), {"parameter": name}) for name in parameters]
    value, source = next((each for each in values if each[0] is not None), (None, {}))
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
    """Body of a streaming response, which occupies a thread, and a database connection while it reads.

    Changes of the job wake it. Each chunk is made in its own application context, since the request has ended. It ends
    when the server stops or the session of the current user ends.
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
        """Release the subscription; the WSGI server also calls this when the client has disconnected."""
        self.stack.close()

    def _write_chunks(self) -> Iterator[str]:
        """Yield the chunks of the body."""
        raise NotImplementedError

    def _until_database_error(self, items: Iterator[T]) -> Iterator[T]:
        try:
            yield from items
        except SQLAlchemyError as error:
            log.warning("stream ends: database does not answer", error=type(error).__name__)

    def _should_continue(self) -> bool:
        """Return False if the server is stopping or, checked at intervals, the session of the user has ended."""
        if self.watcher.hub.is_stopping:
            return False
        if monotonic() - self.asked_at < KEEP_ALIVE_INTERVAL_SECONDS:
            return True
        self.asked_at = monotonic()
        return self._read(lambda: is_session_valid(self.viewer)) is not False

    def _read(self, read: Callable[[], T]) -> T | None:
        """Run statements when a slot of the user is free; return None, after a pause, if none was free in time.

        No event is lost: the next call reads them.
        """
        try:
            with self.watcher.hub.open_read(self.watcher):
                return read()
        except (NoFreeSlotError, TooManyRequests, Unavailable):
            sleep(RETRY_DELAY_SECONDS)
            self.watcher.wake()
            return None


class _ProgressBody(StreamBody):
    """Body with the progress events of one job, in one of the formats."""

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
            # The stream ends before the job: a last line of keep-alive spaces alone would not be JSON.
            yield chosen.write(last._replace(message=None))
        if chosen.last:
            yield chosen.last

    def _iter_events(self) -> Iterator[ProgressEvent | None]:
        """Yield the events of the job; None when a keep-alive is due."""
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
        """Return the events of the job after `seq`, and its queue position."""
        # Before the events: a job that starts between the two reads then has an event that reports it.
        waits = get_queue_position(self.watched.job_id)
        return list_events_after(self.watched.job_id, seq), waits
