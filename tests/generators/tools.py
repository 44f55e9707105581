"""The linters and generators, and what runs them; what is not installed is skipped, and says so."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).resolve().parent
PROGRAMS = DIRECTORY / "programs"
NODE_MODULES = DIRECTORY / "node_modules"
VENV = DIRECTORY / ".venv"
PYTHON = VENV / "bin" / "python"

TIMEOUT_SECONDS = 240
"""For one command, on a machine that does much else."""

JVM = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""It runs for seconds: half of its time would go into compiling code that is called a few times."""

NOT_INSTALLED = "not installed: `make test-generators` does it"
MISSING_NODE = "" if shutil.which("node") else "there is no node on PATH"
MISSING_JAVA = "" if shutil.which("java") else "there is no java on PATH"
MISSING_PACKAGES = "" if (VENV / ".stamp").exists() else f"the Python generators are {NOT_INSTALLED}"
MISSING_MODULES = "" if (NODE_MODULES / ".stamp").exists() else f"the JavaScript generators are {NOT_INSTALLED}"

needs_python = pytest.mark.skipif(bool(MISSING_PACKAGES), reason=MISSING_PACKAGES)
needs_node = pytest.mark.skipif(bool(MISSING_NODE or MISSING_MODULES), reason=MISSING_NODE or MISSING_MODULES)
needs_java = pytest.mark.skipif(bool(MISSING_JAVA), reason=MISSING_JAVA)


def run_command(*command: str | Path, cwd: Path, **settings: str) -> str:
    """Run a command and return its output; its failure is a failure of the test."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "REDOCLY_TELEMETRY": "off", **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-8000:]}"
    return done.stdout


def find_npm_executable(name: str) -> Path:
    """Return the executable of an installed npm package."""
    return NODE_MODULES / ".bin" / name


def run_openapi_generator(generator: str, document: Path, output: Path, **properties: str) -> None:
    """Generate a client without its documentation and tests."""
    (jar,) = VENV.glob("lib/python3*/site-packages/openapi_generator_cli/openapi-generator.jar")
    parts = ",".join(f"{part}=false" for part in ("apiDocs", "modelDocs", "apiTests", "modelTests"))
    arguments = ["-g", generator, "-i", document, "-o", output, "--global-property", parts]
    run_command("java", *JVM, "-jar", jar, "generate", *arguments, cwd=output.parent)


def compile_typescript(program: Path, directory: Path) -> Path:
    """Compile a program and the client beside it, which may not have a single error; return the JavaScript program."""
    for source in (program, DIRECTORY / "tsconfig.json"):
        shutil.copy(source, directory)
    (directory / "node_modules").symlink_to(NODE_MODULES)
    run_command(find_npm_executable("tsc"), cwd=directory)
    return directory / "compiled" / f"{program.stem}.js"
