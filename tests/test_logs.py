"""Log lines: one a request, with its id, without what is private."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import structlog
from flask import Flask
from flask.testing import FlaskClient

from app import logs


@pytest.fixture
def json_lines(app: Flask, capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """Stdout, with logs as JSON."""
    logs.configure("json")
    yield capsys
    logs.configure(app.config["LOG_FORMAT"])


def read(captured: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """The lines logged since the last look."""
    return [json.loads(line) for line in captured.readouterr().out.splitlines()]


def test_a_request_is_one_line_without_its_query(client: FlaskClient, json_lines: pytest.CaptureFixture[str]) -> None:
    client.get("/livez?token=hunter2")

    (line,) = read(json_lines)
    assert {"method": "GET", "path": "/livez", "status": 200}.items() <= line.items()
    assert "ms" in line
    assert "hunter2" not in json.dumps(line)


def test_a_sane_request_id_is_kept_and_echoed(client: FlaskClient, json_lines: pytest.CaptureFixture[str]) -> None:
    response = client.get("/livez", headers={"X-Request-ID": "trace-1.2:3"})

    assert response.headers["X-Request-ID"] == "trace-1.2:3"
    assert read(json_lines)[0]["request_id"] == "trace-1.2:3"


@pytest.mark.parametrize("sent", ["", "a b", "x" * 65, "ä", "<script>"])
def test_any_other_request_id_is_replaced(client: FlaskClient, sent: str) -> None:
    answered = client.get("/livez", headers={"X-Request-ID": sent.encode().decode("latin-1")}).headers["X-Request-ID"]

    assert answered != sent
    assert len(answered) == 32


def test_a_path_cannot_begin_a_line_of_its_own(client: FlaskClient, capsys: pytest.CaptureFixture[str]) -> None:
    client.get("/livez%0a2026-11-21 forged")

    assert not any(line.startswith("2026-11-21 forged") for line in capsys.readouterr().out.splitlines())


def test_libraries_log_in_the_same_form(json_lines: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("celery.worker").warning("lost %s", "Redis")

    (line,) = read(json_lines)
    assert (line["event"], line["level"], line["logger"]) == ("lost Redis", "warning", "celery.worker")


def test_an_error_is_logged_with_its_exception(json_lines: pytest.CaptureFixture[str]) -> None:
    structlog.get_logger("app.test").error("failed", exc_info=ValueError("why"))

    (line,) = read(json_lines)
    assert "ValueError: why" in str(line["exception"])


@pytest.mark.parametrize("name", ["password", "new_password", "access_token", "Authorization", "SECRET_KEY", "cookie"])
def test_secrets_are_hidden_by_their_name(json_lines: pytest.CaptureFixture[str], name: str) -> None:
    structlog.get_logger("app.test").info("sign-in", **{name: "hunter2"})

    (line,) = read(json_lines)
    assert line[name] == "[hidden]"


def test_a_full_stdout_fails_no_request(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115  # closing it fails as well
    monkeypatch.setattr(sys, "stdout", full)

    assert client.get("/livez").status_code == 200

    with suppress(OSError):
        full.close()


def test_a_closed_stdout_fails_no_request(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)

    assert client.get("/livez").status_code == 200
