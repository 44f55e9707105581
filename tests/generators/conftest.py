"""The document as a file, which linters and generators read."""

from pathlib import Path

import orjson
import pytest
from flask import Flask

from app.openapi.document import build_document


@pytest.fixture(autouse=True)
def _clean() -> None:
    """Each client gets a new dataset before it; `base_url` leaves an empty one behind."""


@pytest.fixture(scope="session")
def document(app: Flask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where /openapi.json is stored; its server is the one that `base_url` starts."""
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_bytes(orjson.dumps(build_document(app)))
    return path
