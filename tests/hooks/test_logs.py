"""The token of a hook is in no log line and in no Sentry event."""

import re
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any

import pytest
from werkzeug.test import TestResponse

from app import logs
from app.hooks import trigger_view
from app.jobs.models import Job
from tests.conftest import Processes
from tests.dataset import Dataset
from tests.hooks.requests import create_hook, get_hook_path

PATHS = {
    "as it is": "/v1/hooks/{token}",
    "with a slash at its end": "/v1/hooks/{token}/",
    "with slashes at its end": "/v1/hooks/{token}//",
    "with double slashes": "//v1//hooks//{token}",
    "percent-encoded": "/v1/hooks/{encoded}",
    "with everything percent-encoded": "/%76%31%2F%68%6Fo%6B%73%2F{encoded}",
    "percent-encoded twice": "/v1/%2568ooks%252F{twice}",
    "in capitals": "/V1/HOOKS/{token}",
    "with dots": "/v1/hooks/./{token}",
    "with more behind": "/v1/hooks/{token}/rotate",
    "with its relationship": "/v1/hooks/{token}/relationships/owner",
    "behind an id": "/v1/hooks/5/{token}",
    "with a query": "/v1/hooks/{token}?token={token}",
    "with a line break": "/v1/hooks/%0a{token}",
    "of something else": "/api/hooks/{token}",
}


METHODS = ("POST", "GET", "PATCH", "DELETE", "PUT", "OPTIONS", "TRACE")


def insert_token(path: str, token: str) -> str:
    """Return a path with the token in it."""
    encoded = "".join(f"%{ord(each):02X}" for each in token)
    return path.format(token=token, encoded=encoded, twice=encoded.replace("%", "%25"))


@pytest.fixture
def token(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> str:
    """Create a hook and return its token; discard what was logged until then."""
    made_token = get_hook_path(create_hook(dataset.stranger)).rpartition("/")[2]
    capsys.readouterr()
    return made_token


def is_token_logged(token: str, lines: str) -> bool:
    """Return whether lines contain a part of the token."""
    parts = (token[:12], token[-12:], "".join(f"%{ord(each):02X}" for each in token[:6]))
    return any(part in lines for part in parts)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_request_logs_the_token(
    dataset: Dataset, token: str, processes: Processes, wait_until: Callable[..., Any], log_format: str
) -> None:
    web = processes.start("web", LOG_FORMAT=log_format)
    wait_until(lambda: is_answered(processes, "GET", "/livez"), 30, "web does not answer")

    for method in METHODS:
        for path in PATHS.values():
            assert is_answered(processes, method, insert_token(path, token))

    processes.stop(web)
    said = processes.log("web").read_text()
    assert not is_token_logged(token, said)
    assert said.count("hooks/[hidden]") == len(METHODS) * len(PATHS)
    assert dataset.count_rows(Job) == 4


def is_answered(processes: Processes, method: str, path: str) -> bool:
    """Return whether the server responds to a path, which is sent without normalization."""
    connection = HTTPConnection(processes.base_url.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, path)
        return connection.getresponse().status > 0
    except OSError:
        return False
    finally:
        connection.close()


REFUSED: dict[int, Any] = {
    400: {"data": b"{", "content_type": "application/json"},
    413: {"data": b"x" * 70_000},
    415: {"data": b"x", "content_type": "text/plain"},
    422: {"json": {"seconds": -1}},
}


@pytest.mark.parametrize("status", REFUSED)
def test_a_refused_call_logs_no_token(
    dataset: Dataset, token: str, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    response: TestResponse = dataset.app.test_client().post(f"/v1/hooks/{token}", **REFUSED[status])

    assert response.status_code == status
    assert token not in response.text
    assert not is_token_logged(token, capsys.readouterr().out)


def test_a_fault_of_ours_logs_no_token(
    dataset: Dataset, token: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(trigger_view, "_start_job", break_down)

    response = dataset.app.test_client().post(f"/v1/hooks/{token}")

    assert response.status_code == 500
    assert token not in response.text
    lines = capsys.readouterr().out
    assert "RuntimeError: a fault" in lines
    assert not is_token_logged(token, lines)


@pytest.mark.parametrize(
    "path", ["/v1/hooks", "/v1/hooks/", "/v1/hooks/5", "/v1/hooks/5/rotate", "/v1/hooks/5/relationships/owner"]
)
def test_all_other_paths_are_logged_as_they_are(
    dataset: Dataset, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    dataset.anonymous.get(path)

    assert re.search(rf"path={re.escape(path)} ", capsys.readouterr().out)


def test_sentry_is_told_no_token(token: str) -> None:
    for spelling, path in PATHS.items():
        url = f"https://hooks.example.org/{insert_token(path, token)}"
        event = {"request": {"url": url, "method": "POST", "query_string": f"token={token}"}}

        scrubbed = logs._scrub_sentry_event(event, {})

        assert not is_token_logged(token, repr(scrubbed)), spelling
        assert scrubbed["request"]["url"].startswith("https://hooks.example.org/"), spelling
