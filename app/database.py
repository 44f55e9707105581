"""Database access: one pool per process, the connection of a request or task, and precompiled statements.

A `PreparedStatement` uses the driver's cursor. To fetch one event (70 columns), SQLAlchemy needs 103 µs of processor
time, the driver 24 µs (docs/decisions/0011-prepared-statements.md).
"""

import select
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
import psycopg
from flask import Flask, current_app, g, has_request_context, request
from psycopg import RawCursor
from sqlalchemy import (
    ARRAY,
    BindParameter,
    ColumnElement,
    Connection,
    Delete,
    Engine,
    ExceptionContext,
    Insert,
    NullPool,
    Select,
    Text,
    Update,
    bindparam,
    create_engine,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql.psycopg import PGCompiler_psycopg, PGDialect_psycopg
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.orm import Session, SessionTransaction

from app import write_limits
from app.extensions import db, migrate
from app.slots import Slot, SlotPool, caller_holders, group_holder, take_slot

SESSION_OPTIONS = " ".join(
    f"-c {option}"
    for option in (
        "timezone=UTC",
        "random_page_cost=1.1",  # for SSDs: with 4, half of all events were read to count 1,000 FAQs
        "statement_timeout=3s",
        "lock_timeout=2s",  # less than statement_timeout, so that a lock wait has an error of its own
        "idle_in_transaction_session_timeout=150s",  # longer than the time limit of a task
    )
)
"""Session settings: time limits for statements, locks and idle transactions."""

SLOT_TIMEOUT_SECONDS = 5.0
"""Time a request waits for a connection slot before it uses the pool."""

MAX_WAITING_REQUESTS = 256
MAX_WAITING_REQUESTS_PER_ADDRESS = 192
"""Requests waiting for a connection slot; `app/request_slots.py` admits fewer of one address."""

WRITER_SLOT_TIMEOUT_SECONDS = 3.0
"""Time a writing request waits for a writer slot: longer than lock_timeout, so that the slot may become free."""

MAX_WAITING_WRITERS = 64
MAX_WAITING_WRITERS_PER_ADDRESS = 32
"""Requests waiting for a writer slot, each with a thread; others are refused at once."""

STREAM_HOLDER = group_holder("streams")
"""Slot holder of all reads of streams: together they have a fifth of the pool."""

ACCOUNT_SLOT_TIMEOUT_SECONDS = 5.0
"""Seconds that a request of an account route, such as a log-in, waits for a slot of the rest of the pool."""

ACCOUNT_LOCK_TIMEOUT_MS = 200
"""Milliseconds that a statement of an account route waits for a row: an account can hold its own rows for seconds."""

MAX_LONG_WRITES = 3
"""Long writes (`app/jsonapi/long_writes.py`) that run at once in a web process, one of each address and user."""

RETRY_AFTER_SECONDS = 1
"""Value of Retry-After if no slot became free in time."""

TCP_USER_TIMEOUT_MS = 10_000
"""Time sent bytes may stay unacknowledged before a connection is closed: the other host may be down (tcp(7))."""

FLOAT8_OID = 701

STALE_STATEMENT_SQLSTATES = frozenset({"0A000", "26000"})
"""SQLSTATEs of a prepared statement that became invalid: a column type changed, or the server has dropped it."""

Row = Sequence[Any]


def init_app(app: Flask) -> None:
    """Create the pool; a connection that the server has closed is replaced at checkout."""
    app.config["SQLALCHEMY_DATABASE_URI"] = app.config["DATABASE_URL"]
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "pool_size": app.config["DATABASE_POOL"],
        "max_overflow": 0,
        "pool_timeout": 5,
        "json_deserializer": orjson.loads,
        "hide_parameters": True,  # keep user data out of logs and Sentry
        "connect_args": {
            "connect_timeout": 3,
            "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
            "options": SESSION_OPTIONS,
            "application_name": "open-event",
        },
    }
    db.init_app(app)
    migrate.init_app(app, db)
    with app.app_context():
        event.listen(db.engine, "checkout", _reject_closed_connection)
        event.listen(db.engine, "handle_error", _discard_stale_connection)
        app.extensions["autocommit"] = db.engine.execution_options(isolation_level="AUTOCOMMIT")
    app.extensions["connection_slots"] = make_connection_slots(app.config["DATABASE_POOL"])
    write_limits.init_app(app)
    app.extensions["writers"] = make_writer_slots(app.config["DATABASE_POOL"])
    app.extensions["long_writes"] = make_long_write_slots(app.config["DATABASE_POOL"])
    app.extensions["account_slots"] = make_account_slots(app.config["DATABASE_POOL"])
    for moment, listener in (
        ("after_transaction_create", _take_account_slot),
        ("after_begin", _limit_account_locks),
        ("after_transaction_end", _release_account_slot),
    ):
        if not event.contains(db.session, moment, listener):  # all apps of a process have one session factory
            event.listen(db.session, moment, listener)


