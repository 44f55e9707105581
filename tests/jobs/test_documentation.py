"""docs/jobs.md agrees with the code: limits, states, kinds and the example."""

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any
from uuid import UUID

import pytest

from app.jobs import executor
from app.jobs.context import JobContext
from app.jobs.kinds import KINDS, Kind
from app.jobs.models import ALL_STATES
from tests.conftest import ROOT
from tests.dataset import Dataset, get_data

DOCUMENT = (ROOT / "docs" / "jobs.md").read_text()


def get_table_rows(title: str) -> list[list[str]]:
    """Return the rows of the tables below a title."""
    section = DOCUMENT.partition(f"\n### {title}\n")[2].partition("\n#")[0]
    return [
        line.strip("| ").split(" | ") for line in section.splitlines() if re.match(r"\| (?!what |kind |state )", line)
    ]


@pytest.mark.parametrize(("number", "constant"), [row[1:] for row in get_table_rows("Limits")])
def test_limits_are_those_of_the_code(number: str, constant: str) -> None:
    module, _, name = constant.strip("`").rpartition(".")

    assert getattr(import_module(module), name) == float(number.replace(",", ""))


def test_every_state_is_named() -> None:
    named = [name for row in get_table_rows("States") for name in re.findall(r"`(\w+)`", row[0])]

    assert named == list(ALL_STATES)


def test_every_kind_is_named() -> None:
    named = {name for row in get_table_rows("Starting") for name in re.findall(r"`([\w-]+)`", row[0])}

    assert named == {name for name in KINDS.declared if not name.startswith("tests-")}


def test_documented_job_context_members_exist(dataset: Dataset) -> None:
    job = get_data(dataset.stranger.create("/v1/jobs", "job", {"kind": "sleep", "parameters": {"seconds": 0}}))
    named = [name for row in get_table_rows("Writing a kind") for name in re.findall(r"`(\w+)\b", row[0])]

    assert named == [
        "parameters",
        "job",
        "work_dir",
        "report_progress",
        "wait",
        "raise_if_ending",
        "charge_output",
        "publish_file",
    ]
    assert all(hasattr(JobContext(job, ROOT), name) for name in ("job", "work_dir"))
    assert all(hasattr(JobContext, name) for name in named if name not in ("job", "work_dir"))


@pytest.fixture
def example_kind() -> Iterator[Kind]:
    """Register the example kind in the document for one test."""
    (source,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    exec(compile(source, "docs/jobs.md", "exec"), {})  # noqa: S102  # our own document
    yield KINDS["longest-word"]
    del KINDS["longest-word"]


@pytest.mark.parametrize(
    ("words", "state", "outcome"),
    [
        (["a", "longer", "word"], "succeeded", {"longest": "longer"}),
        ([], "failed", {"code": "no-words", "detail": "There are no words to choose from."}),
    ],
)
def test_documented_kind_runs(dataset: Dataset, example_kind: Kind, words: list[str], state: str, outcome: Any) -> None:
    job = get_data(
        dataset.stranger.create("/v1/jobs", "job", {"kind": example_kind.name, "parameters": {"words": words}})
    )

    with dataset.app.app_context():
        executor.run_job(UUID(job["id"]), "tests")

    attributes = get_data(dataset.stranger.get(f"/v1/jobs/{job['id']}"))["attributes"]
    assert attributes["state"] == state
    assert (attributes["result"] or attributes["error"]) == outcome
    names = [each["attributes"]["name"] for each in get_data(dataset.stranger.get(f"/v1/jobs/{job['id']}/artifacts"))]
    assert names == (["longest.json"] if state == "succeeded" else [])
