"""Notifications of jobs: one PostgreSQL connection per process that listens, and its subscribers."""

import select
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from uuid import UUID

import structlog
from flask import Flask, current_app
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from app.database import (
    STREAM_HOLDER,
    create_listen_engine,
    get_connection,
    listen_to_channel,
    open_transaction,
    poll_notifications,
)
from app.jobs.lifecycle import NOTIFY_CHANNEL
from app.jsonapi.current_user import CurrentUser
from app.slots import NoFreeSlotError, Slot, SlotPool, take_slot

MAX_SUBSCRIBERS = 240
"""Subscribers in one process; each occupies a thread of the web server (`app/web.py`)."""

MAX_SUBSCRIBERS_PER_HOLDER = 80
"""Subscribers in one process of one user or one client address."""

MAX_LIST_SUBSCRIBERS_PER_USER = 10
"""Streams of all jobs of one user: each change is read for each of them."""

READ_SLOT_TIMEOUT_SECONDS = 5.0
"""Seconds that a stream waits for its turn among the streams of its user before it tries again."""

PROBE_TIMEOUT_SECONDS = 1.0
"""Seconds that a new stream waits for the slot of a stream whose client has disconnected."""

PROBE_INTERVAL_SECONDS = 0.5

CONNECTION_CHECK_INTERVAL_SECONDS = 15.0
"""Seconds without a notification after which the listener checks its connection."""

MAX_BACKOFF_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Subscriber:
    """A thread that waits for changes of one job, or of all jobs that its user sees."""

    def __init__(self, hub: "Hub", job_id: UUID | None, viewer: CurrentUser, holders: tuple[str, ...]) -> None:
        self.hub = hub
        self.job_id = job_id
        self.viewer = viewer
        self.holders = holders
        self._news = threading.Event()
        self._lock = threading.Lock()
        self._changed_ids: set[UUID | None] = set()
        self._is_probed = False

    def is_concerned(self, job_id: UUID, owner_id: int | None) -> bool:
        """Return whether a change of this job, which belongs to this user, may be a change of the stream."""
        if self.job_id is not None:
            return self.job_id == job_id
        return self.viewer.is_admin or self.viewer.id == owner_id

    def wait_for_change(self, seconds: float) -> bool:
        """Wait for a change since the last call or for the shutdown of the server; return whether there was one."""
        is_news = self._news.wait(seconds)
        self._news.clear()
        with self._lock:
            is_probed, self._is_probed = self._is_probed, False
        return is_news and not is_probed

    def wake(self) -> None:
        """Let the next wait end at once."""
        self._news.set()

    def request_probe(self) -> None:
        """Wake the stream so that it sends data, which fails if the client has disconnected."""
        with self._lock:
            self._is_probed = True
        self._news.set()

    def notify(self, job_id: UUID | None) -> None:
        """Record a change of this job, or of an unknown one (None), and wake the subscriber."""
        with self._lock:
            self._changed_ids.add(job_id)
        self._news.set()

    def take_changed_ids(self) -> set[UUID | None]:
        """Return the ids of the jobs changed since the last call; None among them means that any may have changed."""
        with self._lock:
            changed_ids, self._changed_ids = self._changed_ids, set()
        return changed_ids


