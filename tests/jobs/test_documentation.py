"""docs/jobs.md is true: its limits are those of the code, its kind runs, its tables name what there is."""

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any
from uuid import UUID

import pytest

from app.jobs import running
from app.jobs.context import Running
from app.jobs.kinds import KINDS, Kind
from app.jobs.models import STATES
from tests.conftest import ROOT
from tests.world import World, data

DOCUMENT = (ROOT / "docs" / "jobs.md").read_text()


def rows(title: str) -> list[list[str]]:
    """The rows of the tables below a title."""
    section = DOCUMENT.partition(f"\n### {title}\n")[2].partition("\n#")[0]
    return [
        line.strip("| ").split(" | ") for line in section.splitlines() if re.match(r"\| (?!what |kind |state )", line)
    ]


@pytest.mark.parametrize(("number", "constant"), [row[1:] for row in rows("Limits")])
def test_limits_are_those_of_the_code(number: str, constant: str) -> None:
    module, _, name = constant.strip("`").rpartition(".")

    assert getattr(import_module(module), name) == float(number.replace(",", ""))


def test_every_state_is_named() -> None:
    named = [name for row in rows("States") for name in re.findall(r"`(\w+)`", row[0])]

    assert named == list(STATES)


def test_every_kind_is_named() -> None:
    named = {name for row in rows("Starting") for name in re.findall(r"`([\w-]+)`", row[0])}

    assert named == {name for name in KINDS.declared if not name.startswith("tests-")}


def test_what_running_offers_is_there(world: World) -> None:
    job = data(world.stranger.create("/v1/jobs", "job", {"kind": "sleep", "parameters": {"seconds": 0}}))
    named = [name for row in rows("Writing a kind") for name in re.findall(r"`(\w+)\b", row[0])]

    assert named == ["parameters", "job", "work_dir", "progress", "wait", "check", "charge_output", "publish"]
    assert all(hasattr(Running(job, ROOT), name) for name in ("job", "work_dir"))
    assert all(hasattr(Running, name) for name in named if name not in ("job", "work_dir"))


@pytest.fixture
def documented() -> Iterator[Kind]:
    """The kind in the text, as long as the test takes."""
    (source,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    exec(compile(source, "docs/jobs.md", "exec"), {})  # noqa: S102  # what stands there is ours
    yield KINDS["longest-word"]
    del KINDS["longest-word"]


@pytest.mark.parametrize(
    ("words", "state", "outcome"),
    [
        (["a", "longer", "word"], "succeeded", {"longest": "longer"}),
        ([], "failed", {"code": "no-words", "detail": "There are no words to choose from."}),
    ],
)
def test_the_kind_runs(world: World, documented: Kind, words: list[str], state: str, outcome: Any) -> None:
    job = data(world.stranger.create("/v1/jobs", "job", {"kind": documented.name, "parameters": {"words": words}}))

    with world.app.app_context():
        running.run(UUID(job["id"]), "tests")

    attributes = data(world.stranger.get(f"/v1/jobs/{job['id']}"))["attributes"]
    assert attributes["state"] == state
    assert (attributes["result"] or attributes["error"]) == outcome
    made = [each["attributes"]["name"] for each in data(world.stranger.get(f"/v1/jobs/{job['id']}/artifacts"))]
    assert made == (["longest.json"] if state == "succeeded" else [])
