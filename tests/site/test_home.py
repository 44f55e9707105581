"""/ is a page for browsers; for API clients / and /v1 are the entry document."""

import re
import tomllib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update

from app.events.models import Event
from app.extensions import db
from app.jsonapi.resource_type import TYPES
from tests.dataset import JSONAPI, NEXT_MONTH, Dataset
from tests.dataset import get_errors as errors_of
from tests.pages.browser import TagCollector

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
VERSION = tomllib.loads(PROJECT.read_text())["project"]["version"]
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>'\"&"


def change_event(dataset: Dataset, state: str, **values: Any) -> None:
    with dataset.app.app_context():
        db.session.execute(update(Event).where(Event.id == dataset.events[state]).values(values))
        db.session.commit()


@pytest.fixture
def without_database(make_app: Callable[..., Flask]) -> FlaskClient:
    """Return a client of an app whose database refuses connections."""
    return make_app(DATABASE_URL="postgresql://postgres@127.0.0.1:1/nothing").test_client()


# The page


def test_home_browser_gets_a_page(client: FlaskClient) -> None:
    response = client.get("/", headers={"Accept": BROWSER})

    assert (response.status_code, response.content_type) == (200, "text/html; charset=utf-8")
    assert f"<dd>{VERSION}</dd>" in response.text
    assert "Accept" in response.headers["Vary"]
    assert {"default-src 'none'", "script-src 'self'"} <= set(response.headers["Content-Security-Policy"].split("; "))
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_home_every_link_of_the_page_leads_somewhere(dataset: Dataset) -> None:
    client = dataset.app.test_client()
    page = client.get("/", headers={"Accept": BROWSER}).text
    links = {
        link
        for link in TagCollector(page).attribute_values("href")
        if not link.startswith(("https://jsonapi.org/", "#"))
    }

    assert {"/v1", "/v1/events/upcoming", "/docs", "/docs/openapi", "/openapi.json", "/jobs", "/health-check"} <= links
    for link in links:
        assert client.get(link, headers={"Accept": BROWSER}).status_code in (200, 303, 503), link


def test_home_lists_coming_public_events_as_text_in_their_zone(dataset: Dataset) -> None:
    change_event(
        dataset,
        "published",
        name=MARKUP,
        timezone="Asia/Tokyo",
        starts_at=NEXT_MONTH,
        ends_at=NEXT_MONTH + timedelta(1),
    )

    page = dataset.app.test_client().get("/", headers={"Accept": BROWSER}).text

    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "onerror" not in [name for _, attributes in TagCollector(page).found for name in attributes]
    assert f"/v1/events/{dataset.events['published']}" in TagCollector(page).attribute_values("href")
    assert f'datetime="{NEXT_MONTH.astimezone(ZoneInfo("Asia/Tokyo")).isoformat()}"' in page
    for hidden in ("draft", "private", "trashed"):
        assert f"/v1/events/{dataset.events[hidden]}" not in TagCollector(page).attribute_values("href")


def test_home_without_events_says_so(client: FlaskClient) -> None:
    assert "No public event is coming up." in client.get("/", headers={"Accept": BROWSER}).text


def test_home_event_that_is_over_is_not_listed(dataset: Dataset) -> None:
    change_event(dataset, "published", starts_at=NEXT_MONTH - timedelta(60), ends_at=NEXT_MONTH - timedelta(59))

    page = dataset.app.test_client().get("/", headers={"Accept": BROWSER}).text

    assert f"/v1/events/{dataset.events['published']}" not in TagCollector(page).attribute_values("href")


def test_home_without_database_is_shown(without_database: FlaskClient) -> None:
    response = without_database.get("/", headers={"Accept": BROWSER})

    assert response.status_code == 200
    assert "health_check_db" in response.text
    assert "there are no events to show" in response.text


def test_home_database_lost_after_the_check_is_shown(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.application.extensions["health"], "run", lambda: ('{"results": []}', 200, {}))
    monkeypatch.setattr("app.site.upcoming_events._upcoming.text", "SELECT pg_terminate_backend(pg_backend_pid())")

    response = client.get("/", headers={"Accept": BROWSER})

    assert response.status_code == 200
    assert "there are no events to show" in response.text


