"""Execution of programs: arguments, environment, output, progress and errors."""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from pwd import getpwnam
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy.exc import OperationalError

from app.extensions import db
from app.jobs import executor, lifecycle, submission
from app.programs import process
from app.programs.line_buffer import MAX_STDERR_BYTES
from app.programs.output_reader import MAX_WARNINGS, WARNINGS_OMITTED
from tests.dataset import Dataset, get_data
from tests.programs.conftest import (
    PYTHON,
    ProgramDirectory,
    RunProgram,
    enqueue_job,
    execute_job,
    find_marked_processes,
    list_events,
    read_output,
)

pytestmark = pytest.mark.faults

REPORT_SCRIPT = f"""{PYTHON}
import json, os, resource, stat, sys
found = {{"argv": sys.argv[1:], "cwd": os.getcwd(), "environment": dict(os.environ)}}
found["empty"] = os.stat(sys.argv[-1]).st_size == 0
found["stdin"] = sys.stdin.read()
found["leads"] = os.getsid(0) == os.getpid() == os.getpgrp()
found["core"] = resource.getrlimit(resource.RLIMIT_CORE)[0]
found["files"] = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
found["descriptors"] = sorted(os.listdir("/proc/self/fd"))
found["mode"] = stat.S_IMODE(os.stat(".").st_mode)
open(sys.argv[-1], "w").write(json.dumps(found))
"""

SECRET_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "sizes": {"type": "array", "items": {"type": "integer"}},
        "scale": {"type": "number"},
        "loud": {"type": "boolean"},
        "token": {"type": "string", "writeOnly": True},
    },
    "required": ["name"],
}


def test_arguments_come_in_order_and_the_file_comes_last(dataset: Dataset, run_program: RunProgram) -> None:
    job = run_program(REPORT_SCRIPT, {"arguments": ["x-", "", "a b", "ü\n$HOME"]})

    report = orjson.loads(read_output(dataset, job["id"]))
    *arguments, last = report["argv"]
    assert arguments == ["x-", "", "a b", "ü\n$HOME"]
    assert Path(last).parent == Path(report["cwd"])
    assert report["empty"]


def test_program_has_clean_environment_and_own_directory(dataset: Dataset, run_program: RunProgram) -> None:
    os.environ["NOT_FOR_PROGRAMS"] = "1"
    try:
        report = orjson.loads(read_output(dataset, run_program(REPORT_SCRIPT)["id"]))
    finally:
        del os.environ["NOT_FOR_PROGRAMS"]

    assert report["environment"].pop("PATH").startswith("/usr/local/sbin:")
    report["environment"].pop("LC_CTYPE", None)  # Python's own
    # The last one is the shell's, with which the script begins.
    assert report["environment"] == {"LANG": "C.UTF-8", **dict.fromkeys(("HOME", "TMPDIR", "PWD"), report["cwd"])}
    assert (report["stdin"], report["leads"], report["core"], report["mode"]) == ("", True, 0, 0o700)
    assert report["files"] <= 1024
    assert set(report["descriptors"]) <= {"0", "1", "2", "3"}


def test_parameters_become_declared_arguments_and_variables(dataset: Dataset, run_program: RunProgram) -> None:
    members = {
        "parameters": SECRET_SCHEMA,
        "arguments": ["loud", "sizes", "scale", "name"],
        "environment": {"API_TOKEN": "token", "NAME": "name", "LOUD": "loud"},
        "media_type": "application/json",
    }

    full = run_program(
        REPORT_SCRIPT, {"name": "n", "sizes": [1, 2], "scale": 0.5, "loud": True, "token": "s3cr3t"}, **members
    )
    sparse = run_program(REPORT_SCRIPT, {"name": "m"}, **members)

    report = orjson.loads(read_output(dataset, full["id"]))
    assert report["argv"][:-1] == ["true", "1", "2", "0.5", "n"]
    assert {name: report["environment"][name] for name in ("API_TOKEN", "NAME", "LOUD")} == {
        "API_TOKEN": "s3cr3t",
        "NAME": "n",
        "LOUD": "true",
    }
    report = orjson.loads(read_output(dataset, sparse["id"]))
    assert report["argv"][:-1] == ["m"]
    assert "API_TOKEN" not in report["environment"]


