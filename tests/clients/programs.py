"""The programs that speak to the server as their users would, and what runs them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).resolve().parent
PYTHON = DIRECTORY / ".venv" / "bin" / "python"
NODE = shutil.which("node")


def list_program_params(pattern: str) -> list[object]:
    """Return the programs of this pattern as parameters of a test, skipped if a tool that they need is missing."""
    found = sorted(DIRECTORY.glob(pattern))
    return [pytest.param(program, marks=skip_unless_runnable(program.suffix), id=program.stem) for program in found]


def skip_unless_runnable(suffix: str) -> pytest.MarkDecorator:
    """Skips where programs of this kind cannot run, and says why."""
    missing = _missing_python() if suffix == ".py" else _missing_node()
    return pytest.mark.skipif(bool(missing), reason=missing)


def run_program(program: Path, stdin: str = "", **settings: str) -> str:
    """Return the output of a program; fail with its error output."""
    interpreter = PYTHON if program.suffix == ".py" else NODE
    done = subprocess.run(
        [str(interpreter), str(program)],
        input=stdin,
        env={**os.environ, "NO_PROXY": "127.0.0.1", **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{program.name}:\n{done.stdout}{done.stderr}"
    return done.stdout


def _missing_python() -> str:
    installed = (DIRECTORY / ".venv" / ".stamp").exists()
    return "" if installed else "the Python clients are not installed: `make test-clients` does it"


def _missing_node() -> str:
    if NODE is None:
        return "there is no node on PATH: the JavaScript clients are not tried"
    if not (DIRECTORY / "node_modules" / ".stamp").exists():
        return "the JavaScript clients are not installed: `make test-clients` does it"
    return ""
