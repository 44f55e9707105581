"""Commands `manage.py jobs`: output for people and programs, and exit status."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from app.database import commit, open_transaction, poll_notifications
from app.jobs import executor, lifecycle, submission
from app.jobs.cli import jobs_cli
from app.jobs.records import JobRow
from app.processes.process_tree import set_pdeathsig
from app.processes.worker_nodes import JOBS_QUEUE
from tests.conftest import Processes
from tests.dataset import Dataset
from tests.jobs import kinds as _kinds  # noqa: F401  # declares them
from tests.jobs.db_helpers import get_job

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parent.parent.parent
UNKNOWN_JOB_ID = "01900000-0000-7000-8000-000000000000"

WaitUntil = Callable[..., Any]


def invoke_cli(app: Flask, *arguments: str, given: str | bytes | None = None) -> Result:
    """Run a command; return its output and exit status."""
    return app.test_cli_runner().invoke(jobs_cli, list(arguments), input=given)


def get_json_output(app: Flask, *arguments: str) -> Any:
    """Run a command with --json; return the parsed output."""
    result = invoke_cli(app, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def enqueue_job(app: Flask, kind: str = "sleep", **parameters: Any) -> UUID:
    """Commit a job; without parameters, one that sleeps 0 s."""
    given = parameters or {"seconds": 0, "steps": 1}
    with app.app_context(), open_transaction(is_read=False):
        job = submission.submit_job(kind, given, trigger="cli", owner_id=None).job
        commit()
    return job.id


def execute_job(app: Flask, job_id: UUID) -> None:
    """Run a job as a worker does."""
    with app.app_context():
        executor.run_job(job_id, "tests")


def start_attempt(app: Flask, job_id: UUID) -> JobRow:
    """Claim a job as a worker does."""
    with app.app_context(), open_transaction(is_read=False):
        job = lifecycle.claim_job(job_id, "tests", timedelta(seconds=60))
        commit()
    assert job is not None
    return job


def commit_progress(app: Flask, write: Callable[..., JobRow | None], *arguments: Any) -> None:
    """Commit progress or an outcome of an attempt."""
    with app.app_context(), open_transaction(is_read=False):
        assert write(*arguments) is not None
        commit()


def test_kinds_lists_available_kinds_and_parameters(app: Flask) -> None:
    result = invoke_cli(app, "kinds")

    (line,) = [line for line in result.stdout.splitlines() if line.startswith("sleep ")]
    assert line.endswith("  seconds=number [steps=integer]")
    assert "  Sleep, and report progress at each step.  " in line
    (kind,) = [kind for kind in get_json_output(app, "kinds") if kind["name"] == "sleep"]
    assert kind["title"] == "Sleep, and report progress at each step."
    assert kind["parameters"]["required"] == ["seconds"]


def test_submit_prints_the_id(app: Flask) -> None:
    result = invoke_cli(app, "submit", "sleep", "--param", "seconds=2")

    job = get_job(app, UUID(result.stdout.strip()))
    assert (result.exit_code, result.stderr) == (0, "")
    assert (job.kind, job.parameters, job.state) == ("sleep", {"seconds": 2}, "queued")
    assert (job.trigger, job.owner_id, job.event_id) == ("cli", None, None)


def test_submit_prints_same_json_as_api(dataset: Dataset) -> None:
    job = get_json_output(dataset.app, "submit", "sleep", "--param", "seconds=2", "--owner", " Stranger@example.com")

    document = dataset.stranger.get(f"/v1/jobs/{job['id']}").get_json(force=True)["data"]
    assert job == {
        "id": document["id"],
        **document["attributes"],
        "owner": str(dataset.stranger.id),
        "event": None,
        "retry-of": None,
    }
    assert (job["kind"], job["state"], job["trigger"], job["queue-position"]) == ("sleep", "queued", "cli", 0)


def test_submit_returns_existing_job(app: Flask) -> None:
    first, again = (invoke_cli(app, "submit", "sleep-once", "--param", "seconds=0").stdout for _ in range(2))

    assert first == again


@pytest.mark.parametrize(
    ("kind", "arguments", "expected"),
    [
        ("sleep", ["--param", "seconds=2"], {"seconds": 2}),
        ("sleep", ["--param", "seconds=0.5", "--param", "steps=3"], {"seconds": 0.5, "steps": 3}),
        ("resize-image", ["--param", "image=2"], {"image": "2"}),
        ("resize-image", ["--param", 'image="2"'], {"image": '"2"'}),
        ("resize-image", ["--param", "image=a=b", "--param", "format=png"], {"image": "a=b", "format": "png"}),
        ("tests-make", ["--param", "n=2", "--param", "t=true", "--param", "x=[1]"], {"n": 2, "t": True, "x": [1]}),
        ("tests-make", ["--param", "text=2 apples", "--param", "empty="], {"text": "2 apples", "empty": ""}),
        ("tests-make", ["--params", '{"a": {"b": null}}'], {"a": {"b": None}}),
        ("sleep", ["--params", '{"seconds": 1, "steps": 2}', "--param", "steps=3"], {"seconds": 1, "steps": 3}),
        ("sleep", ["--params", "-"], {"seconds": 7}),
    ],
)
def test_parameters_are_read_by_the_schema(
    app: Flask, kind: str, arguments: list[str], expected: dict[str, Any]
) -> None:
    result = invoke_cli(app, "submit", kind, *arguments, given='{"seconds": 7}')

    assert result.exit_code == 0, result.stderr
    assert get_job(app, UUID(result.stdout.strip())).parameters == expected


def test_parameters_may_lie_in_a_file(app: Flask, tmp_path: Path) -> None:
    (tmp_path / "parameters.json").write_text('{"seconds": 3}')

    result = invoke_cli(app, "submit", "sleep", "--params", f"@{tmp_path}/parameters.json")

    assert get_job(app, UUID(result.stdout.strip())).parameters == {"seconds": 3}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["submit", "no-such-kind"], "kind: There is no such kind of job."),
        (["submit", "\udcff"], "kind: There is no such kind of job."),
        (["submit"], "Missing argument 'KIND'."),
        (["submit", "sleep"], "seconds: 'seconds' is a required property"),
        (["submit", "sleep", "--param", "seconds=abc"], "seconds: 'abc' is not of type 'number'"),
        (["submit", "sleep", "--param", "seconds=-1"], "seconds: -1 is less than the minimum of 0"),
        (["submit", "sleep", "--param", "seconds=1e400"], "--param seconds: A number is too large."),
        (["submit", "sleep", "--param", "seconds=a\nb"], "seconds: 'a\\nb' is not of type 'number'"),
        (["submit", "sleep", "--param", "seconds=" + "9" * 5000], "seconds: "),
        (["submit", "sleep", "--param", "x" * 70_000 + "=1"], "parameters: Parameters must be at most 65536 bytes."),
        (["submit", "sleep", "--param", "seconds=1", "--param", "seconds=2"], "--param: 'seconds' is given twice"),
        (["submit", "sleep", "--param", "seconds"], "--param: 'seconds' is not NAME=VALUE"),
        (["submit", "sleep", "--param", "=1"], "--param: '=1' is not NAME=VALUE"),
        (["submit", "sleep", "--param", "seconds=\udcff"], "--param: 'seconds' is not valid UTF-8"),
        (["submit", "sleep", "--params", "{"], "--params: the value is not valid JSON"),
        (["submit", "sleep", "--params", '{"a": ' + "[" * 100_000], "--params: the value is not valid JSON"),
        (
            ["submit", "sleep", "--params", "[" * 40 + "]" * 40],
            "--params: the value is not valid JSON, or nested too deep",
        ),
        (["submit", "sleep", "--params", "NaN"], "--params: the value is not valid JSON"),
        (["submit", "sleep", "--params", "[]"], "--params: the value is not a JSON object"),
        (
            ["submit", "sleep", "--params", '{"seconds": "\\u0000"}'],
            "seconds: Must not contain a NUL or a lone surrogate",
        ),
        (["submit", "sleep", "--params", "@/nowhere"], "--params: '/nowhere' cannot be read: No such file"),
        (["submit", "sleep", "--params", "@/dev/zero"], "--params: the document must be at most 1048576 bytes"),
        (["submit", "sleep", "--param", "seconds=0", "--owner", "nobody@example.com"], "--owner: there is no user"),
        (["submit", "event-archive", "--param", "event=999"], "event: there is no event 999"),
        (["list", "--state", "done"], "'--state': 'done' is not one of 'queued', "),
        (["list", "--kind", "no-such-kind"], "--kind: there is no kind of job 'no-such-kind'"),
        (["list", "--kind", "\udcff"], "--kind: the value is not valid UTF-8"),
        (["list", "--limit", "0"], "'--limit': 0 is not in the range"),
        (["show", "abc"], "ID: there is no job 'abc'"),
        (["show", UNKNOWN_JOB_ID], f"ID: there is no job '{UNKNOWN_JOB_ID}'"),
        (["watch", UNKNOWN_JOB_ID[:8]], f"ID: there is no job '{UNKNOWN_JOB_ID[:8]}'"),
        (["watch", UNKNOWN_JOB_ID], f"ID: there is no job '{UNKNOWN_JOB_ID}'"),
        (["cancel", "\udcff"], "ID: there is no job '\\udcff'"),
        (["retry", UNKNOWN_JOB_ID.upper()], f"ID: there is no job '{UNKNOWN_JOB_ID}'"),
        (["no-such-command"], "No such command 'no-such-command'."),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_usage_error_is_one_line_and_exit_status_2(app: Flask, arguments: list[str], complaint: str) -> None:
    result = invoke_cli(app, *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1
    assert len(result.stderr) < 400
    assert get_json_output(app, "list") == []


def test_a_job_about_an_event_needs_the_event(dataset: Dataset) -> None:
    live = get_json_output(dataset.app, "submit", "event-archive", "--param", f"event={dataset.events['draft']}")
    trashed = invoke_cli(dataset.app, "submit", "event-archive", "--param", f"event={dataset.events['trashed']}")

    assert live["event"] == str(dataset.events["draft"])
    assert (trashed.exit_code, trashed.stdout) == (2, "")
    assert trashed.stderr == f"Error: event: there is no event {dataset.events['trashed']}, or it is deleted\n"


def test_list_has_the_newest_first(app: Flask) -> None:
    first, second = enqueue_job(app), enqueue_job(app)
    other = enqueue_job(app, "tests-fail", breaks=False)
    execute_job(app, first)

    def ids(*arguments: str) -> list[UUID]:
        return [UUID(job["id"]) for job in get_json_output(app, "list", *arguments)]

    assert ids() == [other, second, first]
    assert ids("--state", "queued") == [other, second]
    assert ids("--state", "queued", "--state", "succeeded", "--kind", "sleep") == [second, first]
    assert ids("--limit", "1") == [other]
    assert ids("--state", "canceled") == []


def test_list_is_aligned_for_people(app: Flask) -> None:
    first, second = enqueue_job(app), enqueue_job(app, "sleep-once", seconds=0, steps=1)
    execute_job(app, first)

    titles, *lines = invoke_cli(app, "list").stdout.splitlines()

    assert titles.split() == ["ID", "KIND", "STATE", "DONE", "BY", "CREATED", "MESSAGE"]
    assert [line[: titles.index("DONE")].split() for line in lines] == [
        [str(second), "sleep-once", "queued"],
        [str(first), "sleep", "succeeded"],
    ]
    assert [line[titles.index("MESSAGE") :] for line in lines] == ["0 ahead", "step 1 of 1"]


def test_a_table_on_a_narrow_terminal_keeps_the_ids(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.jobs.cli_output.is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    job_id = enqueue_job(app)

    lines = invoke_cli(app, "list").stdout.splitlines()

    assert lines[1].startswith(f"{job_id} sleep queued ")
    assert {len(line) for line in lines} == {60}


def test_show_has_all_that_belongs_to_a_job(app: Flask) -> None:
    job_id = enqueue_job(app, "tests-make", file="x")
    execute_job(app, job_id)

    job = get_json_output(app, "show", str(job_id))

    assert (job["id"], job["state"], job["parameters"]) == (str(job_id), "succeeded", {"file": "x"})
    ((attempt,), (artifact,)) = job["attempts"], job["artifacts"]
    assert (attempt["number"], attempt["worker"], attempt["outcome"]) == (1, "tests", "succeeded")
    assert (artifact["name"], artifact["media-type"], artifact["partial"]) == ("made.json", "application/json", False)
    assert [event["seq"] for event in job["events"]] == list(range(1, len(job["events"]) + 1))
    text = invoke_cli(app, "show", str(job_id)).stdout
    for shown in (
        f"id              {job_id}\n",
        "attempts: 1\n",
        "artifacts: 1\n",
        artifact["url"],
        artifact["sha256"],
    ):
        assert shown in text


def test_job_message_control_characters_are_removed(app: Flask) -> None:
    job = start_attempt(app, enqueue_job(app))
    commit_progress(app, lifecycle.record_progress, job, 0.5, "a\x1b[2Jb\nc [red]d[/red]\u202e")
    commit_progress(app, lifecycle.finish_failed, job, "no-output", "é\x07\r!")

    table, details, watched = (
        invoke_cli(app, *command) for command in (["list"], ["show", str(job.id)], ["watch", str(job.id)])
    )

    assert table.stdout.endswith("  é !\n")
    assert "  a [2Jb c [red]d[/red]  " in details.stdout
    assert watched.stdout == "0.50 failed: é !\n"
    assert "\x1b" not in table.stdout + details.stdout + watched.stdout


def test_cancel_prints_state_of_job(app: Flask) -> None:
    waits, runs = enqueue_job(app), start_attempt(app, enqueue_job(app)).id

    assert invoke_cli(app, "cancel", str(waits)).stdout == f"{waits} canceled\n"
    assert invoke_cli(app, "cancel", str(runs)).stdout == f"{runs} canceling\n"
    assert get_json_output(app, "cancel", str(runs))["state"] == "canceling"
    again = invoke_cli(app, "cancel", str(waits))
    assert (again.exit_code, again.stdout, again.stderr) == (
        2,
        "",
        "Error: only active jobs can be canceled; this job is canceled\n",
    )


def test_retry_starts_the_same_again_for_the_same_owner(dataset: Dataset) -> None:
    old = get_json_output(dataset.app, "submit", "sleep", "--param", "seconds=0", "--owner", "stranger@example.com")

    lives = invoke_cli(dataset.app, "retry", old["id"])
    invoke_cli(dataset.app, "cancel", old["id"])
    job = get_json_output(dataset.app, "retry", old["id"])

    assert (lives.exit_code, lives.stderr) == (
        2,
        "Error: only jobs that have ended can be retried; this job is queued\n",
    )
    assert (job["state"], job["trigger"], job["retry-of"]) == ("queued", "retry", old["id"])
    assert (job["kind"], job["parameters"], job["owner"]) == (old["kind"], old["parameters"], old["owner"])


@pytest.mark.parametrize(
    ("kind", "status", "last"),
    [
        ("sleep", 0, "1.00 succeeded"),
        ("tests-fail", 1, "0.00 failed: There is nothing to make."),
        ("", 3, "0.00 canceled"),
    ],
)
def test_exit_status_of_watch_is_outcome_of_job(app: Flask, kind: str, status: int, last: str) -> None:
    job_id = enqueue_job(app, kind or "sleep", seconds=0)
    if kind:
        execute_job(app, job_id)
    else:
        invoke_cli(app, "cancel", str(job_id))

    result = invoke_cli(app, "watch", str(job_id))

    assert (result.exit_code, result.stdout, result.stderr) == (status, f"{last}\n", "")


@contextmanager
def run_in_background(act: Callable[[], None]) -> Iterator[None]:
    """Run a function in a thread while a command runs."""
    failures: list[BaseException] = []

    def keep_failure() -> None:
        try:
            act()
        except BaseException as failure:  # noqa: BLE001  # raised below, where the test sees it
            failures.append(failure)

    thread = threading.Thread(target=keep_failure)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert failures == []


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that returns once the command in this process has read the job and waits for changes."""
    begun = threading.Event()

    def wait_for_notification(connection: Connection, seconds: float) -> list[str]:
        begun.set()
        return poll_notifications(connection, seconds)

    def wait() -> None:
        assert begun.wait(15)

    monkeypatch.setattr("app.jobs.cli_watch.poll_notifications", wait_for_notification)
    return wait


