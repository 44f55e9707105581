"""Processes with a fake processor for a module of tests, and a client for each test."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from flask import Flask

from tests.dataset import Dataset
from tests.treatments.fake_processor import FakeProcessor
from tests.treatments.processor_stack import ProcessorStack, TreatmentClient


@pytest.fixture(scope="module")
def processor_stack(
    app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessorStack]:
    """Run the processes for the tests of a module."""
    with ExitStack() as stack:
        yield ProcessorStack(environment, tmp_path_factory.mktemp("stack"), stack)


@pytest.fixture
def processor(processor_stack: ProcessorStack) -> FakeProcessor:
    """Return the fake processor without scripted behaviour."""
    processor_stack.processor.reset_script()
    return processor_stack.processor


@pytest.fixture
def treatment_client(
    processor_stack: ProcessorStack, dataset: Dataset, processor: FakeProcessor
) -> Iterator[TreatmentClient]:
    """Yield the owner of an event, with a set of its documents; end all jobs afterwards."""
    yield TreatmentClient(processor_stack, dataset)
    processor_stack.end_all_jobs()