def test_after_a_separator_no_value_is_an_option(dataset: Dataset, run_program: RunProgram) -> None:
    job = run_program(REPORT_SCRIPT, {"arguments": ["-x", "--output=/etc/cron.d/x"]}, separator=True)

    *arguments, _last = orjson.loads(read_output(dataset, job["id"]))["argv"]
    assert arguments == ["--", "-x", "--output=/etc/cron.d/x"]


READ_SECRETS = """
for output in "$@"; do :; done
exec >"$output" 2>&1
id -u
id -G
ls "$(dirname "$(dirname "$output")")"
cat "$1"
cat /proc/$PPID/environ
exit 0
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a program as another user")
def test_a_program_runs_as_its_own_user_and_reads_no_secret(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with TemporaryDirectory() as name:  # pytest's own directories are closed to other users
        place = Path(name)
        place.chmod(0o711)
        programs = ProgramDirectory(place / "programs")
        programs.directory.chmod(0o755)
        kind = programs.add_program("tried", READ_SECRETS)
        (programs.directory / "tried").chmod(0o755)
        var = place / "var"
        var.mkdir(mode=0o711)
        secret = var / "secret-key"
        secret.touch(mode=0o600)
        secret.write_text("hunter2")
        monkeypatch.setitem(dataset.app.config, "JOB_PROGRAMS_DIR", programs.directory)
        monkeypatch.setitem(dataset.app.config, "VAR_DIR", var)
        monkeypatch.setitem(dataset.app.config, "PROGRAM_USER", "nobody")

        job = execute_job(dataset, kind, {"arguments": [str(secret)]})

        output = read_output(dataset, job["id"]).decode()
    user = getpwnam("nobody")
    assert output.splitlines()[:2] == [str(user.pw_uid), str(user.pw_gid)], output
    assert "hunter2" not in output
    assert output.count("Permission denied") == 3, output


def test_program_output_is_published(dataset: Dataset, run_program: RunProgram) -> None:
    job = run_program("printf abc > $1", media_type="text/plain")

    assert (job["state"], job["progress"]) == ("succeeded", 1.0)
    assert job["result"] == {"artifact": "output", "size": 3}
    assert read_output(dataset, job["id"]) == b"abc"


@pytest.mark.parametrize(
    "script",
    [
        "true",
        'rm "$1"',
        'ln -sf /etc/passwd "$1"',
        'rm "$1"; mkfifo "$1"',
        'rm "$1"; mkdir "$1"',
        'cd /; rm -r "$HOME"',
    ],
)
def test_program_without_output_fails_with_no_output(run_program: RunProgram, script: str) -> None:
    job = run_program(f"echo why >&2; {script}")

    assert job["state"] == "failed"
    assert job["error"] == {
        "code": "no-output",
        "detail": "The program exited with status 0 but wrote no output file.",
        "stderr": "why\n",
    }


def test_nonzero_exit_status_is_reported_with_end_of_stderr(dataset: Dataset, run_program: RunProgram) -> None:
    job = run_program(f"{PYTHON}import sys\nsys.stderr.write('x' * 100_000 + 'the end')\nsys.exit(3)")

    assert (job["state"], job["error"]["code"], job["error"]["returncode"]) == ("failed", "exit-status", 3)
    assert job["error"]["detail"] == "The program exited with status 3."
    assert len(job["error"]["stderr"]) == MAX_STDERR_BYTES
    assert job["error"]["stderr"].endswith("xxthe end")


def test_stderr_control_characters_are_removed(run_program: RunProgram) -> None:
    job = run_program(r"printf 'a\000b\377c\033[1m\n' >&2; printf '0.5\ta\000b\377\n'; exit 1")

    assert job["error"]["stderr"] == "ab\ufffdc[1m\n"


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
def test_signal_is_reported_by_name(run_program: RunProgram, name: str) -> None:
    job = run_program(f"echo oh >&2; kill -{name.removeprefix('SIG')} $$")

    error = job["error"]
    assert (error["code"], error["signal"], error["stderr"]) == ("signal", name, "oh\n")
    assert error["returncode"] < 0


def test_output_beyond_file_size_limit_ends_program(run_program: RunProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(process.RESOURCE_LIMITS, "RLIMIT_FSIZE", 2**20)

    job = run_program('exec head -c 2000000 /dev/zero > "$1"')

    assert (job["error"]["code"], job["error"]["signal"]) == ("signal", "SIGXFSZ")


def test_job_fails_when_parameters_of_program_have_changed(dataset: Dataset, programs: ProgramDirectory) -> None:
    job = enqueue_job(dataset.admin, programs.add_program("tried", "true"), arguments=["a"])
    programs.write_manifest("tried", orjson.dumps({"parameters": {"properties": {"name": {"type": "string"}}}}))

    with dataset.app.app_context():
        executor.run_job(UUID(job["id"]), "tests")

    error = get_data(dataset.admin.get(f"/v1/jobs/{job['id']}"))["attributes"]["error"]
    assert error == {"code": "invalid-parameters", "detail": "The parameters of the program have changed."}


@pytest.mark.parametrize("script", ["#!/no/such/interpreter\n", "#!/etc/passwd\n"])
def test_a_program_without_interpreter_is_not_executable(run_program: RunProgram, script: str) -> None:
    assert run_program(script)["error"]["code"] == "not-executable"


def test_a_program_without_first_line_is_not_executable(dataset: Dataset, programs: ProgramDirectory) -> None:
    kind = programs.add_program("tried", "true")
    (programs.directory / "tried").write_text("echo\n")

    assert execute_job(dataset, kind)["error"]["code"] == "not-executable"


def test_failed_fork_is_reported_and_leaves_no_open_pipe(
    run_program: RunProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **_more: Any) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("app.programs.process.subprocess.Popen", refuse)
    before = list_open_pipes()

    job = run_program("true")

    assert job["error"] == {"code": "cannot-start", "detail": "The program cannot be started: Cannot allocate memory."}
    assert list_open_pipes() == before


def list_open_pipes() -> set[str]:
    """Return the pipes that this process has open."""
    opened = {os.readlink(each.path) for each in os.scandir("/proc/self/fd") if os.path.lexists(each.path)}
    return {each for each in opened if each.startswith("pipe:")}


def test_more_arguments_than_the_system_takes_are_too_long(dataset: Dataset, programs: ProgramDirectory) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array"}, "b": {"type": "array"}}}
    kind = programs.add_program("tried", "true", parameters=schema, arguments=["a", "b"], environment={"A": "a"})
    with dataset.app.app_context():
        # Submitted by command: the API limits a resource to less than this.
        with db.session.begin():
            job = submission.submit_job(kind, {"a": [""] * 170_000}, trigger="cli", owner_id=None).job
        executor.run_job(job.id, "tests")

    ended = get_data(dataset.admin.get(f"/v1/jobs/{job.id}"))["attributes"]

    assert ended["error"]["code"] == "arguments-too-long"


def test_progress_lines_become_events(dataset: Dataset, run_program: RunProgram) -> None:
    script = r"""
    printf '0.25\n'; sleep 0.6
    printf '0.5\thalf\n'; sleep 0.6
    printf '{"progress": 0.75, "message": "more", "other": 1}\n'; sleep 0.6
    printf '0.1\tback\n'; sleep 0.6
    printf '0.9\tlast'; echo x > $1"""

    job = run_program(script)

    progress = [(each["fraction"], each["message"]) for each in list_events(dataset, job["id"])]
    assert [one for one in progress if one[0] not in (None, 1.0)] == [
        (0.25, None),
        (0.5, "half"),
        (0.75, "more"),
        (0.75, "back"),
        (0.9, "last"),
    ]
    assert (job["message"], job["progress"]) == ("last", 1.0)
    assert list_events(dataset, job["id"], "warning") == []


def test_rapid_progress_is_coalesced(dataset: Dataset, run_program: RunProgram) -> None:
    job = run_program("echo 0.1; sleep 0.2; echo 0.2; echo 0.3; sleep 1; echo x > $1")

    fractions = [each["fraction"] for each in list_events(dataset, job["id"])]
    assert 0.3 in fractions
    assert 0.2 not in fractions


def test_unparsable_lines_become_limited_warnings(dataset: Dataset, run_program: RunProgram) -> None:
    job = run_program(f"{PYTHON}import sys\nfor n in range(500): print('what', n)\nopen(sys.argv[1], 'w').write('x')")

    messages = [each["message"] for each in list_events(dataset, job["id"], "warning")]
    assert job["state"] == "succeeded"
    assert messages == [*(f"Cannot parse: what {number}" for number in range(MAX_WARNINGS)), WARNINGS_OMITTED]


def test_short_database_outage_keeps_program_and_messages(
    dataset: Dataset, run_program: RunProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = [OperationalError("", None, Exception())] * 3
    report, stored = lifecycle.record_progress, tmp_path / "stored"

    def record_progress_later(job: Any, fraction: float | None, message: str | None, level: str) -> Any:
        if away:
            raise away.pop()
        if fraction is not None:
            stored.touch()
        return report(job, fraction, message, level)

    monkeypatch.setattr(lifecycle, "record_progress", record_progress_later)
    script = r"""echo what; printf '0.5\thalf\n'; while [ ! -e "$1" ]; do sleep 0.05; done; echo x > "$2" """

    job = run_program(script, {"arguments": [str(stored)]}, time_limit=30)

    assert (job["state"], away) == ("succeeded", [])
    assert [each["message"] for each in list_events(dataset, job["id"], "warning")] == ["Cannot parse: what"]
    assert (0.5, "half") in [(each["fraction"], each["message"]) for each in list_events(dataset, job["id"])]


def test_a_program_that_ends_before_its_children_does_not_hang(run_program: RunProgram) -> None:
    mark = f"9{os.getpid()}.5"
    job = run_program(f"sleep {mark} & setsid sleep {mark} & echo x > $1")

    assert job["state"] == "succeeded"
    assert find_marked_processes(mark) == []


def test_program_beyond_time_limit_is_killed_with_descendants(run_program: RunProgram) -> None:
    mark = f"9{os.getpid()}.75"
    asleep = f"trap '' TERM; sleep {mark}; true"
    forks = f'trap "" TERM; setsid sh -c "{asleep}" & sh -c "{asleep}" & echo late >&2; {asleep}'

    job = run_program(forks, time_limit=1)

    assert (job["state"], job["error"]["code"]) == ("failed", "timed-out")
    assert job["error"]["stderr"].startswith("late\n")
    assert find_marked_processes(mark) == []


def test_program_that_handles_sigterm_ends_at_once(run_program: RunProgram) -> None:
    job = run_program("trap 'echo tidied >&2; exit 0' TERM; sleep 60 & wait", time_limit=1)

    assert job["error"]["code"] == "timed-out"


@pytest.mark.parametrize("stream", ["stdout", "stderr", "both"])
def test_flood_of_output_neither_blocks_nor_is_stored(
    dataset: Dataset, run_program: RunProgram, figure: Callable[[str], None], stream: str
) -> None:
    streams = {"stdout": ["1"], "stderr": ["2"], "both": ["1", "2"]}[stream]
    script = f"{PYTHON}import os, sys\npiece = b'0.5\\n' * 16384\nfor _ in range({2**30 // 2**16}):\n"
    script += "".join(f"    os.write({number}, piece)\n" for number in streams)
    script += "open(sys.argv[1], 'w').write('x')\n"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = monotonic()

    job = run_program(script)

    took = monotonic() - begun
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    assert job["state"] == "succeeded"
    kept = len(list_events(dataset, job["id"]))
    figure(f"flood of 1 GiB on {stream}: {took:.1f} s, peak {more:+.1f} MiB, {kept} events")
    assert kept < 100
    assert more < 50
    assert took < 60


def test_secrets_are_redacted_everywhere(
    dataset: Dataset, run_program: RunProgram, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "s3cr3t-of-the-test"
    script = (
        'printf "0.5\\tmy token is $API_TOKEN\\n"; echo "what $API_TOKEN"; echo "oh $API_TOKEN" >&2; '
        "tr '\\0' ' ' < /proc/$$/cmdline >&2; exit 1"
    )
    capsys.readouterr()

    job = run_program(
        script, {"name": "n", "token": secret}, parameters=SECRET_SCHEMA, environment={"API_TOKEN": "token"}
    )

    assert job["parameters"] == {"name": "n"}
    assert job["error"]["stderr"].startswith("oh [hidden]\n")
    shown = [str(job), str(list_events(dataset, job["id"])), capsys.readouterr().out]
    assert "my token is [hidden]" in shown[1]
    assert "Cannot parse: what [hidden]" in shown[1]
    assert not [where for where in shown if secret in where]