def test_watch_with_json_prints_events_of_stream(dataset: Dataset, waits: Callable[[], None]) -> None:
    job = start_attempt(dataset.app, enqueue_job(dataset.app))

    def go_on() -> None:
        waits()
        commit_progress(dataset.app, lifecycle.record_progress, job, 0.25, "a quarter")
        commit_progress(dataset.app, lifecycle.finish_succeeded, job, {})

    with run_in_background(go_on):
        result = invoke_cli(dataset.app, "watch", str(job.id), "--json")

    headers = {"Accept": "application/x-ndjson", "Last-Event-ID": "0"}
    streamed = dataset.admin.send("GET", f"/v1/jobs/{job.id}/progress", **headers).get_data(as_text=True)
    elements = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert elements == [json.loads(line) for line in streamed.splitlines()]
    assert {"seq": 2, "fraction": 0.25, "message": "a quarter", "state": "running"}.items() <= elements[-2].items()


@contextmanager
def disconnect_database(app: Flask) -> Iterator[None]:
    """Close every database connection and reject new ones."""
    url = app.config["DATABASE_URL"].replace("+psycopg", "").replace("/postgres?", "/template1?")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres'")
        try:
            yield
        finally:
            connection.execute("ALTER DATABASE postgres ALLOW_CONNECTIONS true")


