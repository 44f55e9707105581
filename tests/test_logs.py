"""Log lines: one per request, with its id and without private data."""

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import structlog
from flask import Flask
from flask.testing import FlaskClient

from app import logs
from app.health import probes
from app.health.checks import HealthChecks, make_health_probes
from app.health.probes import Probe, Unhealthy
from app.health.report import HealthReport

ROOT = Path(__file__).resolve().parent.parent
TIMESTAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}Z"


@pytest.fixture
def json_lines(app: Flask, capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """Return the captured stdout, with logs as JSON."""
    logs.configure_logging("json")
    yield capsys
    logs.configure_logging(app.config["LOG_FORMAT"])


def read_lines(captured: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """Return the lines logged since the last call."""
    return [json.loads(line) for line in captured.readouterr().out.splitlines()]


def test_a_request_is_one_line_without_its_query(client: FlaskClient, json_lines: pytest.CaptureFixture[str]) -> None:
    client.get("/v1/events?filter[name]=hunter2")

    (line,) = read_lines(json_lines)
    assert {"method": "GET", "path": "/v1/events", "status": 200, "level": "info"}.items() <= line.items()
    assert "ms" in line
    assert "hunter2" not in json.dumps(line)


@pytest.mark.parametrize("path", ["/%e4%bd%a0" * 6_000, "/v1/events/" + "%00" * 20_000, "/x" + "/" * 60_000])
def test_request_with_a_long_path_is_one_short_line(
    client: FlaskClient, json_lines: pytest.CaptureFixture[str], path: str
) -> None:
    assert client.get(path).status_code in (400, 404)

    lines = read_lines(json_lines)
    assert max(len(json.dumps(line)) for line in lines) < 3_000
    (line,) = [line for line in lines if line["event"] == "request"]
    assert str(line["path"]).endswith("...")


def test_request_with_a_long_method_is_one_short_line(
    client: FlaskClient, json_lines: pytest.CaptureFixture[str]
) -> None:
    client.open("/v1/events", method="A" * 60_000)

    assert max(len(json.dumps(line)) for line in read_lines(json_lines)) < 3_000


def test_refused_request_with_a_long_source_is_one_short_line(
    client: FlaskClient, json_lines: pytest.CaptureFixture[str]
) -> None:
    assert client.get(f"/v1/events?filter[{'a' * 60_000}]=1").status_code == 400

    (line,) = [line for line in read_lines(json_lines) if line["event"] == "request refused"]
    assert str(line["source"]["parameter"]).startswith("filter[aaa")  # type: ignore[index]  # what JSON holds
    assert len(json.dumps(line)) < 1_000


def test_cut_path_does_not_show_a_part_of_the_token_of_a_hook(
    client: FlaskClient, json_lines: pytest.CaptureFixture[str]
) -> None:
    client.get(f"{'/' * (logs.MAX_PATH_LENGTH - len('v1/hooks/123'))}v1/hooks/123secret")

    (line,) = [line for line in read_lines(json_lines) if line["event"] == "request"]
    assert str(line["path"]).endswith("v1/hooks/[hidden]")


def test_a_sane_request_id_is_kept_and_echoed(client: FlaskClient, json_lines: pytest.CaptureFixture[str]) -> None:
    response = client.get("/v1/events", headers={"X-Request-ID": "trace-1.2:3"})

    assert response.headers["X-Request-ID"] == "trace-1.2:3"
    assert read_lines(json_lines)[0]["request_id"] == "trace-1.2:3"


CHECKS = ("/livez", "/readyz", "/readyz/")


@pytest.mark.parametrize("path", CHECKS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_health_check_that_passes_is_not_logged_at_info(
    client: FlaskClient, json_lines: pytest.CaptureFixture[str], method: str, path: str
) -> None:
    assert client.open(path, method=method).status_code == 200

    assert read_lines(json_lines) == []


@pytest.mark.parametrize("path", CHECKS)
def test_a_health_check_that_passes_is_logged_at_debug(
    app: Flask, client: FlaskClient, json_lines: pytest.CaptureFixture[str], path: str
) -> None:
    logs.configure_logging("json", "debug")

    client.get(path)

    assert [(line["path"], line["level"]) for line in read_lines(json_lines) if line["event"] == "request"] == [
        (path, "debug")
    ]


def test_a_health_check_that_fails_is_logged_at_info(
    client: FlaskClient, json_lines: pytest.CaptureFixture[str]
) -> None:
    """Send a health check that fails: no worker and no relay run, and the grace period is 0."""
    app = client.application
    app.extensions["health"] = HealthReport(make_health_probes(HealthChecks(app), grace_seconds=0))

    assert client.get("/health-check").status_code == 503

    assert ("request", "/health-check", 503, "info") in [
        (line["event"], line.get("path"), line.get("status"), line["level"]) for line in read_lines(json_lines)
    ]


def test_a_check_that_has_not_passed_yet_is_logged_when_its_start_takes_too_long(
    json_lines: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check() -> str:
        if not is_up:
            raise Unhealthy("no worker is running")
        return "1 running"

    def ask() -> list[tuple[object, object]]:
        probe.start_check()
        probe()
        return [(line["event"], line["level"]) for line in read_lines(json_lines)]

    is_up, probe = False, Probe("health_check_celery", check)
    assert ask() == []
    monkeypatch.setattr(probes, "START_GRACE_SECONDS", 0.0)
    assert ask() == [("health check failed", "error")]
    is_up = True
    assert ask() == [("health check passes again", "info")]
    is_up = False
    assert ask() == [("health check fails", "warning"), ("health check failed", "error")]


@pytest.mark.parametrize("level", ["warning", "error"])
def test_no_request_is_logged_above_info(
    client: FlaskClient, json_lines: pytest.CaptureFixture[str], level: str
) -> None:
    logs.configure_logging("json", level)

    assert client.get("/v1/events").status_code == 200
    assert client.get("/v1/nothing").status_code == 404

    assert read_lines(json_lines) == []


@pytest.mark.parametrize("name", ["app.test", "celery.app.trace", "some.library"])
@pytest.mark.parametrize(
    ("level", "logged"),
    [("info", ["info", "warning", "error"]), ("warning", ["warning", "error"]), ("error", ["error"])],
)
def test_log_level_is_the_lowest_that_is_logged(
    json_lines: pytest.CaptureFixture[str], name: str, level: str, logged: list[str]
) -> None:
    logs.configure_logging("json", level)

    for each in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger(name), each)("said")

    assert [line["level"] for line in read_lines(json_lines)] == logged


def test_debug_shows_our_debug_lines_but_not_those_of_every_library(json_lines: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("json", "debug")

    for name in ("app.test", "celery.worker", "httpcore.http11"):
        logging.getLogger(name).debug("said")

    assert [line["logger"] for line in read_lines(json_lines)] == ["app.test", "celery.worker"]


def test_text_shows_a_level_only_where_it_is_not_info(app: Flask, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_logging("text", "info")
    structlog.contextvars.clear_contextvars()
    capsys.readouterr()

    structlog.get_logger("app.test").info("job begins", kind="sleep")
    structlog.get_logger("app.test").warning("job failed", kind="sleep")

    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{TIMESTAMP} job begins kind=sleep", first)
    assert re.fullmatch(rf"{TIMESTAMP} \[warning\] job failed kind=sleep", second)


def test_an_uncaught_exception_of_a_process_or_a_thread_is_one_json_line() -> None:
    code = (
        "import threading; from app import logs; logs.configure_logging('json'); logs.log_uncaught_exceptions()\n"
        "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()\n"
        "raise ValueError('why')"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr == ""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["uncaught exception"] * 2
    assert "ZeroDivisionError" in lines[0]["exception"]
    assert "ValueError: why" in lines[1]["exception"]


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

    (line,) = read_lines(json_lines)
    assert (line["event"], line["level"], line["logger"]) == ("lost Redis", "warning", "celery.worker")


def test_an_error_is_logged_with_its_exception(json_lines: pytest.CaptureFixture[str]) -> None:
    structlog.get_logger("app.test").error("failed", exc_info=ValueError("why"))

    (line,) = read_lines(json_lines)
    assert "ValueError: why" in str(line["exception"])


@pytest.mark.parametrize("name", ["password", "new_password", "access_token", "Authorization", "SECRET_KEY", "cookie"])
def test_secrets_are_hidden_by_their_name(json_lines: pytest.CaptureFixture[str], name: str) -> None:
    structlog.get_logger("app.test").info("sign-in", **{name: "hunter2"})

    (line,) = read_lines(json_lines)
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
