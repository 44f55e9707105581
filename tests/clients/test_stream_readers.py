"""Readers of JSON lines that people use take our streams, with the white space that keeps them alive."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients import programs
from tests.dataset import Dataset
from tests.jobs.test_streams import end_stream_by_logout, finish_after_silence

STREAMS = {"to the end of the job": finish_after_silence, "ended before the job": end_stream_by_logout}


@pytest.fixture(params=STREAMS)
def stream(request: pytest.FixtureRequest, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a stream of JSON lines with keep-alive spaces."""
    text: str = STREAMS[request.param](dataset, monkeypatch, "application/x-ndjson")
    assert "  " in text
    return text


def parse_stream(stream: str) -> list[dict[str, Any]]:
    """Return the elements of a stream."""
    return [json.loads(line) for line in stream.splitlines()]


@pytest.mark.parametrize("program", programs.list_program_params("*/read_*"))
def test_reader_takes_every_element(program: Path, stream: str) -> None:
    assert json.loads(programs.run_program(program, stdin=stream)) == parse_stream(stream)


@pytest.mark.skipif(shutil.which("jq") is None, reason="there is no jq: apt-get install jq")
def test_jq_takes_every_element(stream: str) -> None:
    done = subprocess.run(["jq", "--slurp", "."], input=stream, capture_output=True, text=True, timeout=30, check=True)

    assert json.loads(done.stdout) == parse_stream(stream)
