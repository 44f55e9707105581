"""Migrations that change rows, on databases with data."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from os import environ
from pathlib import Path
from shutil import copytree
from typing import Any
from uuid import uuid4

import psycopg
import pytest

pytestmark = [pytest.mark.faults, pytest.mark.long]

ROOT = Path(__file__).resolve().parent.parent

Upgrade = Callable[..., "subprocess.CompletedProcess[str]"]

BEFORE_TEXTS = """
    INSERT INTO users (id, email, password_hash, first_name, facebook_url) VALUES
        (1, 'Eva@xn--mller-kva.example', '!', E'Rene\\u0301', E'https://x.example/e\\u0301'),
        (2, E'eva@mu\\u0308ller.example', '!', NULL, NULL),
        (3, 'Ada@EXAMPLE.com', '!', 'Ada', NULL),
        (4, 'no address', '!', NULL, NULL);
    INSERT INTO events (id, identifier, name, timezone, owner_id, paypal_email, description) VALUES
        (1, 'aaaaaaaa', E'E\\u0301cole', 'UTC', 1, 'shop@xn--mller-kva.example', E'<p>e\\u0301</p>'),
        (2, 'bbbbbbbb', 'School', 'UTC', 1, NULL, E'<b>\\u0338e\\u0301</b>');
    INSERT INTO faq_types (id, name, event_id) VALUES
        (1, E'U\\u0308ni\\u0308', 1), (2, E'\\u00dcn\\u00ef', 1), (3, E'U\\u0308ni\\u0308', 2), (4, E'e\\u0301', 2);
    INSERT INTO faqs (id, question, answer, event_id)
    SELECT n, E'Que\\u0301? ' || n, 'So.', 1 FROM generate_series(1, 1200) n;
"""


@pytest.fixture
def url(environment: dict[str, str]) -> Iterator[str]:
    """Yield the URL of an empty database."""
    name = f"migrated_{uuid4().hex}"
    with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield environment["DATABASE_URL"].replace("/postgres?", f"/{name}?")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def migrate(environment: dict[str, str], url: str) -> Upgrade:
    """Return a function that runs `manage.py db` with these arguments on that database."""

    def run(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(ROOT / "manage.py"), "db", *arguments]
        settings = {**environ, **environment, "DATABASE_URL": url, **more}
        return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=100, check=False)

    return run


def select_rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a statement."""
    with psycopg.connect(url) as connection:
        return connection.execute(statement).fetchall()


@pytest.fixture
def before_texts(url: str, migrate: Upgrade) -> str:
    """Return the URL of a database at the revision before texts were normalized."""
    assert migrate("upgrade", "0009").returncode == 0
    with psycopg.connect(url) as connection:
        connection.execute(BEFORE_TEXTS)
    return url


def test_0010_texts_and_addresses_get_their_normal_form(before_texts: str, migrate: Upgrade) -> None:
    done = migrate("upgrade", "0010")

    assert done.returncode == 0, done.stdout + done.stderr
    url = before_texts
    assert select_rows(url, "SELECT id, email FROM users ORDER BY id") == [
        (1, "Eva@müller.example"),
        (2, "eva@mu\u0308ller.example"),  # as it was: the first one has this address
        (3, "Ada@example.com"),
        (4, "no address"),
    ]
    assert select_rows(url, "SELECT first_name, facebook_url FROM users WHERE id = 1") == [
        ("Ren\u00e9", "https://x.example/e\u0301")
    ]
    assert select_rows(url, "SELECT name, paypal_email, description FROM events ORDER BY id") == [
        ("\u00c9cole", "shop@müller.example", "<p>\u00e9</p>"),
        ("School", None, "<b>\u0338e\u0301</b>"),  # composed, it would lose its tag
    ]
    assert select_rows(url, "SELECT id, name IS NFC NORMALIZED FROM faq_types ORDER BY id") == [
        (1, False),
        (2, True),
        (3, True),
        (4, True),
    ]
    assert select_rows(url, "SELECT count(*) FROM faqs WHERE question IS NOT NFC NORMALIZED") == [(0,)]
    said = done.stdout.splitlines()
    assert "warning: faq_types 1 unchanged: another row has the same name in Normalization Form C" in said
    assert "warning: users 2 unchanged: another user has this e-mail address in its one spelling" in said
    assert "eva@" not in done.stdout


