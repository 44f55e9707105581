"""Errors are pages for browsers and JSON:API documents for API clients, on all routes."""

import re
from html import unescape

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.errors import ApiError, TooManyRequests, Unavailable
from tests.dataset import JSONAPI, Dataset
from tests.dataset import get_errors as errors_of
from tests.pages.browser import TagCollector
from tests.site.test_home import BROWSER

MARKUP = "<script>"

ERROR_REQUESTS = (
    ("GET", "/nowhere", {}, 404),
    ("GET", "/v1/nowhere", {}, 404),
    ("GET", "/v1/events/999999", {}, 404),
    ("GET", "/files/nothing.jpg", {}, 404),
    ("GET", "/auth/session", {}, 405),
    ("GET", "/v1/events?x=1", {}, 400),
    ("GET", "/v1/users", {}, 401),
    ("DELETE", "/health-check", {}, 405),
    ("GET", "/v1/events", {"Accept": f'text/html, {JSONAPI};q=0.5;ext="https://example.com/unknown"'}, 406),
    ("GET", "/jobs/nowhere/at/all", {}, 404),
    ("GET", "/overview/show", {}, 404),
)


@pytest.mark.parametrize(("method", "path", "headers", "status"), ERROR_REQUESTS)
def test_error_browser_gets_a_page(
    client: FlaskClient, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    response = client.open(path, method=method, headers={"Accept": BROWSER, **headers})

    assert (response.status_code, response.content_type) == (status, "text/html; charset=utf-8")
    assert f'<p class="status">{status}</p>' in response.text
    assert "/" in TagCollector(response.text).attribute_values("href")
    assert {"default-src 'none'", "script-src 'self'"} <= set(response.headers["Content-Security-Policy"].split("; "))
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    if not path.startswith("/jobs"):
        plain = client.open(path, method=method)
        assert plain.mimetype == JSONAPI or status == 406
        assert {"Vary", "Allow", "WWW-Authenticate"} & set(plain.headers.keys()) <= set(response.headers.keys())


def test_error_page_has_the_same_content_as_the_document(client: FlaskClient) -> None:
    page = client.get("/v1/events?page[size]=x", headers={"Accept": BROWSER}).text
    (error,) = errors_of(client.get("/v1/events?page[size]=x"))

    assert re.search(r"<h1>(.*)</h1>", page)[1] == error["title"]  # type: ignore[index]  # it is there
    assert error["detail"] in unescape(page)
    assert "<code>page[size]</code>" in page


@pytest.mark.parametrize("accept", ["*/*", JSONAPI, "application/json", f"text/html, {JSONAPI}", "text/event-stream"])
def test_error_program_gets_jsonapi(client: FlaskClient, accept: str) -> None:
    response = client.get("/v1/nowhere", headers={"Accept": accept})

    assert (response.status_code, response.content_type) == (404, JSONAPI)


def test_success_below_v1_stays_jsonapi_in_a_browser(dataset: Dataset) -> None:
    for path in ("/v1/events", "/v1/events/upcoming", f"/v1/events/{dataset.events['published']}", "/v1"):
        response = dataset.anonymous.get(path, Accept=BROWSER)
        assert (response.status_code, response.content_type) == (200, JSONAPI)


def test_error_page_prints_input_as_text(client: FlaskClient) -> None:
    for path in (f"/v1/events/{MARKUP}", f"/v1/events?{MARKUP}=1", f"/v1/events?include={MARKUP}"):
        page = client.get(path, headers={"Accept": BROWSER}).text
        assert "&lt;script&gt;" in page
        assert "<script>" not in page


def test_error_page_head_has_no_body(client: FlaskClient) -> None:
    response = client.head("/nowhere", headers={"Accept": BROWSER})

    assert (response.status_code, response.mimetype, response.data) == (404, "text/html", b"")


def test_body_over_the_limit_is_a_page(client: FlaskClient) -> None:
    response = client.post("/v1/users", data=bytes(2**20 + 1), headers={"Accept": BROWSER, "Content-Type": JSONAPI})

    assert (response.status_code, response.mimetype) == (413, "text/html")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TooManyRequests("Wait a minute.", headers={"Retry-After": "60"}), 429),
        (Unavailable(headers={"Retry-After": "2"}), 503),
        (ApiError(), 500),
        (KeyError(MARKUP), 500),
    ],
)
def test_failure_is_a_page_with_its_headers(
    app: Flask, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setitem(app.view_functions, "health.live", fail)
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)

    response = app.test_client().get("/livez", headers={"Accept": BROWSER})

    assert (response.status_code, response.mimetype) == (status, "text/html")
    assert response.headers.get("Retry-After") == getattr(error, "headers", {}).get("Retry-After")
    assert "script" not in response.text
    assert bool(re.search(r"<code>[0-9a-f]{32}</code>", response.text)) == (status >= 500)