def test_watch_waits_for_a_database_that_restarts(
    app: Flask, waits: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = start_attempt(app, enqueue_job(app))
    asked = threading.Event()
    monkeypatch.setattr("app.jobs.cli_watch.sleep", lambda _seconds: asked.set())

    def restart() -> None:
        waits()
        with disconnect_database(app):
            assert asked.wait(15)
        commit_progress(app, lifecycle.finish_succeeded, job, {})

    with run_in_background(restart):
        result = invoke_cli(app, "watch", str(job.id))

    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "1.00 succeeded")
    assert result.stderr == "the database does not answer; retrying\n"


def test_watch_fails_when_database_stays_down(
    app: Flask, waits: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = start_attempt(app, enqueue_job(app))
    monkeypatch.setattr("app.jobs.cli_watch.DATABASE_TIMEOUT_SECONDS", 0.5)
    given_up = threading.Event()

    def stay_away() -> None:
        waits()
        with disconnect_database(app):
            assert given_up.wait(30)

    with run_in_background(stay_away):
        result = invoke_cli(app, "watch", str(job.id))
        given_up.set()

    assert isinstance(result.exception, OperationalError)  # which manage.py makes one line and exit status 1


@contextmanager
def start_command(
    environment: dict[str, str], *arguments: str, output: int = subprocess.PIPE, **settings: str
) -> Iterator[subprocess.Popen[str]]:
    """Start `manage.py jobs` as a process; kill it at the end of the context."""
    with subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "jobs", *arguments],
        env={**os.environ, **environment, **settings},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=set_pdeathsig(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_lines_until(process: subprocess.Popen[str], last: str) -> list[str]:
    """Return the lines that a command has printed up to one that contains this text."""
    lines: list[str] = []
    assert process.stdout is not None
    while last not in lines:
        lines.append(next(process.stdout).rstrip("\n"))
    return lines


def test_exit_status_of_submit_is_outcome_of_job(
    processes: Processes, environment: dict[str, str], app: Flask, wait_until: WaitUntil
) -> None:
    missing = ["submit", "resize-image", "--param", "image=uploads/none.png", "--watch", "--json"]
    long = ["submit", "sleep", "--param", "seconds=600", "--watch"]
    short = ["submit", "sleep", "--param", "seconds=0.1", "--watch"]
    with start_command(environment, *missing) as failing, start_command(environment, *long) as ending:
        processes.start("relay")
        processes.start("worker", JOBS_QUEUE)

        good = invoke_cli(app, *short)
        assert ending.stdout is not None
        job_id = next(ending.stdout).strip()
        wait_until(lambda: get_job(app, UUID(job_id)).state == "running", 60)
        invoke_cli(app, "cancel", job_id)
        bad, canceled = (process.communicate(timeout=60) for process in (failing, ending))

    assert (good.exit_code, failing.returncode, ending.returncode) == (0, 1, 3)
    assert [text.splitlines()[-1] for text in (good.stdout, canceled[0])] == ["1.00 succeeded", "0.00 canceled"]
    job, *elements = [json.loads(line) for line in bad[0].splitlines()]
    assert (job["state"], elements[-1]["state"]) == ("queued", "failed")
    assert {good.stderr, bad[1], canceled[1]} <= {"", "no worker has started the job yet\n"}


def test_interrupted_watch_leaves_job_running(environment: dict[str, str], app: Flask) -> None:
    with start_command(environment, "submit", "sleep", "--param", "seconds=600", "--watch") as watching:
        job_id, *_ = read_lines_until(watching, "0.00 queued, 0 ahead")
        assert watching.stderr is not None
        assert next(watching.stderr) == "no worker has started the job yet\n"
        job = start_attempt(app, UUID(job_id))
        commit_progress(app, lifecycle.record_progress, job, 0.3, "a third")
        read_lines_until(watching, "0.30 a third")

        watching.send_signal(signal.SIGINT)
        _, stderr = watching.communicate(timeout=30)

    assert watching.returncode == 130
    assert stderr == f"0.30 a third; the job continues; `manage.py jobs watch {job_id}` watches it again\n"
    assert get_job(app, job.id).state == "running"


def test_closed_pipe_is_no_error(environment: dict[str, str], app: Flask) -> None:
    job = start_attempt(app, enqueue_job(app))
    with start_command(environment, "watch", str(job.id)) as watching:
        read_lines_until(watching, "0.00 running")
        assert watching.stdout is not None
        watching.stdout.close()
        commit_progress(app, lifecycle.finish_succeeded, job, {})

        assert watching.wait(30) == 1
        assert watching.stderr is not None
        assert watching.stderr.read() == ""


def test_a_terminal_gets_a_bar(environment: dict[str, str], app: Flask, wait_until: WaitUntil) -> None:
    job = start_attempt(app, enqueue_job(app))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    seen: list[str] = []

    def look() -> None:
        with suppress(OSError):  # EIO, when the other end of the terminal is closed
            while part := os.read(master, 65_536):
                seen.append(part.decode(errors="replace"))

    with start_command(environment, "watch", str(job.id), output=slave, TERM="xterm") as watching:
        os.close(slave)
        with run_in_background(look):
            wait_until(lambda: "running" in "".join(seen), 60)
            commit_progress(app, lifecycle.record_progress, job, 0.5, "half of it")
            wait_until(lambda: "half of it" in "".join(seen))
            commit_progress(app, lifecycle.finish_succeeded, job, {})
            assert watching.wait(30) == 0
    os.close(master)

    shown = "".join(seen)
    assert "━" in shown
    for text in (" 50%", "half of it", "100%", "succeeded"):
        assert text in shown
    assert shown.endswith("\x1b[?25h")  # the cursor is there again
