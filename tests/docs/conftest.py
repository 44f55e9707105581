"""The live server that the blueprint's examples are tried on."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.request import urlopen

import pytest
from flask import Flask

import config
from app.extensions import db
from app.factory import create_app
from tests.conftest import Processes
from tests.docs import overview, people
from tests.docs.sources import written
from tests.docs.treatments import FOUND_HERE
from tests.treatments.doubles import Processor

SETTINGS = {
    "SECRET_KEY": "it is known to all who read this blueprint",  # signatures are the same each time
    "PROCESSOR_POLL_SECONDS": "3600",  # nobody asks for what is shown
}

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
def processor() -> Iterator[Processor]:
    """What is asked of it is done before it has answered; one result is there to be fetched."""
    with Processor() as processor:
        processor.before_answer = lambda start: processor.call_back(start, "SUCCESS")
        processor.host("/results/opening.json", json.dumps(FOUND_HERE).encode())
        yield processor


@pytest.fixture(scope="module")
def settings(
    environment: dict[str, str], processor: Processor, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Of a server with programs and a processor."""
    programs = tmp_path_factory.mktemp("live") / "programs"
    overview.install(programs)
    return {**environment, **SETTINGS, "PROCESSOR_URL": processor.url, "JOB_PROGRAMS_DIR": str(programs)}


@pytest.fixture(scope="module")
def served(app: Flask, settings: Mapping[str, str]) -> Iterator[Flask]:
    """An app like that of the server, on tables that are made."""
    made = create_app(config.read(settings))
    yield made
    people.remove_world(app)
    with made.app_context():
        db.engine.dispose()


@pytest.fixture(scope="module")
def live(
    served: Flask,
    settings: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    wait_until: Callable[..., Any],
) -> Iterator[Processes]:
    """Web, worker and relay, all healthy, for all tests of a module."""
    running = Processes(settings, tmp_path_factory.mktemp("live"))
    try:
        for name in ("web", "worker", "relay"):
            running.start(name, RETENTION_DAYS="3650")  # what is told of ended long ago
        wait_until(lambda: _passes_every_check(running.base_url), 90, "the server did not become healthy")
        yield running
    finally:
        for process in running.started:
            running.stop(process)


def _passes_every_check(base_url: str) -> bool:
    """Whether web, worker and relay are there; the status alone forgives a slow start."""
    try:
        with urlopen(f"{base_url}/health-check", timeout=5) as answer:  # noqa: S310  # our own server
            return all(result["passed"] for result in json.load(answer)["results"])
    except OSError:
        return False


@pytest.fixture
def tokens(served: Flask, live: Processes, wait_until: Callable[..., Any]) -> people.Tokens:
    """The world as the blueprint tells it, and the tokens of its people."""
    wait_until(lambda: people.is_quiet(served), what="the worker did not finish what the last example ordered")
    people.replace_world(served)
    return people.Tokens(served, wait_until)
