"""Storage of a test's own, and a network that may be reached."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from flask import Flask

from app.storage import Storage
from tests.test_http_client import receivers  # noqa: F401  # a fixture


@pytest.fixture
def storage(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """An empty one."""
    made = Storage((tmp_path / "files").as_uri(), app.config["PUBLIC_URL"])
    monkeypatch.setitem(app.extensions, "storage", made)
    return made


@pytest.fixture
def allow_localhost(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine may be reached."""
    monkeypatch.setitem(app.config, "OUTBOUND_ALLOW", (ip_network("127.0.0.0/8"),))
