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
from tests.docs import blueprint_dataset, overview
from tests.docs.blueprint_sources import list_examples
from tests.docs.treatments import REGION_TREE
from tests.treatments.fake_processor import FakeProcessor

SETTINGS = {
    "SECRET_KEY": "it is known to all who read this blueprint",  # signatures are the same each time
    "PROCESSOR_POLL_SECONDS": "3600",  # nobody asks for what is shown
}

RAN_TRANSACTIONS = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest tests/docs --record` writes what the server answers into the blueprint, where that differs."""
    parser.addoption("--record", action="store_true", help="write answers that differ into the blueprint")


def pytest_configure(config: pytest.Config) -> None:
    """Nothing has been tried yet."""
    config.stash[RAN_TRANSACTIONS] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """How many of the documented transactions were tried."""
    if ran := config.stash.get(RAN_TRANSACTIONS, []):
        line = f"blueprint: {len(ran)} of {len(list_examples())} transactions tried on a live_server server"
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _clean() -> None:
    """Each example gets a new dataset before it; `live_server` leaves an empty one behind."""


@pytest.fixture(scope="module")
def processor() -> Iterator[FakeProcessor]:
    """What is asked of it is done before it has answered; one result is there to be fetched."""
    with FakeProcessor() as processor:
        processor.before_answer = lambda start: processor.call_back(start, "SUCCESS")
        processor.host_file("/results/opening.json", json.dumps(REGION_TREE).encode())
        yield processor


@pytest.fixture(scope="module")
def settings(
    environment: dict[str, str], processor: FakeProcessor, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Of a server with programs and a processor."""
    programs = tmp_path_factory.mktemp("live") / "programs"
    overview.install_programs(programs)
    return {**environment, **SETTINGS, "PROCESSOR_URL": processor.url, "JOB_PROGRAMS_DIR": str(programs)}


@pytest.fixture(scope="module")
def docs_app(app: Flask, settings: Mapping[str, str]) -> Iterator[Flask]:
    """An app like that of the server, on tables that are made."""
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
    """Web, worker and relay, all healthy, for all tests of a module."""
    running = Processes(settings, tmp_path_factory.mktemp("live"))
    try:
        for name in ("web", "worker", "relay"):
            running.start(name, RETENTION_DAYS="3650")  # what is told of ended long ago
        wait_until(lambda: _passes_every_check(running.base_url), 90, "the server did not become healthy")
        yield running
    finally:
        for process in running.children:
            running.stop(process)


def _passes_every_check(base_url: str) -> bool:
    """Whether web, worker and relay are there; the status alone forgives a slow start."""
    try:
        with urlopen(f"{base_url}/health-check", timeout=5) as answer:  # noqa: S310  # our own server
            return all(result["passed"] for result in json.load(answer)["results"])
    except OSError:
        return False


@pytest.fixture
def tokens(docs_app: Flask, live_server: Processes, wait_until: Callable[..., Any]) -> blueprint_dataset.TokenProvider:
    """The dataset as the blueprint tells it, and the tokens of its people."""
    wait_until(
        lambda: blueprint_dataset.is_outbox_empty(docs_app),
        what="the worker did not finish what the last example ordered",
    )
    blueprint_dataset.replace_dataset(docs_app)
    return blueprint_dataset.TokenProvider(docs_app, wait_until)
