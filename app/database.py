"""The database: one pool per process, the connection of a request or task, and statements compiled once for it.

A `PreparedStatement` runs on the driver's cursor. Measured on one row of an event (70 columns), SQLAlchemy's way costs
103 µs of processor time, the driver's 24 (docs/decisions/0011-prepared-statements.md).
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
        "random_page_cost=1.1",  # no disk turns any more: with 4, half of all events were read to count 1,000 FAQs
        "statement_timeout=3s",
        "lock_timeout=2s",  # less than a statement has: who waits for somebody is told so
        "idle_in_transaction_session_timeout=150s",  # longer than a task may take
    )
)
"""No request and no task waits for ever, and nobody waits for ever for them."""

SLOT_TIMEOUT_SECONDS = 5.0
"""How long a request waits for its share of the pool, outside of the pool; MAX_WAITING_REQUESTS may wait."""

MAX_WAITING_REQUESTS = 256
MAX_WAITING_REQUESTS_PER_ADDRESS = 192
"""They are among the requests in progress that `app/request_slots.py` admits, which has fewer of one address."""

WRITER_SLOT_TIMEOUT_SECONDS = 3.0
"""How long a request that writes waits for a slot of a writer: longer than another one waits for a row."""

MAX_WAITING_WRITERS = 64
MAX_WAITING_WRITERS_PER_ADDRESS = 32
"""Requests that wait for this hold threads; others are refused at once."""

STREAM_HOLDER = group_holder("streams")
"""The holder of all reads of streams: together they have a fifth of the pool."""
ACCOUNT_SLOT_TIMEOUT_SECONDS = 5.0
"""Seconds that a request of an account route, such as a log-in, waits for a slot of the rest of the pool."""

ACCOUNT_LOCK_TIMEOUT_MS = 200
"""Milliseconds that a statement of an account route waits for a row: an account can hold its own rows for seconds."""

MAX_LONG_WRITES = 3
"""Long writes (`app/jsonapi/long_writes.py`) that run at once in a web process, one of each address and user."""

RETRY_AFTER_SECONDS = 1
"""What a client that found no slot in time is told to wait."""

TCP_USER_TIMEOUT_MS = 10_000
"""How long sent bytes may stay unacknowledged before a connection counts as dead: the other machine may be gone."""

FLOAT8_OID = 701

STALE_STATEMENT_SQLSTATES = frozenset({"0A000", "26000"})
"""A column has another type than when the statement was prepared; the server, or a pooler, has forgotten it."""

Row = Sequence[Any]


def init_app(app: Flask) -> None:
    """Bind the pool; a connection that the server has closed is noticed when it is taken, not when it is used."""
    app.config["SQLALCHEMY_DATABASE_URI"] = app.config["DATABASE_URL"]
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "pool_size": app.config["DATABASE_POOL"],
        "max_overflow": 0,
        "pool_timeout": 5,
        "json_deserializer": orjson.loads,
        "hide_parameters": True,  # what people wrote stays out of logs and Sentry
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
    """Return the slots of requests that read or write: four fifths of the pool, half of it per address.

    A request holds one until its answer is printed, so that one address does not keep the interpreter busy either. The
    rest of the pool is for account routes (`make_account_slots`).
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

    A transaction that waits for a row holds its connection: without shares one account could hold all of them.
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
    """Connections that stay open beside the pool, each statement a transaction: for LISTEN."""
    return create_engine(
        database_url,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        connect_args={"connect_timeout": 3, "tcp_user_timeout": 5000, "application_name": application_name},
    )


def listen_to_channel(connection: Connection, channel: str) -> None:
    """Let `poll_notifications` return what is sent to this channel, whose name must be trusted: it is no parameter."""
    connection.execute(text(f"LISTEN {channel}"))


def poll_notifications(connection: Connection, seconds: float) -> list[str]:
    """The payloads that have come; nothing yet: the first ones within so many seconds."""
    driver_connection: Any = connection.connection.driver_connection
    return [notification.payload for notification in driver_connection.notifies(timeout=seconds, stop_after=1)]


def _reject_closed_connection(connection: psycopg.Connection[Any], _record: object, _proxy: object) -> None:
    """The pool makes another connection for one where something waits to be read: nobody asked, so it is a farewell.

    It costs a system call; asking PostgreSQL (`pool_pre_ping`) costs a round trip for every request.
    """
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if waiting.poll(0):
        raise DisconnectionError


class _Transaction:
    """What a request does in the database: a connection from when the first statement wants one."""

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
        """The connection; one that writes has begun."""
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
        """Keep what was written, and give the connection back."""
        if self._connection is not None:
            self._connection.commit()
            if self._writers is not None:
                write_limits.charge_request()
            self.close()

    def close(self) -> None:
        """Give the connection back; what was not committed has never been."""
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
    """Wait for a slot of the pool for this caller; raise 429 or 503 where none gets free in time."""
    return take_slot(
        slots,
        holders,
        full="Too many requests are in progress at this moment. Try again.",
        share=(
            f"Too many requests of {{holder}} are in progress: at most {slots.max_per_user} of one user and "
            f"{slots.max_per_holder} of one address run at once, and others waited too long. Send fewer at once."
        ),
        retry_after=RETRY_AFTER_SECONDS,
        timeout_seconds=SLOT_TIMEOUT_SECONDS,
    )


