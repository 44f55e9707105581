"""Programs in the dataset of the blueprint's examples, and their jobs."""

import stat
from pathlib import Path

from tests.docs.jobs import OWNER, JobRecord
from tests.docs.markdown import get_code_block
from tests.programs.conftest import PYTHON

MADE, SECRET = "019b7e2c-bda0-7d16-8e04-71b5f92c6a80", "019b7e2d-a800-7f63-8b2c-94e05a1d7c60"
SET = {"server": "https://www.overviewdocs.com", "document_set_id": "1234"}
API_TOKEN = "abcdef"

JOBS = (
    JobRecord(
        MADE,
        37,
        "program:process-docset",
        {**SET, "api_token": API_TOKEN},
        (
            (0, "running", None, None),
            (0.5, "running", 0.5, "asking https://www.overviewdocs.com"),
            (1.4, "succeeded", 1.0, None),
        ),
        owner_id=None,
        result={"artifact": "output", "size": 30},
        artifact="output",
        media_type="application/json",
        content=lambda: b'{"items": [], "pagination": 0}',
    ),
    JobRecord(
        SECRET,
        38,
        "program:pseudonyms",
        {"length": 8, "names": ["Ada"], "key": "an unpublished key"},
        ((0, "running", None, None), (0.1, "running", 0.0, "name 1 of 1"), (0.2, "succeeded", 1.0, "name 1 of 1")),
        owner_id=OWNER,
        result={"artifact": "output", "size": 19},
    ),
)


def install_programs(directory: Path) -> None:
    """Write the programs of docs/processors.md into the directory, with this interpreter in the first line."""
    directory.mkdir()
    for name in ("pseudonyms", "process-docset"):
        path = directory / name
        path.write_text(get_code_block(f"programs/{name}").replace("#!/usr/bin/env python3\n", PYTHON))
        path.chmod(stat.S_IRWXU)
        path.with_name(f"{name}.json").write_text(get_code_block(f"programs/{name}.json"))
