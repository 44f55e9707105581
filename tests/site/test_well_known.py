"""/favicon.ico, /robots.txt and /.well-known/security.txt."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pyvips import Image

import config

SECURITY_TXT = "/.well-known/security.txt"


def test_favicon_is_an_icon_that_may_be_cached(client: FlaskClient) -> None:
    response = client.get("/favicon.ico")

    assert (response.status_code, response.content_type) == (200, "image/vnd.microsoft.icon")
    assert response.data[:4] == b"\0\0\1\0"
    assert response.headers["Cache-Control"] == "public, max-age=86400"
    assert client.get("/favicon.ico", headers={"If-None-Match": response.headers["ETag"]}).status_code == 304
    png = response.data[response.data.index(b"\x89PNG") :]
    assert Image.new_from_buffer(png, "").width == 16


def test_robots_keeps_crawlers_from_the_api_and_the_jobs(client: FlaskClient) -> None:
    response = client.get("/robots.txt")

    assert (response.status_code, response.content_type) == (200, "text/plain; charset=utf-8")
    lines = response.text.splitlines()
    assert lines[0] == "User-agent: *"
    disallowed = [line.removeprefix("Disallow: ") for line in lines[1:]]
    for path in ("/v1", "/v1/events", "/api/v1/resize", "/auth/session", "/jobs", "/jobs/sign-in", "/overview/show"):
        assert path.startswith(tuple(disallowed)), path
    for path in ("/", "/docs", "/docs/openapi", "/files/calendar.ics", "/static/site.css"):
        assert not path.startswith(tuple(disallowed)), path


@pytest.mark.parametrize("contact", ["mailto:security@example.com", "https://example.com/security"])
def test_security_txt_names_the_contact(app: Flask, monkeypatch: pytest.MonkeyPatch, contact: str) -> None:
    monkeypatch.setitem(app.config, "SECURITY_CONTACT", contact)
    monkeypatch.setitem(app.config, "PUBLIC_URL", "https://events.example")

    response = app.test_client().get(SECURITY_TXT)

    assert (response.status_code, response.content_type) == (200, "text/plain; charset=utf-8")
    fields = dict(line.split(": ", 1) for line in response.text.splitlines())
    assert fields.keys() == {"Contact", "Expires", "Canonical"}
    assert fields["Contact"] == contact
    assert fields["Canonical"] == f"https://events.example{SECURITY_TXT}"
    ahead = datetime.fromisoformat(fields["Expires"]) - datetime.now(UTC)
    assert timedelta(days=170) < ahead < timedelta(days=365)


def test_security_txt_without_contact_is_404(client: FlaskClient) -> None:
    response = client.get(SECURITY_TXT)

    assert response.status_code == 404
    assert "SECURITY_CONTACT" in response.text


@pytest.mark.parametrize(
    "value",
    [
        "security@example.com",
        "http://example.com/security",
        "https://",
        "https:example.com",
        "https://[x",
        "mailto:security",
        "mailto:a@example.com\nCanonical: https://evil.example",
        "mailto:ä@example.com",
        "javascript:alert(1)",
        "tel:+49",
    ],
)
def test_security_contact_that_is_no_mailto_or_https_uri_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(config.ConfigError, match=r"^SECURITY_CONTACT must be a mailto: or https: URI"):
        config.read_config({"VAR_DIR": str(tmp_path), "SECURITY_CONTACT": value})