def _take_writer_slot(writers: SlotPool, holders: tuple[str, ...]) -> Slot:
    """Wait for a slot of a writer for this caller; raise 429 or 503 where none gets free in time."""
    return take_slot(
        writers,
        holders,
        full="Too many writes are in progress at this moment. Try again.",
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
    """Let the transactions of this request that have no connection yet count for a signed-in user."""
    g.user_id = user_id


def _discard_stale_connection(context: ExceptionContext) -> None:
    """A connection whose prepared statements are no good any more is not used again."""
    if getattr(context.original_exception, "sqlstate", None) in STALE_STATEMENT_SQLSTATES:
        context.is_disconnect = True


@contextmanager
def open_transaction(*, is_read: bool, holders: tuple[str, ...] = ()) -> Iterator[None]:
    """The transaction of a request, kept by `commit` alone.

    One that reads needs no BEGIN and no ROLLBACK, two round trips less; neither needs a session, which costs as much
    as a statement. `holders` have the slot of a stream, whose request has ended.
    """
    engine = current_app.extensions["autocommit"] if is_read else db.engine
    slots = writers = None
    if holders or has_request_context():  # tasks and commands have no share
        slots = current_app.extensions["connection_slots"]
        writers = None if is_read else current_app.extensions["writers"]
    g.transaction = _Transaction(engine, slots, writers, is_read=is_read, holders=holders)
    try:
        yield
    finally:
        g.pop("transaction").close()
    if db.session.registry.has() and db.session().in_transaction():
        raise RuntimeError("A request has one transaction: use database.connection(), not the session, inside it")


def commit() -> None:
    """Keep what this request has written."""
    g.transaction.commit()


def release_connection() -> None:
    """Give the connection of a request that only reads back to the pool; its next statement takes one again."""
    if "transaction" in g:
        g.transaction.close()


def get_connection() -> Connection:
    """The connection of this request; in tasks, commands and log-ins, which use a session, that of the session."""
    current: _Transaction | None = g.get("transaction")
    return db.session.connection() if current is None else current.get_connection()


class _LiteralCompiler(PGCompiler_psycopg):
    """Writes constants into the text: a plan made for good knows partial indexes and how few rows a LIMIT takes."""

    def visit_bindparam(self, bindparam: BindParameter[Any], **options: Any) -> Any:  # type: ignore[override]  # the base names them all
        """A parameter only for a `bindparam` without a value."""
        options["literal_binds"] = not bindparam.required
        return super().visit_bindparam(bindparam, **options)  # type: ignore[no-untyped-call]  # carries no types


DIALECT = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # carries no types
DIALECT.statement_compiler = _LiteralCompiler


def text_sort_key(value: ColumnElement[Any]) -> ColumnElement[str]:
    """Return what texts are sorted and paged by: its bytes compare as people sort (migration 0010)."""
    return func.text_sort_key(value, type_=Text).collate("C")


def unnest_param(name: str, type_: Any) -> Any:
    """A row for each element of the list that a parameter is: of several in one SELECT, side by side."""
    return func.unnest(bindparam(name, type_=ARRAY(type_)))


class PreparedStatement:
    """A statement compiled once; its `bindparam` names are the values to run it with."""

    def __init__(self, statement: Select[Any] | Insert | Update | Delete) -> None:
        compiled: Any = statement.compile(dialect=DIALECT)
        _reject_implicit_defaults(statement, compiled)
        self.text: str = compiled.string
        self._names: list[str] = compiled.positiontup or []
        self._processors = _find_bind_processors(compiled)

    def fetch_rows(self, values: Mapping[str, Any]) -> Sequence[Row]:
        """Run it; what it returns. Raises what SQLAlchemy does: IntegrityError, OperationalError and so on."""
        return self._execute_statement(values).fetchall()

    def run(self, values: Mapping[str, Any]) -> None:
        """Run one that returns nothing."""
        self._execute_statement(values)

    def _execute_statement(self, values: Mapping[str, Any]) -> RawCursor[tuple[Any, ...]]:
        used = get_connection()
        driver: psycopg.Connection[Any] = used.connection.driver_connection  # type: ignore[assignment]  # typed as Any | None
        cursor = RawCursor(driver)
        try:
            cursor.execute(self.text, self._bind_values(values))
        except psycopg.Error as error:
            is_lost = driver.closed or error.sqlstate in STALE_STATEMENT_SQLSTATES
            if is_lost:
                used.invalidate(error)
            raise self._to_sqlalchemy_error(error, is_lost) from None
        return cursor

    def _bind_values(self, values: Mapping[str, Any]) -> list[Any]:
        if not self._processors:
            return [values[name] for name in self._names]
        given = {**values, **{name: process(values[name]) for name, process in self._processors.items()}}
        return [given[name] for name in self._names]

    def _to_sqlalchemy_error(self, error: psycopg.Error, is_lost: bool) -> BaseException:
        """The driver's error as SQLAlchemy's, which is what everybody handles; without the values."""
        more: dict[str, Any] = {"hide_parameters": True, "connection_invalidated": is_lost, "dialect": DIALECT}
        translated: BaseException = DBAPIError.instance(self.text, None, error, psycopg.Error, **more)
        return translated


def _reject_implicit_defaults(statement: Any, compiled: Any) -> None:
    """TypeError for what SQLAlchemy itself does around a statement: defaults of the model, values converted back."""
    if untold := compiled.insert_prefetch or compiled.update_prefetch:
        raise TypeError(f"These columns have defaults in the model and need a value: {[each.name for each in untold]}")
    for column in statement.exported_columns:
        if column.type.dialect_impl(DIALECT).result_processor(DIALECT, FLOAT8_OID) is not None:
            raise TypeError(f"{column} needs to be converted on the way back")


def _find_bind_processors(compiled: Any) -> dict[str, Callable[[Any], Any]]:
    """How values have to be changed for the driver, by name: JSON is written as text."""
    found = {name: bind.type.dialect_impl(DIALECT).bind_processor(DIALECT) for name, bind in compiled.binds.items()}
    return {name: process for name, process in found.items() if process is not None}
