"""`make` on different machines: choice of the interpreter, creation of the environment, and interruptions.

Most of these tests install a small wheel of their own, without the package index.
"""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import config
from tests.conftest import ROOT, find_free_port, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400), pytest.mark.long]

CompletedMake = subprocess.CompletedProcess[str]

TOOLS = ("sh", "make", "cat", "cksum", "rm", "mv", "mkdir", "flock", "sed", "env", "dirname", "realpath")
BASE_PYTHON = getattr(sys, "_base_executable", sys.executable)
NO_PYTHON_MESSAGE = (
    "make: Python 3.11 to 3.14 is needed: install it, or uv, or name it: make PYTHON=/path/to/python3.11 ...\n"
)
INSTALLING_MESSAGE = "Installing packages into .venv ...\n"


def write_wheel(directory: Path, version: str) -> str:
    """Write a wheel of the package `tiny`, whose command prints its version; returns its line for requirements."""
    info = f"tiny-{version}.dist-info"
    files = {
        "tiny.py": f"import sys\n\ndef main():\n    print('tiny', '{version}', sys.prefix)\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ntiny = tiny:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    path = directory / f"tiny-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return f"tiny=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


class Checkout:
    """Copy of the files that `make` needs, in a directory with spaces, with only the programs in `bin` on PATH."""

    def __init__(self, directory: Path) -> None:
        self.bin, self.wheels, self.root = directory / "bin", directory / "wheels", directory / "a check out"
        for path in (self.bin, self.wheels, self.root):
            path.mkdir()
        for name in TOOLS:
            if found := shutil.which(name):
                (self.bin / name).symlink_to(found)
        shutil.copy(ROOT / "Makefile", self.root)
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        self.versions = {version: write_wheel(self.wheels, version) for version in ("1.0", "2.0")}
        for name in ("-embedded", "-dev", "-installer"):
            (self.root / f"requirements{name}.txt").write_text("# nothing\n")
        self.set_requirement("1.0")
        self.environ = {"PATH": str(self.bin), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
        self.environ["PIP_FIND_LINKS"] = self.wheels.as_uri()  # and no HOME

    def set_requirement(self, version: str) -> None:
        (self.root / "requirements.txt").write_text(self.versions[version])

    def add_python(self, name: str, refuse: str = "") -> None:
        """Add an interpreter to PATH; like an outdated or incomplete one, it fails for code with the word `refuse`."""
        case = f'case "$2" in *{refuse}*) echo nonsense >&2; exit 1;; esac\n' if refuse else ""
        (self.bin / name).write_text(f'#!/bin/sh\n{case}exec "{BASE_PYTHON}" "$@"\n')
        (self.bin / name).chmod(0o755)

    def make(self, *arguments: str) -> CompletedMake:
        command = ["make", "--no-print-directory", ".venv/run.stamp", *arguments]
        return subprocess.run(command, cwd=self.root, env=self.environ, capture_output=True, text=True, check=False)

    @contextmanager
    def start_hanging_make(self) -> Iterator[subprocess.Popen[bytes]]:
        """Start an installation whose package index accepts the connection and never responds."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            environ = {**self.environ, "PIP_INDEX_URL": f"http://127.0.0.1:{listener.getsockname()[1]}/simple"}
            del environ["PIP_NO_INDEX"], environ["PIP_FIND_LINKS"]
            command = ["make", ".venv/run.stamp"]
            with subprocess.Popen(
                command,
                cwd=self.root,
                env=environ,
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as process:
                listener.settimeout(60)
                connection, _ = listener.accept()
                with connection:
                    yield process

    def environments(self) -> list[str]:
        return sorted(path.name for path in self.root.glob(".venv*"))

    def run_tiny(self) -> str:
        done = subprocess.run([self.root / ".venv/bin/tiny"], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def assert_works(self, version: str = "1.0") -> None:
        assert self.environments() == [".venv"]
        assert self.run_tiny() == f"tiny {version} {self.root / '.venv'}"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def working_checkout(checkout: Checkout) -> Checkout:
    """Yield a checkout with a complete environment."""
    checkout.add_python("python3")
    done = checkout.make()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", INSTALLING_MESSAGE)
    return checkout


def is_only_output(done: CompletedMake, line: str) -> bool:
    """Return whether this line is the complete output, apart from that of make."""
    own = [other for other in done.stderr.splitlines(keepends=True) if not other.startswith("make: ***")]
    return bool(done.returncode) and (done.stdout, own) == ("", [line])


def test_a_finished_environment_names_its_own_directory_and_is_left_alone(working_checkout: Checkout) -> None:
    working_checkout.assert_works()
    for path in [working_checkout.root / ".venv/pyvenv.cfg", *(working_checkout.root / ".venv/bin").iterdir()]:
        assert path.is_symlink() or b".venv.new" not in path.read_bytes()

    again = working_checkout.make()

    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["python3", "python3.14", "python3.11"])
def test_the_interpreter_is_the_first_on_path_that_is_supported(checkout: Checkout, name: str) -> None:
    checkout.add_python("python3", refuse="version_info")
    checkout.add_python("python3.13", refuse="version_info")
    checkout.add_python(name)

    assert checkout.make().stderr == INSTALLING_MESSAGE
    checkout.assert_works()


def test_without_a_supported_interpreter_one_line_says_what_to_do(checkout: Checkout) -> None:
    assert is_only_output(checkout.make(), NO_PYTHON_MESSAGE)

    checkout.add_python("python3", refuse="version_info")
    assert is_only_output(checkout.make(), NO_PYTHON_MESSAGE)
    assert is_only_output(checkout.make("PYTHON=python3"), "make: PYTHON=python3 is not a Python 3.11 to 3.14.\n")
    assert is_only_output(checkout.make("PYTHON=/no/python"), "make: PYTHON=/no/python is not a Python 3.11 to 3.14.\n")
    assert checkout.environments() == []


@pytest.mark.parametrize("name", ["python3", "python3.12"])
def test_without_python3_venv_one_line_names_the_package_and_the_next_make_works(checkout: Checkout, name: str) -> None:
    checkout.add_python(name, refuse="ensurepip")
    package = "python3-venv" if name == "python3" else f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    advice = f"make: {name} cannot make virtual environments. On Debian and Ubuntu: apt install {package}\n"

    assert is_only_output(checkout.make(), advice)
    assert is_only_output(checkout.make(), advice)
    assert checkout.environments() == []

    checkout.add_python(name)
    assert checkout.make().returncode == 0
    checkout.assert_works()


def test_a_second_interpreter_that_is_complete_goes_before_an_incomplete_one(checkout: Checkout) -> None:
    checkout.add_python("python3", refuse="ensurepip")
    checkout.add_python("python3.12")

    assert checkout.make().returncode == 0
    checkout.assert_works()


def test_kill_9_of_the_first_installation_leaves_nothing_that_is_used(checkout: Checkout) -> None:
    checkout.add_python("python3")
    with checkout.start_hanging_make() as process:
        os.killpg(process.pid, signal.SIGKILL)

    assert ".venv" not in checkout.environments()
    assert checkout.make().stderr == INSTALLING_MESSAGE
    checkout.assert_works()


def test_ctrl_c_during_the_first_installation_leaves_nothing(checkout: Checkout) -> None:
    checkout.add_python("python3")
    with checkout.start_hanging_make() as process:
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30)

    wait_until(lambda: checkout.environments() == [])


def test_kill_9_during_an_update_makes_the_environment_anew(working_checkout: Checkout) -> None:
    working_checkout.set_requirement("2.0")
    with working_checkout.start_hanging_make() as process:
        os.killpg(process.pid, signal.SIGKILL)

    assert working_checkout.make().stderr == INSTALLING_MESSAGE
    working_checkout.assert_works("2.0")


def test_an_update_changes_the_environment_in_place_and_one_that_fails_leaves_it(working_checkout: Checkout) -> None:
    (working_checkout.root / ".venv/kept").touch()
    working_checkout.set_requirement("2.0")
    assert working_checkout.make().stderr == ""
    working_checkout.assert_works("2.0")

    (working_checkout.root / "requirements.txt").write_text(
        working_checkout.versions["1.0"].replace("sha256:", "sha256:00")
    )
    assert working_checkout.make().returncode
    (working_checkout.root / "requirements.txt").write_text(working_checkout.versions["1.0"][:-3] + "00\n")
    refused = working_checkout.make()
    assert refused.returncode
    assert "HASHES" in refused.stderr.upper()
    working_checkout.assert_works("2.0")

    working_checkout.set_requirement("2.0")
    assert (working_checkout.make().returncode, (working_checkout.root / ".venv/kept").exists()) == (0, True)


def remove_interpreter(checkout: Checkout) -> None:
    for path in (checkout.root / ".venv/bin").glob("python*"):
        path.unlink()
        path.symlink_to("/no/such/python")


def make_interpreter_too_old(checkout: Checkout) -> None:
    python = checkout.root / ".venv/bin/python"
    python.unlink()
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)


def move_checkout(checkout: Checkout) -> None:
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))


def remove_marker(checkout: Checkout) -> None:
    for name in ("location", "run.stamp"):
        (checkout.root / ".venv" / name).unlink()


def test_an_environment_that_is_unfit_for_use_is_made_anew(working_checkout: Checkout) -> None:
    for harm in (remove_interpreter, make_interpreter_too_old, move_checkout, remove_marker):
        harm(working_checkout)

        assert working_checkout.make().stderr == INSTALLING_MESSAGE, harm
        working_checkout.assert_works()


def test_an_environment_of_an_earlier_release_is_kept(working_checkout: Checkout) -> None:
    (working_checkout.root / ".venv/location").unlink()
    (working_checkout.root / ".venv/run.stamp").write_text("")
    (working_checkout.root / ".venv/kept").touch()

    assert (working_checkout.make().returncode, (working_checkout.root / ".venv/kept").exists()) == (0, True)
    working_checkout.assert_works()


def test_two_at_once_install_once(checkout: Checkout) -> None:
    if not shutil.which("flock"):
        pytest.skip("there is no flock here: two installations at once are not kept apart")
    checkout.add_python("python3")
    command = ["make", ".venv/run.stamp"]
    pipes: dict[str, Any] = {"cwd": checkout.root, "env": checkout.environ, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as other:
        said = sorted(process.communicate()[1] for process in (one, other))

    assert (one.returncode, other.returncode, said) == (0, 0, ["", INSTALLING_MESSAGE])
    checkout.assert_works()


def test_uv_on_path_makes_the_environment_where_python_cannot(checkout: Checkout) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("there is no uv here, because pip has installed the packages")
    (checkout.bin / "uv").symlink_to(uv)
    checkout.add_python("python3", refuse="ensurepip")
    shutil.copy(ROOT / "requirements-installer.txt", checkout.root)
    # uv itself comes from the package index.
    machine = {name: value for name, value in os.environ.items() if name != "PYTHON"}  # `.ci/run` sets it
    checkout.environ = {**machine, "PATH": str(checkout.bin), "UV_FIND_LINKS": checkout.wheels.as_uri()}

    done = checkout.make()

    assert (done.returncode, done.stderr) == (0, INSTALLING_MESSAGE)
    checkout.assert_works()


def test_make_run_installs_everything_compiles_it_once_and_prints_no_noise(tmp_path: Path) -> None:
    root = tmp_path / "a fresh check out"
    ignore = shutil.ignore_patterns(".git", ".venv*", "var", "node_modules", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, root, ignore=ignore)
    unset = {"PYTHONDONTWRITEBYTECODE", *(setting.name for setting in config.SETTINGS)}
    environ = {name: value for name, value in os.environ.items() if name not in unset}
    environ.update(PORT=str(find_free_port()), PYTHON=BASE_PYTHON)
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["make", "run"], cwd=root, env=environ, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until(lambda: "ready: http" in log.read_text() or process.poll() is not None, 300)
        assert process.poll() is None, log.read_text()[-3000:]
        children = psutil.Process(process.pid).children(recursive=True)
        web_started = next(child.create_time() for child in children if child.cmdline()[-1:] == ["web"])
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)

    first, second, *_ = log.read_text().splitlines(keepends=True)
    assert first == INSTALLING_MESSAGE
    assert "Traceback" not in second
    assert "|" in second  # the first line of a server
    [packages] = root.glob(".venv/lib/*/site-packages")
    for path in [*(root / "app").rglob("*.py"), *(packages / "sqlalchemy").rglob("*.py")]:
        [compiled] = (path.parent / "__pycache__").glob(f"{path.stem}.cpython-*.pyc")
        assert compiled.stat().st_mtime < web_started, path
