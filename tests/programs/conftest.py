"""Fixtures and helpers for programs: their directory, and jobs that run them."""

import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import psutil
import pytest
from flask import Flask

from app.jobs import executor
from tests.dataset import ApiClient, Dataset, get_data

PYTHON = f"""#!/bin/sh
'''exec' "{sys.executable}" -I "$0" "$@"
' '''
"""
"""First lines of a program in Python; `#!` allows no spaces in the path. Python reads the shell line as a string."""


class ProgramDirectory:
    """JOB_PROGRAMS_DIR, with methods to add programs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def add_program(self, name: str, script: str, **members: Any) -> str:
        """Add a program, with a manifest of these members; return the name of its kind."""
        if members:
            self.write_manifest(name, orjson.dumps({key.replace("_", "-"): value for key, value in members.items()}))
        new = self.directory / f".{name}"  # a worker must never see a half-written file
        new.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
        new.chmod(stat.S_IRWXU)
        new.replace(self.directory / name)
        return f"program:{name}"

    def write_manifest(self, name: str, content: bytes) -> None:
        """Write the manifest of a program."""
        (self.directory / f"{name}.json").write_bytes(content)


@pytest.fixture
def programs(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProgramDirectory:
    """Return the directory of programs of the app in this process."""
    new = ProgramDirectory(tmp_path / "programs")
    monkeypatch.setitem(app.config, "JOB_PROGRAMS_DIR", new.directory)
    return new


def enqueue_job(caller: ApiClient, kind: str, **parameters: Any) -> Any:
    """Submit a job; return its resource object."""
    return get_data(caller.create("/v1/jobs", "job", {"kind": kind, "parameters": parameters}))


def execute_job(dataset: Dataset, kind: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run a job in this process, check that it leaves no files, and return its resource object."""
    job = enqueue_job(dataset.admin, kind, **(parameters or {}))
    with dataset.app.app_context():
        executor.run_job(UUID(job["id"]), "tests")
    attributes: dict[str, Any] = get_data(dataset.admin.get(f"/v1/jobs/{job['id']}"))["attributes"]
    assert attributes["finished-at"] is not None
    assert not list((Path(dataset.app.config["VAR_DIR"]) / "work").glob(f"{job['id']}-*"))
    return {**attributes, "id": job["id"]}


RunProgram = Callable[..., dict[str, Any]]


@pytest.fixture
def run_program(dataset: Dataset, programs: ProgramDirectory) -> RunProgram:
    """Return a function that adds a program and runs a job of it."""

    def do(script: str, given: dict[str, Any] | None = None, /, **members: Any) -> dict[str, Any]:
        return execute_job(dataset, programs.add_program("tried", script, **members), given)

    return do


def read_output(dataset: Dataset, job_id: str) -> bytes:
    """Return the content of the artifact of a job."""
    (artifact,) = get_data(dataset.admin.get(f"/v1/jobs/{job_id}/artifacts"))
    assert artifact["attributes"]["name"] == "output"
    _, path, rest = artifact["attributes"]["url"].partition("/v1/")
    return dataset.admin.get(path + rest).data


def list_events(dataset: Dataset, job_id: str, level: str | None = None) -> list[dict[str, Any]]:
    """Return the attributes of the events of a job."""
    events = get_data(dataset.admin.get(f"/v1/jobs/{job_id}/events?page[size]=100"))
    return [each["attributes"] for each in events if level in (None, each["attributes"]["level"])]


def find_marked_processes(mark: str) -> list[int]:
    """Return the ids of processes with this mark in their command line."""
    return [each.pid for each in psutil.process_iter(["cmdline"]) if mark in " ".join(each.info["cmdline"] or [])]