def test_0010_goes_on_where_it_was_interrupted(before_texts: str, migrate: Upgrade) -> None:
    assert migrate("upgrade", "0010").returncode == 0
    with psycopg.connect(before_texts) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0009'")
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_events_name'::regclass")
        connection.execute("DROP INDEX ix_users_email")

    done = migrate("upgrade", "0010")

    assert done.returncode == 0, done.stdout + done.stderr
    valid = select_rows(before_texts, "SELECT indexrelid::regclass::text FROM pg_index WHERE indisvalid")
    assert {("ix_events_name",), ("ix_users_email",)} <= set(valid)


def test_0010_way_down_and_up(before_texts: str, migrate: Upgrade) -> None:
    for way, revision in (("upgrade", "0010"), ("downgrade", "0009"), ("upgrade", "0010")):
        done = migrate(way, revision)
        assert done.returncode == 0, done.stdout + done.stderr
        functions = select_rows(before_texts, "SELECT count(*) FROM pg_proc WHERE proname = 'text_sort_key'")
        assert functions == [(1 if way == "upgrade" else 0,)]


def test_0010_servers_that_migrate_at_once_wait_for_each_other(before_texts: str, migrate: Upgrade) -> None:
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: migrate("upgrade", "0010"), range(3)))

    assert [each.returncode for each in done] == [0, 0, 0], [each.stdout + each.stderr for each in done]
    assert sum("upgraded to 0010" in each.stdout for each in done) == 1


def test_0010_writes_go_on_while_an_index_waits(
    before_texts: str, migrate: Upgrade, wait_until: Callable[..., Any]
) -> None:
    building = "SELECT count(*) FROM pg_stat_progress_create_index WHERE datname = current_database()"
    with psycopg.connect(before_texts) as older, ThreadPoolExecutor() as pool:
        older.execute("INSERT INTO users (id, email, password_hash) VALUES (101, 'long@example.com', '!')")
        done = pool.submit(migrate, "upgrade", "0010")
        wait_until(lambda: select_rows(before_texts, building) != [(0,)], 60)
        with psycopg.connect(before_texts, options="-c lock_timeout=1s") as other:
            other.execute("UPDATE events SET name = 'Other' WHERE id = 2")
            other.execute("INSERT INTO users (id, email, password_hash) VALUES (102, 'other@example.com', '!')")
        older.commit()
        assert done.result().returncode == 0


def test_0010_is_printed_as_sql(url: str, migrate: Upgrade) -> None:
    done = migrate("upgrade", "0009:0010", "--sql")

    assert done.returncode == 0, done.stderr
    assert "CREATE OR REPLACE FUNCTION text_sort_key" in done.stdout
    assert "CREATE INDEX CONCURRENTLY ix_events_name" in done.stdout


def test_0010_without_a_unicode_collation_is_one_clear_line(before_texts: str, migrate: Upgrade) -> None:
    with psycopg.connect(before_texts) as connection:
        connection.execute("SET allow_system_table_mods = on")
        connection.execute("UPDATE pg_collation SET collname = 'gone' WHERE collname = 'pg_c_utf8'")

    done = migrate("upgrade", "0010")

    assert done.returncode == 1
    assert "this database has no Unicode collation: PostgreSQL 17 or later is needed" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert select_rows(before_texts, "SELECT version_num FROM alembic_version") == [("0009",)]


