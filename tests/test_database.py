"""The connection of a request, and statements that are prepared once."""

import enum
from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest
from flask import Flask
from sqlalchemy import BigInteger, Column, Enum, MetaData, Table, bindparam, func, insert, literal, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from app.database import PreparedStatement, commit, get_connection, open_transaction
from app.extensions import db
from app.outbox import OutboxEntry
from app.users.models import User
from tests.dataset import Dataset

NUMBER = bindparam("number", type_=BigInteger)
NAMES = ("id", "consumer", "topic", "payload")
ENTRY = PreparedStatement(
    insert(OutboxEntry).values({name: bindparam(name) for name in NAMES}).returning(OutboxEntry.payload)
)
VALUES = {"id": UUID("0198a1b2-0000-7000-8000-000000000000"), "consumer": "tests", "topic": "tests", "payload": {}}


@pytest.fixture
def context(app: Flask) -> Iterator[None]:
    """Push the context of the app."""
    with app.app_context():
        yield


def test_constants_stand_in_the_text_and_only_values_are_parameters() -> None:
    statement = PreparedStatement(select(User.id).where(User.email == "a'b", User.id == NUMBER).limit(3))

    assert "'a''b'" in statement.text
    assert "LIMIT 3" in statement.text
    assert "$1" in statement.text
    assert "$2" not in statement.text


@pytest.mark.usefixtures("context")
def test_a_value_may_stand_in_several_places() -> None:
    assert PreparedStatement(select(NUMBER, NUMBER + 1, literal(7))).fetch_rows({"number": 4, "unused": 1}) == [
        (4, 5, 7)
    ]


@pytest.mark.usefixtures("context")
def test_a_value_that_is_not_given_is_an_error() -> None:
    with pytest.raises(KeyError, match="number"):
        PreparedStatement(select(NUMBER)).fetch_rows({})


@pytest.mark.usefixtures("context")
def test_json_goes_in_and_comes_out() -> None:
    assert ENTRY.fetch_rows({**VALUES, "payload": {"ä": [1, None]}}) == [({"ä": [1, None]},)]


def test_a_default_of_the_model_that_is_not_given_is_refused() -> None:
    with pytest.raises(TypeError, match="is_admin"):
        PreparedStatement(insert(User).values(email=bindparam("email"), password_hash="!"))


def test_a_column_that_needs_converting_is_refused() -> None:
    class Colour(enum.Enum):
        RED = 1

    table = Table("things", MetaData(), Column("colour", Enum(Colour)))

    with pytest.raises(TypeError, match="colour"):
        PreparedStatement(select(table))


@pytest.mark.usefixtures("context")
def test_a_broken_rule_is_told_as_sqlalchemy_tells_it_without_the_values() -> None:
    ENTRY.run({**VALUES, "payload": "hunter2"})

    with pytest.raises(IntegrityError) as caught:
        ENTRY.run({**VALUES, "payload": "hunter2"})

    assert caught.value.orig.diag.constraint_name == "pk_outbox_entries"  # type: ignore[union-attr]  # the driver's
    assert "hunter2" not in str(caught.value)


def test_a_connection_that_dies_is_told_and_not_used_again(app: Flask) -> None:
    suicide = PreparedStatement(select(func.pg_terminate_backend(func.pg_backend_pid())))
    with app.app_context():
        with pytest.raises(OperationalError), open_transaction(is_read=True):
            suicide.fetch_rows({})
        with open_transaction(is_read=True):
            assert PreparedStatement(select(NUMBER)).fetch_rows({"number": 1}) == [(1,)]


def test_connections_that_the_server_has_closed_meanwhile_are_replaced_unseen(app: Flask, dataset: Dataset) -> None:
    assert dataset.owner.get("/v1/events").status_code == 200
    ours = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = 'open-event'"
    with psycopg.connect(app.config["DATABASE_URL"].replace("+psycopg", "")) as apart:
        row = apart.execute(f"{ours} AND datname = current_database()").fetchone()
    assert row is not None
    assert row[0] > 0

    assert dataset.owner.get("/v1/events").status_code == 200


def test_uncommitted_transaction_is_rolled_back(app: Flask) -> None:
    count = PreparedStatement(select(func.count()).select_from(OutboxEntry))
    with app.app_context():
        with open_transaction(is_read=False):
            ENTRY.run(VALUES)
        with open_transaction(is_read=False):
            assert count.fetch_rows({}) == [(0,)]
            ENTRY.run(VALUES)
            commit()
        assert get_connection().scalar(text("SELECT count(*) FROM outbox_entries")) == 1


def test_a_session_inside_a_request_is_an_error(app: Flask) -> None:
    with app.app_context(), pytest.raises(RuntimeError, match="one transaction"), open_transaction(is_read=False):
        db.session.execute(text("SELECT 1"))


def test_no_connection_is_taken_before_a_statement_wants_one(app: Flask) -> None:
    with app.app_context(), open_transaction(is_read=False):
        assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # of the kind of pool we have
        get_connection()
        assert db.engine.pool.checkedout() == 1  # type: ignore[attr-defined]  # same


def test_a_type_that_changes_under_a_running_server_is_noticed(app: Flask, dataset: Dataset) -> None:
    def ask() -> int:
        return dataset.owner.get("/v1/faq-types?page[size]=2").status_code

    def alter(type_: str) -> None:
        with db.engine.begin() as apart:
            apart.execute(text(f"ALTER TABLE faq_types ALTER name TYPE {type_}"))

    with app.app_context():
        assert {ask() for _ in range(10)} == {200}
        alter("varchar(300)")
        try:
            answers = [ask() for _ in range(10)]
        finally:
            alter("text")
    assert set(answers) <= {200, 503}
    assert answers[-1] == 200


def test_statements_that_the_server_has_forgotten_are_prepared_again(app: Flask, dataset: Dataset) -> None:
    with app.app_context():
        assert {dataset.owner.get("/v1/events").status_code for _ in range(10)} == {200}
        with db.engine.connect() as used:
            used.connection.driver_connection.pgconn.exec_(b"DISCARD ALL")  # type: ignore[union-attr]  # psycopg's

        answers = [dataset.owner.get("/v1/events").status_code for _ in range(10)]

    assert set(answers) <= {200, 503}
    assert answers[-1] == 200


def test_a_database_that_only_reads_is_away_for_writers(app: Flask, dataset: Dataset) -> None:
    with app.app_context():
        db.engine.dispose()  # the next connection is the only one
    with app.app_context(), db.engine.connect() as used:
        driver: psycopg.Connection[object] = used.connection.driver_connection  # type: ignore[assignment]  # psycopg's
        driver.autocommit = True
        driver.execute("SET default_transaction_read_only = on")
        driver.autocommit = False
    path = f"/v1/events/{dataset.events['published']}"
    try:
        assert dataset.owner.get(path).status_code == 200
        assert dataset.owner.update(path, "event", {"name": "x"}).status_code == 503
    finally:
        with app.app_context():
            db.engine.dispose()


def test_a_row_that_somebody_holds_is_a_conflict_to_try_again(app: Flask, dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    with psycopg.connect(app.config["DATABASE_URL"].replace("+psycopg", "")) as apart:
        apart.execute("SELECT FROM events WHERE id = %s FOR UPDATE", [dataset.events["published"]])

        assert dataset.owner.update(path, "event", {"name": "x"}).status_code == 409
