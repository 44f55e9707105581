"""The live server that the blueprint's examples are tried on."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.request import urlopen

import pytest
from flask import Flask

from tests.conftest import Processes
from tests.docs import people
from tests.docs.sources import written

RAN = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest tests/docs --record` writes what the server answers into the blueprint, where that differs."""
    parser.addoption("--record", action="store_true", help="write answers that differ into the blueprint")


def pytest_configure(config: pytest.Config) -> None:
    """Nothing has been tried yet."""
    config.stash[RAN] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """How many of the documented transactions were tried."""
    if ran := config.stash.get(RAN, []):
        line = f"blueprint: {len(ran)} of {len(written())} transactions tried on a live server"
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _clean() -> None:
    """Each example gets a new world before it; `live` leaves an empty one behind."""


@pytest.fixture(scope="module")
def live(
    app: Flask,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    wait_until: Callable[..., Any],
) -> Iterator[Processes]:
    """Web, worker and relay, all healthy, for all tests of a module."""
    running = Processes(environment, tmp_path_factory.mktemp("live"))
    try:
        for name in ("web", "worker", "relay"):
            running.start(name, RETENTION_DAYS="3650")  # what is told of ended long ago
        wait_until(lambda: _passes_every_check(running.base_url), 90, "the server did not become healthy")
        yield running
    finally:
        for process in running.started:
            running.stop(process)
        people.remove_world(app)


def _passes_every_check(base_url: str) -> bool:
    """Whether web, worker and relay are there; the status alone forgives a slow start."""
    try:
        with urlopen(f"{base_url}/health-check", timeout=5) as answer:  # noqa: S310  # our own server
            return all(result["passed"] for result in json.load(answer)["results"])
    except OSError:
        return False


@pytest.fixture
def tokens(app: Flask, live: Processes, wait_until: Callable[..., Any]) -> people.Tokens:
    """The world as the blueprint tells it, and the tokens of its people."""
    wait_until(lambda: people.is_quiet(app), what="the worker did not finish what the last example ordered")
    people.replace_world(app)
    return people.Tokens(app, wait_until)
