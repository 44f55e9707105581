"""/docs is the committed page, which loads no external resources and is up to date with its sources."""

import base64
import runpy
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.site import documentation
from tests.docs.blueprint_sources import DIRECTORY, list_files

PAGE = b"<html><style>p {}</style><p>Hello</p><script>say('hello');</script></html>"
STALE_PAGE_MESSAGE = (
    "docs/api-blueprint/open-event-api.html is not what its sources make: run `make docs` and commit the page"
)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the rendered page; there is no file yet."""
    path = tmp_path / "a directory" / "page.html"
    path.parent.mkdir()
    monkeypatch.setattr(documentation, "PAGE_PATH", path)
    return path


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """Return the functions of the rendering script."""
    return runpy.run_path(str(DIRECTORY / "render.py"))


@pytest.fixture(scope="module")
def self_contained(script: dict[str, Any]) -> Callable[[str], str]:
    """Return the function of the rendering script that removes external references."""
    cut: Callable[[str], str] = script["self_contained"]
    return cut


def test_committed_page_is_what_its_sources_make(script: dict[str, Any]) -> None:
    assert script["is_current"](documentation.PAGE_PATH.read_text()), STALE_PAGE_MESSAGE


def test_digest_covers_the_page_and_every_source(script: dict[str, Any]) -> None:
    html = script["with_digest"]("<html><head></head><body>Hello</body></html>")

    assert script["is_current"](html)
    assert not script["is_current"](html.replace("Hello", "Hullo"))
    assert not script["is_current"]("<html><head></head><body>Hello</body></html>")
    assert {*list_files(), DIRECTORY / "page.css", DIRECTORY / "package.json"} < set(script["sources"]())


def test_committed_page_shows_every_group(client: FlaskClient) -> None:
    response = client.get("/docs", headers={"Accept": "text/html"})

    assert (response.status_code, response.mimetype) == (200, "text/html")
    for path in list_files()[1:]:
        heading = path.read_text().partition("\n")[0].removeprefix("# Group ")
        assert f">{heading} <" in response.text, heading


def test_without_a_page_it_says_how_to_make_one(client: FlaskClient, page: Path) -> None:
    response = client.get("/docs", headers={"Accept": "text/html"})

    assert (response.status_code, response.mimetype) == (404, "text/html")
    assert "make docs" in response.text


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
def test_docs_route_serves_rendered_page(client: FlaskClient, page: Path, path: str) -> None:
    page.write_bytes(PAGE)

    response = client.get(path)

    assert (response.status_code, response.mimetype, response.data) == (200, "text/html", PAGE)
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_new_page_is_shown_at_once(client: FlaskClient, page: Path) -> None:
    page.write_bytes(PAGE)
    client.get("/docs")
    draft = page.with_name("draft")
    draft.write_bytes(b"new")
    draft.replace(page)

    assert client.get("/docs").data == b"new"


def test_only_the_scripts_of_the_page_may_run(client: FlaskClient, page: Path) -> None:
    page.write_bytes(PAGE)

    rules = client.get("/docs").headers["Content-Security-Policy"].split("; ")

    allowed = base64.b64encode(sha256(b"say('hello');").digest()).decode()
    assert "default-src 'none'" in rules
    assert f"script-src 'sha256-{allowed}'" in rules


def test_a_page_that_is_known_is_not_sent_again(client: FlaskClient, page: Path) -> None:
    page.write_bytes(PAGE)
    etag = client.get("/docs").headers["ETag"]

    response = client.get("/docs", headers={"If-None-Match": etag})

    assert (response.status_code, response.data) == (304, b"")


def test_the_page_is_where_the_script_writes_it(script: dict[str, Any]) -> None:
    assert script["PAGE"] == documentation.PAGE_PATH


def test_fonts_and_icons_of_others_are_cut(self_contained: Callable[[str], str]) -> None:
    head = (
        """<link rel="stylesheet" href="https://cdn.example/a.css"><style>@import url('https://b.example');</style>"""
    )

    html = self_contained(f"<html><head>{head}</head><body><a href='https://c.example'>stays</a></body></html>")

    assert "cdn.example" not in html
    assert "b.example" not in html
    assert "stays" in html


@pytest.mark.parametrize("left", ["<script src='x.js'></script>", "<style>p {background: url(x.png)}</style>"])
def test_a_page_that_would_load_more_is_refused(self_contained: Callable[[str], str], left: str) -> None:
    with pytest.raises(ValueError, match="would still load"):
        self_contained(f"<html><head>{left}</head></html>")
