"""Readers of JSON lines that people use take our streams, with the white space that keeps them alive."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients import programs
from tests.jobs.test_streams import end_early, finish_after_silence
from tests.world import World

STREAMS = {"to the end of the job": finish_after_silence, "ended before the job": end_early}


@pytest.fixture(params=STREAMS)
def stream(request: pytest.FixtureRequest, world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """A stream of JSON lines with silence in it."""
    text: str = STREAMS[request.param](world, monkeypatch, "application/x-ndjson")
    assert "  " in text
    return text


def expected(stream: str) -> list[dict[str, Any]]:
    """The elements of a stream."""
    return [json.loads(line) for line in stream.splitlines()]


@pytest.mark.parametrize("program", programs.parameters("*/read_*"))
def test_reader_takes_every_element(program: Path, stream: str) -> None:
    assert json.loads(programs.run(program, stdin=stream)) == expected(stream)


@pytest.mark.skipif(shutil.which("jq") is None, reason="there is no jq: apt-get install jq")
def test_jq_takes_every_element(stream: str) -> None:
    done = subprocess.run(["jq", "--slurp", "."], input=stream, capture_output=True, text=True, timeout=30, check=True)

    assert json.loads(done.stdout) == expected(stream)
