"""/overview/generate without a worker: these tests end the jobs themselves."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from app.database import commit, open_transaction
from app.jobs import lifecycle
from app.overview import progress

SERVER = "https://overview.example.com"


def test_generate_job_ends_before_first_read_sends_its_end(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "JOB_PROGRAMS_DIR", tmp_path)
    found = progress.list_events_after

    def find_after_end(job_id: UUID, seq: int) -> Any:
        with app.app_context(), open_transaction(is_read=False):
            job = lifecycle.claim_job(job_id, "tests", timedelta(seconds=30))
            if job is not None:
                lifecycle.finish_failed(
                    job, "exit-status", "The program exited with status 3.", returncode=3, stderr="why\n"
                )
            commit()
        return found(job_id, seq)

    monkeypatch.setattr(progress, "list_events_after", find_after_end)

    answer = app.test_client().post(
        "/overview/generate", data={"server": SERVER, "documentSetId": "1", "apiToken": "t"}
    )

    *_, last = json.loads(answer.data)
    assert (last["returncode"], last["error"]) == (3, "why\n")
