"""Fixtures for the blueprint's examples: a running server with a fake processor."""

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
from tests.docs import blueprint_dataset, overview
from tests.docs.blueprint_sources import list_examples
from tests.docs.treatments import REGION_TREE
from tests.treatments.fake_processor import FakeProcessor

SETTINGS = {
    "SECRET_KEY": "it is known to all who read this blueprint",  # so that signatures are always the same
    "PROCESSOR_POLL_SECONDS": "3600",  # so that the documented runs are not polled
}

RAN_TRANSACTIONS = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option --record, which writes responses of the server that differ into the blueprint."""
    parser.addoption("--record", action="store_true", help="write responses that differ into the blueprint")


def pytest_configure(config: pytest.Config) -> None:
    """Initialize the counters of sent transactions."""
    config.stash[RAN_TRANSACTIONS] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print how many of the documented transactions were sent."""
    if ran := config.stash.get(RAN_TRANSACTIONS, []):
        line = f"blueprint: {len(ran)} of {len(list_examples())} transactions tried on a live_server server"
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _clean() -> None:
    """Do nothing: each example gets a new dataset before it, and `live_server` empties the tables at the end."""


@pytest.fixture(scope="module")
def processor() -> Iterator[FakeProcessor]:
    """Yield a processor that has finished each task before it responds, and has one result to fetch."""
    with FakeProcessor() as processor:
        processor.before_answer = lambda start: processor.call_back(start, "SUCCESS")
        processor.host_file("/results/opening.json", json.dumps(REGION_TREE).encode())
        yield processor


@pytest.fixture(scope="module")
def settings(
    environment: dict[str, str], processor: FakeProcessor, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Return the settings of a server with programs and a processor."""
    programs = tmp_path_factory.mktemp("live") / "programs"
    overview.install_programs(programs)
    return {**environment, **SETTINGS, "PROCESSOR_URL": processor.url, "JOB_PROGRAMS_DIR": str(programs)}


@pytest.fixture(scope="module")
def docs_app(app: Flask, settings: Mapping[str, str]) -> Iterator[Flask]:
    """Yield an app with the settings of the server, on migrated tables."""
    made = create_app(config.read_config(settings))
    yield made
    blueprint_dataset.remove_dataset(app)
    with made.app_context():
        db.engine.dispose()


@pytest.fixture(scope="module")
def live_server(
    docs_app: Flask,
    settings: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    wait_until: Callable[..., Any],
) -> Iterator[Processes]:
    """Yield the URL of a server with web, worker and relay, all healthy, for all tests of a module."""
    running = Processes(settings, tmp_path_factory.mktemp("live"))
    try:
        for name in ("web", "worker", "relay"):
            running.start(name, RETENTION_DAYS="3650")  # the documented jobs ended long ago
        wait_until(lambda: _passes_every_check(running.base_url), 90, "the server did not become healthy")
        yield running
    finally:
        for process in running.children:
            running.stop(process)


def _passes_every_check(base_url: str) -> bool:
    """Return whether every check of /health-check passes; a slow start within the grace period is not accepted."""
    try:
        with urlopen(f"{base_url}/health-check", timeout=5) as answer:  # noqa: S310  # our own server
            return all(result["passed"] for result in json.load(answer)["results"])
    except OSError:
        return False


@pytest.fixture
def tokens(docs_app: Flask, live_server: Processes, wait_until: Callable[..., Any]) -> blueprint_dataset.TokenProvider:
    """Yield the tokens of the users of the dataset, which is the one described in the blueprint."""
    wait_until(
        lambda: blueprint_dataset.is_outbox_empty(docs_app),
        what="the worker did not finish what the last example ordered",
    )
    blueprint_dataset.replace_dataset(docs_app)
    return blueprint_dataset.TokenProvider(docs_app, wait_until)
