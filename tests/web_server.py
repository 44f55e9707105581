"""Web process for tests of HTTP clients."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from flask import Flask

from tests.conftest import Processes
from tests.docs import blueprint_dataset, overview


@pytest.fixture(scope="module")
def base_url(
    app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., Any]
) -> Iterator[str]:
    """Return the URL of a web process, one for all clients of a module."""
    running = Processes(environment, tmp_path_factory.mktemp("web"))
    web = running.start("web")
    try:
        wait_until(lambda: is_up(running.base_url), 30, "the server did not come up")
        yield running.base_url
    finally:
        running.stop(web)
        blueprint_dataset.remove_dataset(app)


def is_up(base_url: str) -> bool:
    """Return whether the web process answers."""
    try:
        with urlopen(f"{base_url}/livez", timeout=5) as answer:  # noqa: S310  # our own server
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def declare_example_kinds(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Declare the kinds of the jobs in the dataset of the documentation."""
    overview.install_programs(tmp_path / "programs")
    monkeypatch.setitem(app.config, "JOB_PROGRAMS_DIR", tmp_path / "programs")
    monkeypatch.setitem(app.config, "PROCESSOR_URL", "http://127.0.0.1:9")