def make_connection_slots(pool_size: int) -> SlotPool:
    """Return the slots of requests that read or write: four fifths of the pool, half of the pool per address.

    A request holds its slot until its response is serialized, which also limits the CPU time of one address. The rest
    of the pool is for account routes (`make_account_slots`).
    """
    return SlotPool(
        max(1, pool_size * 4 // 5),
        max(1, pool_size // 2),
        max_per_user=max(1, pool_size * 3 // 10),
        max_per_group=max(1, pool_size // 5),
        max_waiting=MAX_WAITING_REQUESTS,
        max_waiting_per_holder=MAX_WAITING_REQUESTS_PER_ADDRESS,
    )


def make_writer_slots(pool_size: int) -> SlotPool:
    """Return the slots of writing requests: three fifths of the pool, half of it per address, three tenths per user.

    A transaction that waits for a row lock holds its connection: without shares one account could hold all of them.
    """
    return SlotPool(
        max(1, pool_size * 3 // 5),
        max(1, pool_size // 2),
        max_per_user=max(1, pool_size * 3 // 10),
        max_waiting=MAX_WAITING_WRITERS,
        max_waiting_per_holder=MAX_WAITING_WRITERS_PER_ADDRESS,
    )


def make_long_write_slots(pool_size: int) -> SlotPool:
    """Return the slots of long writes: half of the slots of writers, so that the others are left for short ones."""
    return SlotPool(
        max(1, min(MAX_LONG_WRITES, make_writer_slots(pool_size).size // 2)),
        1,
        max_waiting=MAX_WAITING_WRITERS,
        max_waiting_per_holder=MAX_WAITING_WRITERS_PER_ADDRESS,
    )


def make_account_slots(pool_size: int) -> SlotPool:
    """Return the slots of account routes, such as log-ins: a fifth of the pool, half of it per address and user."""
    size = max(1, pool_size // 5)
    return SlotPool(size, max(1, size // 2))


def create_listen_engine(database_url: str, application_name: str) -> Engine:
    """Return an engine for LISTEN: connections outside the pool, in autocommit mode."""
    return create_engine(
        database_url,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        connect_args={"connect_timeout": 3, "tcp_user_timeout": 5000, "application_name": application_name},
    )


def listen_to_channel(connection: Connection, channel: str) -> None:
    """Execute LISTEN; the channel is inserted into the SQL, so it must be a trusted name."""
    connection.execute(text(f"LISTEN {channel}"))


def poll_notifications(connection: Connection, seconds: float) -> list[str]:
    """Return the payloads of received notifications; if there are none, wait for the first up to this many seconds."""
    driver_connection: Any = connection.connection.driver_connection
    return [notification.payload for notification in driver_connection.notifies(timeout=seconds, stop_after=1)]


def _reject_closed_connection(connection: psycopg.Connection[Any], _record: object, _proxy: object) -> None:
    """Raise DisconnectionError, so that the pool reconnects, if there is unread data: the server's closing message.

    This takes one system call; `pool_pre_ping` takes a round trip for every request.
    """
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if waiting.poll(0):
        raise DisconnectionError


class _Transaction:
    """Transaction of a request; it takes slots and a connection at the first statement."""

    def __init__(
        self,
        engine: Engine,
        slots: SlotPool | None,
        writers: SlotPool | None,
        *,
        is_read: bool,
        holders: tuple[str, ...] = (),
    ) -> None:
        self._engine = engine
        self._holders = holders
        self._slots = slots
        self._writers = writers
        self._is_read = is_read
        self._connection: Connection | None = None
        self._slot: Slot | None = None
        self._writer_slot: Slot | None = None

    def get_connection(self) -> Connection:
        """Return the connection; take it first if there is none, with BEGIN unless it only reads.

        Raise TooManyRequests, Unavailable or InsufficientStorage if a limit is reached.
        """
        if self._connection is None:
            try:
                if self._slots is not None:
                    holders = self._holders or caller_holders(request.remote_addr, g.get("user_id", 0))
                    if self._writers is not None:
                        write_limits.check_request(holders)
                        self._writer_slot = _take_writer_slot(self._writers, holders)
                    self._slot = _take_connection_slot(self._slots, holders)
                self._connection = self._engine.connect()
                if not self._is_read:
                    self._connection.begin()
            except BaseException:
                self.close()
                raise
        return self._connection

    def commit(self) -> None:
        """Commit, and return the connection to the pool."""
        if self._connection is not None:
            self._connection.commit()
            if self._writers is not None:
                write_limits.charge_request()
            self.close()

    def close(self) -> None:
        """Return the connection to the pool and release the slots; uncommitted changes are rolled back."""
        try:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        finally:
            if self._slots is not None and self._slot is not None:
                self._slots.release(self._slot)
                self._slot = None
            if self._writers is not None and self._writer_slot is not None:
                self._writers.release(self._writer_slot)
                self._writer_slot = None


def _take_connection_slot(slots: SlotPool, holders: tuple[str, ...]) -> Slot:
    """Wait for a connection slot for these holders; raise 429 or 503 if none becomes free in time."""
    return take_slot(
        slots,
        holders,
        full="Too many requests are in progress. Try again.",
        share=(
            f"Too many requests of {{holder}} are in progress: at most {slots.max_per_user} of one user and "
            f"{slots.max_per_holder} of one address run at once, and others waited too long. Send fewer at once."
        ),
        retry_after=RETRY_AFTER_SECONDS,
        timeout_seconds=SLOT_TIMEOUT_SECONDS,
    )


def _take_writer_slot(writers: SlotPool, holders: tuple[str, ...]) -> Slot:
    """Wait for a writer slot for these holders; raise 429 or 503 if none becomes free in time."""
    return take_slot(
        writers,
        holders,
        full="Too many writes are in progress. Try again.",
        share=(
            f"Too many writes of {{holder}} are in progress: at most {writers.max_per_user} of one user and "
            f"{writers.max_per_holder} of one address run at once. Wait until one of them has ended."
        ),
        retry_after=RETRY_AFTER_SECONDS,
        timeout_seconds=WRITER_SLOT_TIMEOUT_SECONDS,
    )


def _take_account_slot(session: Session, transaction: SessionTransaction) -> None:
    """Wait for a slot before the session of a request takes a connection; raise 429 or 503.

    The requests with a session are those of account routes: all others use `open_transaction`.
    """
    if transaction.parent is not None or not has_request_context():
        return
    slots: SlotPool = current_app.extensions["account_slots"]
    slot = take_slot(
        slots,
        caller_holders(request.remote_addr, g.get("user_id", 0)),
        full="Too many requests for accounts are in progress at this moment. Try again.",
        share=(
            f"Too many requests of {{holder}} for accounts are in progress: at most {slots.max_per_holder} of one "
            "address and of one user run at once, and others waited too long. Send fewer at once."
        ),
        retry_after=RETRY_AFTER_SECONDS,
        timeout_seconds=ACCOUNT_SLOT_TIMEOUT_SECONDS,
    )
    session.info["account_slot"] = slots, slot


def _limit_account_locks(session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    """Let the statements of an account route wait shortly for rows: its slot is one of few."""
    if "account_slot" in session.info:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {ACCOUNT_LOCK_TIMEOUT_MS}")


def _release_account_slot(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None and "account_slot" in session.info:
        slots, slot = session.info.pop("account_slot")
        slots.release(slot)


def set_slot_user(user_id: int) -> None:
    """Count further transactions of this request for the authenticated user, too."""
    g.user_id = user_id


def _discard_stale_connection(context: ExceptionContext) -> None:
    """Mark a connection as disconnected if its prepared statements are no longer valid."""
    if getattr(context.original_exception, "sqlstate", None) in STALE_STATEMENT_SQLSTATES:
        context.is_disconnect = True


@contextmanager
def open_transaction(*, is_read: bool, holders: tuple[str, ...] = ()) -> Iterator[None]:
    """Open the transaction of a request; without `commit` it is rolled back.

    A reading one uses autocommit, which saves the round trips of BEGIN and ROLLBACK. Neither uses an ORM session, which
    takes as much time as a statement. `holders` are for a stream, whose request has ended.
    """
    engine = current_app.extensions["autocommit"] if is_read else db.engine
    slots = writers = None
    if holders or has_request_context():  # tasks and commands need no slots
        slots = current_app.extensions["connection_slots"]
        writers = None if is_read else current_app.extensions["writers"]
    g.transaction = _Transaction(engine, slots, writers, is_read=is_read, holders=holders)
    try:
        yield
    finally:
        g.pop("transaction").close()
    if db.session.registry.has() and db.session().in_transaction():
        raise RuntimeError("A request has one transaction: use database.get_connection(), not the session, inside it")


def commit() -> None:
    """Commit the transaction of this request."""
    g.transaction.commit()


def release_connection() -> None:
    """Return the connection of a reading request to the pool; its next statement takes one again."""
    if "transaction" in g:
        g.transaction.close()


def get_connection() -> Connection:
    """Return the connection of this request; in tasks, commands and log-ins that of the ORM session."""
    current: _Transaction | None = g.get("transaction")
    return db.session.connection() if current is None else current.get_connection()


class _LiteralCompiler(PGCompiler_psycopg):
    """Compiler that renders constants as literals, so that a generic plan can use partial indexes and LIMIT values."""

    def visit_bindparam(self, bindparam: BindParameter[Any], **options: Any) -> Any:  # type: ignore[override]  # the base names them all
        """Render a literal, and a parameter only for a `bindparam` without a value."""
        options["literal_binds"] = not bindparam.required
        return super().visit_bindparam(bindparam, **options)  # type: ignore[no-untyped-call]  # carries no types


DIALECT = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # carries no types
DIALECT.statement_compiler = _LiteralCompiler


def text_sort_key(value: ColumnElement[Any]) -> ColumnElement[str]:
    """Return the expression that texts are sorted and paginated by; its byte order is alphabetical (migration 0010)."""
    return func.text_sort_key(value, type_=Text).collate("C")


def unnest_param(name: str, type_: Any) -> Any:
    """Return unnest(parameter): one row for each element of a list; several in one SELECT are combined row by row."""
    return func.unnest(bindparam(name, type_=ARRAY(type_)))


class PreparedStatement:
    """Statement that is compiled once and executed with values for its `bindparam` names."""

    def __init__(self, statement: Select[Any] | Insert | Update | Delete) -> None:
        compiled: Any = statement.compile(dialect=DIALECT)
        _reject_implicit_defaults(statement, compiled)
        self.text: str = compiled.string
        self._names: list[str] = compiled.positiontup or []
        self._processors = _find_bind_processors(compiled)

    def fetch_rows(self, values: Mapping[str, Any]) -> Sequence[Row]:
        """Execute the statement and return its rows; raise the errors of SQLAlchemy, such as IntegrityError."""
        return self._execute_statement(values).fetchall()

    def run(self, values: Mapping[str, Any]) -> None:
        """Execute a statement that returns no rows."""
        self._execute_statement(values)

    def _execute_statement(self, values: Mapping[str, Any]) -> RawCursor[tuple[Any, ...]]:
        connection = get_connection()
        driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]  # typed as Any | None
        cursor = RawCursor(driver)
        try:
            cursor.execute(self.text, self._bind_values(values))
        except psycopg.Error as error:
            is_lost = driver.closed or error.sqlstate in STALE_STATEMENT_SQLSTATES
            if is_lost:
                connection.invalidate(error)
            raise self._to_sqlalchemy_error(error, is_lost) from None
        return cursor

    def _bind_values(self, values: Mapping[str, Any]) -> list[Any]:
        if not self._processors:
            return [values[name] for name in self._names]
        converted = {**values, **{name: process(values[name]) for name, process in self._processors.items()}}
        return [converted[name] for name in self._names]

    def _to_sqlalchemy_error(self, error: psycopg.Error, is_lost: bool) -> BaseException:
        """Return the driver's error as one of SQLAlchemy, without the values."""
        more: dict[str, Any] = {"hide_parameters": True, "connection_invalidated": is_lost, "dialect": DIALECT}
        translated: BaseException = DBAPIError.instance(self.text, None, error, psycopg.Error, **more)
        return translated


def _reject_implicit_defaults(statement: Any, compiled: Any) -> None:
    """Raise TypeError for a statement that needs steps of SQLAlchemy: Python defaults, or conversion of results."""
    if missing := compiled.insert_prefetch or compiled.update_prefetch:
        raise TypeError(f"These columns have defaults in the model and need a value: {[each.name for each in missing]}")
    for column in statement.exported_columns:
        if column.type.dialect_impl(DIALECT).result_processor(DIALECT, FLOAT8_OID) is not None:
            raise TypeError(f"The type of {column} converts results, which a prepared statement does not")


def _find_bind_processors(compiled: Any) -> dict[str, Callable[[Any], Any]]:
    """Return the functions that convert values for the driver, by parameter name: JSON is sent as text."""
    processors = {
        name: bind.type.dialect_impl(DIALECT).bind_processor(DIALECT) for name, bind in compiled.binds.items()
    }
    return {name: process for name, process in processors.items() if process is not None}
