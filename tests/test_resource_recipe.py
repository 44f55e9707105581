"""docs/add-a-resource.md is correct: its commands add a resource to a copy of the repository, and the checks pass."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
IGNORE_UNCOPIED = shutil.ignore_patterns(
    ".git", ".venv*", "var", "node_modules", ".env", ".pytest_cache", "__pycache__"
)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a copy of the repository with the same environment."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=IGNORE_UNCOPIED, symlinks=True)
    (copy / ".venv").symlink_to((ROOT / ".venv").resolve())
    return copy


def run_commands(repository: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run commands without settings, with PostgreSQL and Redis of the copy."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    command = ["bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)


def test_commands_of_the_recipe_add_a_resource_that_passes_the_checks(repository: Path) -> None:
    blocks = COMMANDS.findall((ROOT / "docs/add-a-resource.md").read_text())
    *steps, checks = blocks

    assert len(blocks) == 9
    for step in steps:
        done = run_commands(repository, step)
        assert done.returncode == 0, f"{step}\n{done.stdout}{done.stderr}"
    done = run_commands(repository, checks)

    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert list((repository / "migrations/versions").glob("*_tracks.py"))