def test_home_unknown_parameters_are_ignored_in_html_and_400_in_jsonapi(client: FlaskClient) -> None:
    assert client.get("/?utm_source=x&page[size]=%00", headers={"Accept": BROWSER}).status_code == 200
    for path in ("/?utm_source=x", "/v1?utm_source=x", "/v1/?utm_source=x"):
        response = client.get(path, headers={"Accept": JSONAPI})
        assert response.status_code == 400
        assert [error["source"] for error in errors_of(response)] == [{"parameter": "utm_source"}]
    response = client.get("/v1?utm_source=x", headers={"Accept": BROWSER})
    assert (response.status_code, response.mimetype) == (400, "text/html")
    assert "utm_source" in response.text


# The document


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/", "*/*"),
        ("/", JSONAPI),
        ("/", "application/json"),
        ("/", f"text/html, {JSONAPI}"),
        ("/", f"text/html;q=0.9, {JSONAPI};q=0.95"),
        ("/", f'text/html;q=0.5, {JSONAPI};profile="https://example.com"'),
        ("/", "image/png"),
        ("/", ""),
        ("/v1", JSONAPI),
        ("/v1/", "*/*"),
        ("/v1", BROWSER),
    ],
)
def test_entry_document_names_every_collection(client: FlaskClient, path: str, accept: str) -> None:
    response = client.get(path, headers={"Accept": accept})

    assert (response.status_code, response.content_type) == (200, JSONAPI)
    document = response.get_json(force=True)
    served = {rule.rule for rule in client.application.url_map.iter_rules()}
    collections = {each.plural: each.path for each in TYPES.values() if each.path in served}
    assert document == {
        "jsonapi": {"version": "1.1"},
        "meta": {"title": "Open Event API server", "version": VERSION},
        "links": {"self": path.rstrip("/") or "/", "describedby": "/openapi.json", **collections},
    }
    assert {"events", "faqs", "faq-types", "users", "jobs", "hooks", "treatments", "uploads"} <= collections.keys()
    assert "Accept" in response.headers["Vary"]


@pytest.mark.parametrize("accept", ["text/html", "text/*", f"text/html, {JSONAPI};q=0.9", "TEXT/HTML;level=1"])
def test_home_accept_that_prefers_html_gets_the_page(client: FlaskClient, accept: str) -> None:
    assert client.get("/", headers={"Accept": accept}).mimetype == "text/html"


def test_entry_document_every_collection_answers(dataset: Dataset) -> None:
    links = dataset.anonymous.get("/v1").get_json(force=True)["links"]

    for name, link in links.items():
        assert dataset.owner.get(link).status_code == (403 if name == "users" else 200), name


def test_entry_document_unacceptable_parameters_is_406(client: FlaskClient) -> None:
    for path in ("/", "/v1"):
        response = client.get(path, headers={"Accept": f'{JSONAPI};ext="https://example.com/unknown"'})
        assert response.status_code == 406


@pytest.mark.parametrize("accept", [BROWSER, JSONAPI])
@pytest.mark.parametrize("path", ["/", "/v1"])
def test_home_methods_and_conditions(client: FlaskClient, path: str, accept: str) -> None:
    headers = {"Accept": accept}
    full = client.get(path, headers=headers)

    head = client.head(path, headers=headers)
    assert (head.status_code, head.data, head.headers["ETag"]) == (200, b"", full.headers["ETag"])
    assert client.get(path, headers={**headers, "If-None-Match": full.headers["ETag"]}).status_code == 304
    assert set(client.options(path).headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        refused = client.open(path, method=method, headers=headers)
        assert refused.status_code == 405
        assert set(refused.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
        assert refused.mimetype == ("text/html" if accept == BROWSER else JSONAPI)


@pytest.mark.parametrize(
    "path",
    [
        "/docs/../",
        "/docs/..",
        "/docs/%2e%2e/",
        "/docs/%2e%2e%2fpyproject.toml",
        "/docs/openapi/../../config.py",
        "/static/..%2fhome.py",
        "/static/%2e%2e/%2e%2e/config.py",
        "/static/site.css",
        "/.well-known/../config.py",
    ],
)
def test_traversal_is_404(client: FlaskClient, path: str) -> None:
    for accept in (BROWSER, "*/*"):
        assert client.get(path, headers={"Accept": accept}).status_code == 404


def test_no_asset_is_missing(client: FlaskClient) -> None:
    for path in ("/", "/docs/openapi", "/nowhere"):
        page = client.get(path, headers={"Accept": BROWSER}).text
        urls = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
        assert urls
        for url in urls:
            asset = client.get(url)
            assert (asset.status_code, asset.headers["X-Content-Type-Options"]) == (200, "nosniff")
            assert asset.headers["Cache-Control"] == "public, max-age=31536000, immutable"
