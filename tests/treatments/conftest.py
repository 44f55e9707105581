"""An office for a module of tests, and a desk in it for each."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from flask import Flask

from tests.treatments.doubles import Processor
from tests.treatments.office import Desk, Office
from tests.world import World


@pytest.fixture(scope="module")
def office(app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """Its processes live as long as the tests of a module."""
    with ExitStack() as stack:
        yield Office(environment, tmp_path_factory.mktemp("office"), stack)


@pytest.fixture
def processor(office: Office) -> Processor:
    """The double, which behaves until it is told otherwise."""
    office.processor.forget()
    return office.processor


@pytest.fixture
def desk(office: Office, world: World, processor: Processor) -> Iterator[Desk]:
    """The owner of an event, with a set of its documents."""
    yield Desk(office, world)
    office.rest()
