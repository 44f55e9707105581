"""Fixtures of the tests of images: a storage for each test, and access to local servers."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from flask import Flask

from app.storage import Storage
from tests.test_http_client import receivers  # noqa: F401  # a fixture


@pytest.fixture
def storage(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """Return an empty storage."""
    made = Storage((tmp_path / "files").as_uri(), app.config["PUBLIC_URL"])
    monkeypatch.setitem(app.extensions, "storage", made)
    return made


@pytest.fixture
def allow_localhost(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow requests to this machine."""
    monkeypatch.setitem(app.config, "OUTBOUND_ALLOW", (ip_network("127.0.0.0/8"),))