def test_mail_counts_and_addresses_of_sign_ins_can_be_taken_back(url: str, migrate: Upgrade) -> None:
    columns = "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE column_name IN "
    added = columns + "('mailbox', 'address_key') ORDER BY 1"
    assert migrate("upgrade").returncode == 0
    assert select_rows(url, added) == [("mail_counts.mailbox",), ("sign_ins.address_key",)]

    assert migrate("downgrade", "0011").returncode == 0
    assert select_rows(url, added) == []
    assert migrate("upgrade").returncode == 0
    assert select_rows(url, added) == [("mail_counts.mailbox",), ("sign_ins.address_key",)]


BEFORE_SEALING = """
    INSERT INTO users (id, email, password_hash) VALUES (1, 'ada@example.com', '!');
    INSERT INTO events (id, identifier, name, timezone, owner_id, bank_details, paypal_email, public_stream_link) VALUES
        (1, 'aaaaaaaa', 'One', 'UTC', 1, 'DE02', NULL, 'javascript:alert(1)'),
        (2, 'bbbbbbbb', 'Two', 'UTC', 1, NULL, 'pay@example.com', 'https://example.com/live'),
        (3, 'cccccccc', 'Three', 'UTC', 1, NULL, NULL, NULL),
        (4, 'dddddddd', 'Four', 'UTC', 1, 'sealed: envelope in the safe', NULL, NULL),
        (5, 'eeeeeeee', 'Five', 'UTC', 1, 'sealed:AAAA', NULL, NULL);
    INSERT INTO events (id, identifier, name, timezone, owner_id, bank_details)
    SELECT n, n, 'Many', 'UTC', 1, 'DE' || n FROM generate_series(10, 1209) n;
"""


def test_0017_payment_details_are_sealed_and_opened_again(url: str, migrate: Upgrade) -> None:
    assert migrate("upgrade", "0011").returncode == 0
    with psycopg.connect(url) as connection:
        connection.execute(BEFORE_SEALING)
    details = "SELECT id, bank_details, paypal_email FROM events ORDER BY id"
    before = select_rows(url, details)

    done = migrate("upgrade", "0017")

    assert done.returncode == 0, done.stdout + done.stderr
    plain = "SELECT count(*) FROM events WHERE bank_details !~ '^sealed:A[g-v]' OR paypal_email !~ '^sealed:A[g-v]'"
    assert select_rows(url, plain) == [(0,)]
    sealed = select_rows(url, details)
    assert [tuple(value is None for value in row) for row in sealed] == [
        tuple(value is None for value in row) for row in before
    ]
    assert select_rows(url, "SELECT id, public_stream_link FROM events WHERE id < 10 ORDER BY id") == [
        (1, None),
        (2, "https://example.com/live"),
        (3, None),
        (4, None),
        (5, None),
    ]
    assert migrate("downgrade", "0017").returncode == 0
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0016'")
    assert migrate("upgrade", "0017").returncode == 0
    assert select_rows(url, details) == sealed

    refused = migrate("downgrade", "0016", SECRET_KEY="another key of enough characters for it")
    assert refused.returncode != 0
    output = refused.stdout + refused.stderr
    (line,) = [each for each in output.splitlines() if "cannot be opened" in each] or [output]
    assert "bank_details of event 1 " in line
    assert "Traceback" not in output
    assert select_rows(url, details) == sealed

    assert migrate("downgrade", "0011").returncode == 0
    assert select_rows(url, details) == before
    assert migrate("upgrade", "0017").returncode == 0


def test_the_next_revision_has_the_highest_number_plus_one(url: str, migrate: Upgrade, tmp_path: Path) -> None:
    versions = Path(copytree(ROOT / "migrations", tmp_path / "migrations")) / "versions"
    numbers = [int(path.name[:4]) for path in versions.glob("[0-9]*.py")]
    assert max(numbers) > len(numbers), "one number is missing, so their count is not the highest one"
    assert migrate("upgrade", "head").returncode == 0

    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE unknown (id integer)")  # a difference from the models

    made = migrate("migrate", "-m", "next", "-d", str(tmp_path / "migrations"))

    assert made.returncode == 0, made.stdout + made.stderr
    (new,) = {int(path.name[:4]) for path in versions.glob("[0-9]*.py")} - set(numbers)
    assert new == max(numbers) + 1