class Hub:
    """All subscribers of this process; its threads start with the first subscriber, which is after any fork."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._subscribers: set[Subscriber] = set()
        self.slots = SlotPool(MAX_SUBSCRIBERS, MAX_SUBSCRIBERS_PER_HOLDER)
        self.list_slots = SlotPool(MAX_SUBSCRIBERS, MAX_LIST_SUBSCRIBERS_PER_USER)
        self._read_slots = SlotPool(
            MAX_SUBSCRIBERS, 1, max_waiting=4 * MAX_SUBSCRIBERS, max_waiting_per_holder=MAX_SUBSCRIBERS
        )
        """The streams that read: one of each user, or address, at a time, in the order in which they came."""
        self._probed_at = 0.0
        self._stopping = threading.Event()
        self._is_started = False

    @property
    def is_stopping(self) -> bool:
        """Return whether the server is stopping, so that every stream must end."""
        return self._stopping.is_set()

    @contextmanager
    def subscribe(self, job_id: UUID | None, viewer: CurrentUser, *holders: str) -> Iterator[Subscriber]:
        """Subscribe to changes of one job, or of all jobs (None), within the context.

        State that is read inside the context misses no change. `holders` are the client address and the user of the
        subscriber; all jobs need a user. Raise Unavailable or TooManyRequests if there are too many subscribers.
        """
        with ExitStack() as slots:
            slots.callback(self.slots.release, self.take_slot(self.slots, *holders))
            if job_id is None:
                slots.callback(self.list_slots.release, self.take_slot(self.list_slots, holders[-1]))
            subscriber = Subscriber(self, job_id, viewer, holders)
            with self._lock:
                self._subscribers.add(subscriber)
                self._start_threads()
            try:
                yield subscriber
            finally:
                with self._lock:
                    self._subscribers.discard(subscriber)

    @contextmanager
    def open_read(self, subscriber: Subscriber) -> Iterator[None]:
        """Open a transaction in which a stream reads; raise NoFreeSlotError, 429 or 503 if no slot is free in time.

        It takes a connection slot of its address and user, like a request, and of all streams.
        """
        slot = self._read_slots.acquire(subscriber.holders[-1], timeout_seconds=READ_SLOT_TIMEOUT_SECONDS)
        try:
            with open_transaction(is_read=True, holders=(*subscriber.holders, STREAM_HOLDER)):
                get_connection()  # before anything changes that another try needs
                yield
        finally:
            self._read_slots.release(slot)

    def take_slot(self, slots: SlotPool, *holders: str) -> Slot:
        """Take a slot for a stream; raise 503 if all slots of the process are taken, 429 if a holder has its share.

        A stream notices that its client has disconnected only when it sends data. Therefore the streams that hold the
        slots must send before a new stream is rejected.
        """
        with suppress(NoFreeSlotError):
            return slots.acquire(*holders)
        self._probe_subscribers(holders, of_all=slots.is_crowded)
        return take_slot(
            slots,
            holders,
            full="Too many streams are open. Try again later.",
            share=f"You have {slots.max_per_holder} open streams, the maximum. Close one of them.",
            timeout_seconds=PROBE_TIMEOUT_SECONDS,
        )

    def _probe_subscribers(self, holders: tuple[str, ...], *, of_all: bool) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._probed_at < PROBE_INTERVAL_SECONDS:
                return
            self._probed_at = now
            probed = [each for each in self._subscribers if of_all or not set(holders).isdisjoint(each.holders)]
        for subscriber in probed:
            subscriber.request_probe()

    def _start_threads(self) -> None:
        if self._is_started:
            return
        self._is_started = True
        threading.Thread(target=self._keep_listening, name="jobs-listener", daemon=True).start()
        stops_when_readable: int | None = self._app.extensions.get("stopping")
        if stops_when_readable is not None:
            threading.Thread(target=self._stop_when_readable, args=(stops_when_readable,), daemon=True).start()

    def _stop_when_readable(self, readable: int) -> None:
        select.select([readable], [], [])
        self._stopping.set()
        self._notify_subscribers(None)

    def _keep_listening(self) -> None:
        engine = create_listen_engine(self._app.config["DATABASE_URL"], "open-event-watch")
        pause = MAX_BACKOFF_SECONDS / 50
        while not self.is_stopping:
            try:
                with engine.connect() as connection:
                    pause = MAX_BACKOFF_SECONDS / 50
                    self._dispatch_notifications(connection)
            except SQLAlchemyError as error:
                log.warning("LISTEN connection lost, reconnecting", error=type(error).__name__, pause=pause)
                self._stopping.wait(pause)
                pause = min(pause * 2, MAX_BACKOFF_SECONDS)

    def _dispatch_notifications(self, connection: Connection) -> None:
        listen_to_channel(connection, NOTIFY_CHANNEL)
        self._notify_subscribers(None)  # notifications sent before LISTEN were lost
        while not self.is_stopping:
            payloads = poll_notifications(connection, CONNECTION_CHECK_INTERVAL_SECONDS)
            if not payloads:
                connection.execute(text("SELECT 1"))
            for payload in payloads:
                job_id, _, owner_id = payload.partition(" ")
                self._notify_subscribers(UUID(job_id), int(owner_id) if owner_id else None)

    def _notify_subscribers(self, job_id: UUID | None, owner_id: int | None = None) -> None:
        with self._lock:
            concerned = [each for each in self._subscribers if job_id is None or each.is_concerned(job_id, owner_id)]
        for subscriber in concerned:
            subscriber.notify(job_id)


def init_app(app: Flask) -> None:
    """Create the hub of this app."""
    app.extensions["jobs"] = Hub(app)


def current_hub() -> Hub:
    """Return the hub of the current app."""
    hub: Hub = current_app.extensions["jobs"]
    return hub
