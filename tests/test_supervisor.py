"""`manage.py run`, started as a process; its children and the supervisor itself are killed."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

import config

ROOT = Path(__file__).resolve().parent.parent
CHILDREN = ("web", "worker", "relay", "postgres", "redis")
TIMESTAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}Z"

pytestmark = [pytest.mark.timeout(120), pytest.mark.faults, pytest.mark.long]


class RunningServer:
    """A `manage.py run` with its own VAR_DIR and port."""

    def __init__(self, var_dir: Path, wrapper: tuple[str, ...] = (), **settings: str) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = str(listener.getsockname()[1])
        defaults = {setting.name: setting.default for setting in config.SETTINGS}
        self.environ = {**os.environ, **defaults, "VAR_DIR": str(var_dir), "PORT": port, **settings}
        self.wrapper = wrapper
        self.log = var_dir.with_name(f"{var_dir.name}.log")
        self.base_url = f"http://127.0.0.1:{self.environ['PORT']}"

    def start(self) -> None:
        self.log.touch()
        self.read = self.log.stat().st_size
        with self.log.open("ab") as log:
            command = [*self.wrapper, sys.executable, str(ROOT / "manage.py"), "run"]
            self.process = subprocess.Popen(command, env=self.environ, stdout=log, stderr=log, start_new_session=True)

    def get_output(self) -> str:
        """Return the output since the last start."""
        return self.log.read_bytes()[self.read :].decode()

    def wait_for(self, condition: Callable[[], Any], seconds: float = 15) -> None:
        """Return when the condition is true; on failure print the output of the servers."""
        deadline = monotonic() + seconds
        while not condition():
            assert monotonic() < deadline, self.get_output()[-5000:]
            sleep(0.05)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.get_output()
        return f"ready: {self.base_url}\n" in self.get_output()

    def run_manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*self.wrapper, sys.executable, str(ROOT / "manage.py"), *arguments]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=60, check=False)

    def get_status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.run_manage("status", "--json").stdout)
        return status

    def get_pid(self, name: str) -> int | None:
        child = self.get_status()[name]
        return child["pid"] if child else None

    def list_processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def is_healthy(self) -> bool:
        try:
            with urlopen(f"{self.base_url}/health-check", timeout=3) as answer:  # noqa: S310  # our own address
                checks = json.load(answer)["results"]
        except (OSError, ValueError):
            return False
        return all(check["passed"] for check in checks)

    def stop(self) -> float:
        """Send SIGTERM; return the seconds until the process has ended."""
        started = monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, self.get_output()
        return monotonic() - started


@contextmanager
def wait_for_exit(run: RunningServer) -> Iterator[RunningServer]:
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait(10)


def has_no_processes(family: list[psutil.Process]) -> bool:
    return not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    run = RunningServer(tmp_path_factory.mktemp("with a space") / "var dir")
    run.start()
    with wait_for_exit(run):
        run.wait_for(run.is_ready, 60)
        yield run


def test_a_new_database_is_migrated_and_gets_sample_data(run: RunningServer) -> None:
    revisions = len(list((ROOT / "migrations" / "versions").glob("*.py")))
    before, _, after = run.get_output().partition("ready: ")

    assert re.search(rf"^database \| {TIMESTAMP} {revisions} migrations applied\n", before, re.MULTILINE)
    assert re.search(rf"^database \| {TIMESTAMP} sample data added\n", before, re.MULTILINE)
    assert "password" not in before
    assert re.search(r"^  Demo login +organizer@example.com with the password \S{12}\n", after, re.MULTILINE)


def test_the_start_is_one_line_for_each_component(run: RunningServer) -> None:
    # The check of the worker passes shortly before it consumes tasks.
    run.wait_for(lambda: re.search(r"^worker .* jobs-\S+ ready", run.get_output(), re.MULTILINE), 30)
    before = run.get_output().partition("ready: ")[0]
    components = {line.partition(" ")[0] for line in run.get_output().splitlines() if " | " in line}

    assert len(before.splitlines()) <= 20, before
    assert components == {"database", *CHILDREN}
    assert f" listening url={run.base_url}\n" in before
    assert "health-check" not in before
    assert "privileges" not in before
    assert "[" not in re.sub(r"Task \S+\[", "", before), before  # neither warnings nor errors


def test_the_block_after_ready_says_where_everything_is(run: RunningServer) -> None:
    var_dir = run.environ["VAR_DIR"]

    block = run.get_output().partition(f"ready: {run.base_url}\n")[2].partition("  Ctrl-C stops everything.\n")[0]

    assert len(block.splitlines()) < 13
    assert dict(re.findall(r"^  (\S.*?)  +(.*)$", block, re.MULTILINE)).items() >= {
        ("Documentation", f"{run.base_url}/docs"),
        ("Jobs", f"{run.base_url}/jobs"),
        ("Health", f"{run.base_url}/health-check"),
        ("Mails", f"{var_dir}/mail"),
        ("Files", f"{var_dir}/files"),
    }


def test_status_names_what_runs(run: RunningServer) -> None:
    status = run.get_status()

    assert {name for name in CHILDREN if psutil.pid_exists(status[name]["pid"])} == set(CHILDREN)
    assert status["base_url"] == run.base_url
    assert status["database_url"].startswith("postgresql://postgres@/postgres?host=")
    assert status["redis_url"].startswith("unix:///")


def test_a_command_beside_it_finds_its_servers(run: RunningServer) -> None:
    done = run.run_manage("demo")

    assert done.stdout == "demo: the sample data is there already, with the login organizer@example.com\n"
    assert done.returncode == 0


def test_a_second_one_in_the_same_var_dir_is_one_line(run: RunningServer) -> None:
    done = run.run_manage("run")

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"manage.py: {run.environ['VAR_DIR']} is in use by process {run.process.pid}\n"


def test_a_port_in_use_is_one_line(run: RunningServer, tmp_path: Path) -> None:
    done = RunningServer(tmp_path / "var", PORT=run.environ["PORT"]).run_manage("run")

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(
        f"manage.py: cannot listen on 127.0.0.1:{run.environ['PORT']} (Address already in use)"
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", CHILDREN)
def test_a_child_that_is_killed_is_started_again(run: RunningServer, name: str) -> None:
    killed = psutil.Process(run.get_pid(name))
    group = [killed, *killed.children(recursive=True)]

    killed.kill()

    run.wait_for(lambda: run.get_pid(name) not in (killed.pid, None), 30)
    assert has_no_processes(group)


def test_all_is_well_after_all_children_were_killed(run: RunningServer) -> None:
    run.wait_for(run.is_healthy, 30)


def test_kill_9_leaves_nothing_and_the_next_start_takes_over(run: RunningServer) -> None:
    family = run.list_processes()
    assert len(family) > len(CHILDREN)

    run.process.kill()
    run.process.wait(5)
    run.wait_for(lambda: has_no_processes(family), 5)
    assert run.run_manage("status").returncode == 1

    run.start()
    run.wait_for(run.is_ready, 60)
    assert "database |" not in run.get_output()
    assert "Demo login" not in run.get_output()


def test_sigterm_ends_everything_within_15_seconds(run: RunningServer) -> None:
    family = run.list_processes()

    seconds = run.stop()

    assert seconds < 15
    assert has_no_processes(family)
    assert run.run_manage("status").returncode == 1


def test_every_line_is_json_with_log_format_json(tmp_path: Path) -> None:
    """Also what PostgreSQL, Redis, a killed worker, a child with bad settings and the supervisor say."""
    run = RunningServer(tmp_path / "var", LOG_FORMAT="json", LOG_LEVEL="debug")
    run.start()
    with wait_for_exit(run):
        run.wait_for(run.is_ready, 60)
        web, postgres = run.get_pid("web"), run.get_pid("postgres")
        pool = psutil.Process(run.get_pid("worker")).children(recursive=True)
        pool[-1].kill()
        (tmp_path / "var" / "jwt-key").rename(tmp_path / "jwt-key")
        (tmp_path / "var" / "jwt-key").write_text("damaged")
        os.kill(web or 0, signal.SIGKILL)
        run.wait_for(lambda: "contains a damaged secret-key" in run.get_output(), 30)
        (tmp_path / "jwt-key").replace(tmp_path / "var" / "jwt-key")
        backend = next(each for each in psutil.Process(postgres).children() if "io worker" not in each.name())
        backend.kill()
        run.wait_for(lambda: "was terminated by signal 9" in run.get_output(), 30)
        run.wait_for(run.is_healthy, 60)
        run.stop()

    before, _, rest = run.get_output().partition(f"ready: {run.base_url}\n")
    block, end, after = rest.partition("  Ctrl-C stops everything.\n")
    between = [line for line in block.splitlines() if not line.startswith("  ")]
    lines = [json.loads(line) for line in [*before.splitlines(), *between, *after.splitlines()]]
    assert end
    assert {line["component"] for line in lines} == {"run", "database", *CHILDREN}
    assert all({"level", "event", "timestamp"} <= line.keys() for line in lines)
    said = {(line["component"], line["level"], line["event"].partition(";")[0]) for line in lines}
    assert ("web", "warning", "ended with status -9 and starts again in 0.2 s") in said
    assert ("run", "info", "stopping web, relay, worker, redis, postgres") in said
    assert ("postgres", "debug", "database system is ready to accept connections") in said
    assert any(line["event"].startswith("VAR_DIR ") for line in lines if line["level"] == "error")


def test_a_second_ctrl_c_kills_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    """Frozen children would otherwise be waited for until 12 s are over."""
    run = RunningServer(tmp_path / "var", LOG_LEVEL="warning", DEMO="0")
    run.start()
    with wait_for_exit(run):
        run.wait_for(run.is_ready, 60)
        assert run.get_output().startswith("ready: ")
        family = run.list_processes()
        for name in ("web", "worker", "relay"):
            os.kill(run.get_pid(name) or 0, signal.SIGSTOP)
        assert "password" in run.run_manage("demo").stdout

        # A wrapper such as `npm run` delivers the same Ctrl-C twice.
        run.process.send_signal(signal.SIGINT)
        run.process.send_signal(signal.SIGINT)
        sleep(1.5)
        assert run.process.poll() is None
        started = monotonic()
        run.process.send_signal(signal.SIGINT)

        assert run.process.wait(20) == 0
        assert monotonic() - started < 4
        assert has_no_processes(family)
        assert "run      | " in run.get_output()
        assert "killing all processes" in run.get_output()
        assert "Traceback" not in run.get_output()

        run.start()
        run.wait_for(run.is_ready, 60)
        assert "there already" in run.run_manage("demo").stdout
        run.stop()


@pytest.mark.parametrize(("environ", "colored"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_lines_are_coloured_on_a_terminal(tmp_path: Path, environ: dict[str, str], colored: bool) -> None:
    run = RunningServer(tmp_path / "var", DEMO="0", TERM="xterm", **environ)
    master, slave = os.openpty()
    run.process = subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "run"],
        env=run.environ,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    output = b""
    with wait_for_exit(run):
        while b"relay ready" not in output:
            output += os.read(master, 4096)
        run.stop()
    os.close(master)

    of_supervisor, of_child = (
        next(line for line in output.splitlines() if word in line) for word in (b"postgres", b"relay ready")
    )
    assert of_supervisor.startswith(b"\x1b[") is colored
    assert (b"\x1b[" in of_child.partition(b"|")[2]) is colored


def test_frozen_children_do_not_outlive_it(tmp_path: Path) -> None:
    """Frozen processes ignore SIGTERM; only SIGKILL ends them."""
    run = RunningServer(tmp_path / "var")
    run.start()
    with wait_for_exit(run):
        run.wait_for(run.is_ready, 60)
        family = run.list_processes()
        for name in ("web", "worker", "relay"):
            os.kill(run.get_pid(name) or 0, signal.SIGSTOP)

        seconds = run.stop()

    assert 12 < seconds < 15
    assert has_no_processes(family)


def test_an_ordinary_user_runs_it() -> None:
    if os.geteuid() != 0:
        pytest.skip("the other tests have run as an ordinary user already")
    wrapper = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
    probe = [*wrapper, sys.executable, "-c", f"import sys; assert sys.base_prefix == {sys.base_prefix!r}"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("the Python of this .venv lies where an ordinary user cannot read it")
    directory = tempfile.mkdtemp(prefix="open event ")
    try:
        shutil.chown(directory, 65534, 65534)
        run = RunningServer(Path(directory) / "var", wrapper, DEMO="0")
        run.start()
        with wait_for_exit(run):
            run.wait_for(run.is_ready, 60)
            assert {process.uids().real for process in run.list_processes()} == {65534}
            assert "demo" not in run.get_output()
            run.stop()
    finally:
        shutil.rmtree(directory)