BEFORE_COLUMN_NAMES = """
    INSERT INTO users (id, email, password_hash) VALUES (7, 'ada@example.com', '!');
    INSERT INTO jobs (id, kind, parameters, trigger, owner_id, state, sealed, kept, runs_again) VALUES
        ('00000000-0000-0000-0000-000000000001', 'treat', '{}', 'api', 7, 'waiting', '\\x01', true, true);
    INSERT INTO uploads (id, owner_id, stored_as, media_type, width, height, size) VALUES
        (1, 7, 'uploads/a.png', 'image/png', 1, 1, 1);
"""


def test_0022_columns_are_renamed_with_their_values_and_back(url: str, migrate: Upgrade) -> None:
    assert migrate("upgrade", "0021").returncode == 0
    with psycopg.connect(url) as connection:
        connection.execute(BEFORE_COLUMN_NAMES)

    assert migrate("upgrade", "0022").returncode == 0
    assert select_rows(url, "SELECT encrypted_secrets, retained, rerun_requested FROM jobs") == [(b"\x01", True, True)]
    assert select_rows(url, "SELECT storage_key FROM uploads") == [("uploads/a.png",)]

    assert migrate("downgrade", "0021").returncode == 0
    assert select_rows(url, "SELECT sealed, kept, runs_again FROM jobs") == [(b"\x01", True, True)]
    assert select_rows(url, "SELECT stored_as FROM uploads") == [("uploads/a.png",)]


BEFORE_SHARES = """
    INSERT INTO users (id, email, password_hash) VALUES (7, 'ada@example.com', '!');
    INSERT INTO jobs (id, kind, parameters, trigger, owner_id, state, finished_at) VALUES
        (gen_random_uuid(), 'queued', '{}', 'api', 7, 'queued', NULL),
        (gen_random_uuid(), 'command', '{}', 'cli', NULL, 'queued', NULL),
        (gen_random_uuid(), 'ended', '{}', 'api', 7, 'succeeded', now());
"""


def test_0019_live_jobs_get_the_share_of_their_owner_and_it_can_be_undone(url: str, migrate: Upgrade) -> None:
    assert migrate("upgrade", "0011").returncode == 0
    with psycopg.connect(url) as connection:
        connection.execute(BEFORE_SHARES)

    done = migrate("upgrade", "0020")

    assert done.returncode == 0, done.stdout + done.stderr
    assert select_rows(url, "SELECT kind, share FROM jobs ORDER BY kind") == [
        ("command", 0),
        ("ended", 0),
        ("queued", 7),
    ]
    indexes = (
        "SELECT count(*) FROM pg_indexes WHERE indexname IN ('ix_jobs_share_queued_at_id', 'ix_uploads_stored_as')"
    )
    assert select_rows(url, indexes) == [(2,)]
    undone = migrate("downgrade", "0011")
    assert undone.returncode == 0, undone.stdout + undone.stderr
    assert select_rows(url, indexes) == [(0,)]
    assert migrate("upgrade", "0020").returncode == 0


def test_0012_entries_that_are_there_have_no_subject(url: str, migrate: Upgrade) -> None:
    assert migrate("upgrade", "0011").returncode == 0
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO outbox_entries (id, consumer, topic, payload)"
            " VALUES (gen_random_uuid(), 'events.write_calendar', 'event.updated', '{\"id\": 1}')"
        )

    for way, revision in (("upgrade", "0012"), ("downgrade", "0011"), ("upgrade", "0012")):
        done = migrate(way, revision)
        assert done.returncode == 0, done.stdout + done.stderr
    assert select_rows(url, "SELECT subject FROM outbox_entries") == [(None,)]
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_outbox_entries_subject'::regclass"
    assert select_rows(url, valid) == [(True,)]
