"""The document as a file, which linters and generators read."""

from pathlib import Path

import orjson
import pytest
from flask import Flask

from app.openapi.document import build_document


@pytest.fixture(autouse=True)
def _clean() -> None:
    """Fill a new dataset before each client; `base_url` leaves an empty one behind."""


@pytest.fixture(scope="session")
def document(app: Flask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store /openapi.json of the server of `base_url`; return the path."""
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_bytes(orjson.dumps(build_document(app)))
    return path
