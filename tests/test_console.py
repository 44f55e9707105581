"""Lines of the supervisor: formats, levels, colours, and parsing of the logs of PostgreSQL and Redis."""

import io
import json
import re
import sys
from errno import ENOSPC
from typing import Any

import pytest

from app.console import COLOR_VARIABLE, Console, is_colored, parse_postgres_line, parse_redis_line

POSTGRES = "2026-11-30 09:09:32.559 UTC [14692] "
REDIS = "14694:M 30 Nov 2026 09:09:32.551 "


class Terminal(io.StringIO):
    """Stream whose `isatty` returns True."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        ("LOG:  starting PostgreSQL 18.4 on x86_64-pc-linux-gnu", "debug", None),
        ('LOG:  listening on Unix socket "/tmp/open-event-1/.s.PGSQL.5432"', "debug", None),
        ("LOG:  database system was shut down at 2026-11-30 09:09:31 UTC", "debug", None),
        ("LOG:  database system is ready to accept connections", "debug", None),
        ("LOG:  checkpoint starting: time", "debug", None),
        ("LOG:  checkpoint complete: wrote 230 buffers (1.4%)", "debug", None),
        ("LOG:  checkpoints are occurring too frequently (9 seconds apart)", "info", None),
        ("LOG:  database system was interrupted; last known up at 2026-11-30 09:09:31 UTC", "info", None),
        ("LOG:  server process (PID 15) was terminated by signal 9: Killed", "info", None),
        ("FATAL:  the database system is starting up", "debug", None),
        ('FATAL:  could not write to file "pg_wal/xlogtemp.1": No space left on device', "error", None),
        ('PANIC:  could not write to file "pg_wal/xlogtemp.1": No space left on device', "error", None),
        ("WARNING:  there is no transaction in progress", "warning", None),
        ('ERROR:  duplicate key value violates unique constraint "users_email"', "error", None),
        ("STATEMENT:  INSERT INTO users", None, "STATEMENT: INSERT INTO users"),
        ("HINT:  Consider increasing max_wal_size.", None, "HINT: Consider increasing max_wal_size."),
    ],
)
def test_postgres_shows_what_is_not_routine(line: str, level: str | None, message: str | None) -> None:
    found = parse_postgres_line(POSTGRES + line)

    assert found == (level, message or line.partition(":  ")[2])


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("# oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo", "debug"),
        ("# Redis version=6.2.14, bits=64", "debug"),
        ("# Valkey version=9.1.2, bits=64", "debug"),
        ("# WARNING Memory overcommit must be enabled! Without it, a background save may fail", "debug"),
        ("# User requested shutdown...", "debug"),
        ("# Valkey is now ready to exit, bye bye...", "debug"),
        ("* Ready to accept connections unix", "debug"),
        ("# Failed opening Unix socket: bind: No such file or directory", "warning"),
        ("# Out Of Memory allocating 24 bytes!", "warning"),
        ("* 1 clients connected", "info"),
    ],
)
def test_redis_shows_what_is_not_routine(line: str, level: str) -> None:
    assert parse_redis_line(REDIS + line) == (level, line[2:])


def test_a_line_of_another_form_continues_the_line_before() -> None:
    assert parse_postgres_line("\tWHERE id = 1") == (None, "\tWHERE id = 1")
    assert parse_redis_line("=== REDIS BUG REPORT START") == (None, "=== REDIS BUG REPORT START")


def test_text_has_the_component_the_time_and_the_level(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    console = Console("text", "info")

    console.log_event("web", "ready")
    console.log_event("web", "ended", "warning", status=1)
    console.log_event("web", "hidden", "debug")
    console.forward_line("worker", b"as it is")
    console.forward_line("worker", b"  ")

    lines = capsysbinary.readouterr().out.decode().splitlines()
    assert [re.sub(r"[0-9-]{10} [0-9:]{8}Z", "TIME", line) for line in lines] == [
        "web      | TIME ready",
        "web      | TIME [warning] ended status=1",
        "worker   | as it is",
    ]


@pytest.mark.parametrize(
    "line", [b"Traceback (most recent call last):", b"", b"[1]", b"{}", b'{"a": 1', b"\xff\xfe", b'"text"', b"{1}"]
)
def test_json_wraps_what_is_no_json_object(capsysbinary: pytest.CaptureFixture[bytes], line: bytes) -> None:
    Console("json", "info").forward_line("web", line)

    found = [json.loads(each) for each in capsysbinary.readouterr().out.splitlines()]
    assert [(each["component"], each["level"], each["event"]) for each in found] == [
        ("web", "error", line.decode(errors="replace"))
    ] * bool(line)


def test_json_adds_the_component_to_an_object(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    Console("json", "info").forward_line("web", b'{"event":"request","status":200}')

    assert json.loads(capsysbinary.readouterr().out) == {"component": "web", "event": "request", "status": 200}


@pytest.mark.parametrize(
    ("stream", "environ", "colored"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
        (None, {}, False),
        (io.StringIO(), {COLOR_VARIABLE: "1"}, True),
        (Terminal(), {COLOR_VARIABLE: "0"}, False),
    ],
)
def test_is_colored_only_for_terminals(stream: io.StringIO | None, environ: dict[str, str], colored: bool) -> None:
    assert is_colored(stream, environ) is colored


def test_json_is_never_coloured(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    Console("json", "info", colored=True).log_event("web", "ended", "error")

    assert b"\x1b" not in capsysbinary.readouterr().out


class FullDisk(io.RawIOBase):
    """A file on a disk that is full until `has_room` is set."""

    def __init__(self) -> None:
        self.has_room = False
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if not self.has_room:
            raise OSError(ENOSPC, "No space left on device")
        self.written += bytes(data)
        return len(data)


def test_output_goes_on_when_a_full_disk_has_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, console = FullDisk(), Console("text", "info")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(disk)))

    console.write_line(b"while it is full")
    disk.has_room = True
    console.write_line(b"printed")

    assert disk.written.endswith(b"printed\n")
