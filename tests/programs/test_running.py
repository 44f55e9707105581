"""Programs are run: what they get, what they say, how they end."""

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
from app.jobs import lifecycle, running, submission
from app.programs import child
from app.programs.lines import MOST_STDERR
from app.programs.listening import MOST_WARNINGS, NO_MORE
from tests.programs.conftest import PYTHON, Done, Programs, events, marked, output, ran, start
from tests.world import World, data

pytestmark = pytest.mark.faults

TELL = f"""{PYTHON}
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

SECRETIVE = {
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


def test_arguments_come_in_order_and_the_file_comes_last(world: World, done: Done) -> None:
    job = done(TELL, {"arguments": ["x-", "", "a b", "ü\n$HOME"]})

    told = orjson.loads(output(world, job["id"]))
    *arguments, last = told["argv"]
    assert arguments == ["x-", "", "a b", "ü\n$HOME"]
    assert Path(last).parent == Path(told["cwd"])
    assert told["empty"]


def test_it_has_a_closed_environment_and_a_directory_of_its_own(world: World, done: Done) -> None:
    os.environ["NOT_FOR_PROGRAMS"] = "1"
    try:
        told = orjson.loads(output(world, done(TELL)["id"]))
    finally:
        del os.environ["NOT_FOR_PROGRAMS"]

    assert told["environment"].pop("PATH").startswith("/usr/local/sbin:")
    told["environment"].pop("LC_CTYPE", None)  # Python's own
    # The last one is the shell's, with which the script begins.
    assert told["environment"] == {"LANG": "C.UTF-8", **dict.fromkeys(("HOME", "TMPDIR", "PWD"), told["cwd"])}
    assert (told["stdin"], told["leads"], told["core"], told["mode"]) == ("", True, 0, 0o700)
    assert told["files"] <= 1024
    assert set(told["descriptors"]) <= {"0", "1", "2", "3"}


def test_parameters_become_arguments_and_variables_as_its_file_says(world: World, done: Done) -> None:
    said = {
        "parameters": SECRETIVE,
        "arguments": ["loud", "sizes", "scale", "name"],
        "environment": {"API_TOKEN": "token", "NAME": "name", "LOUD": "loud"},
        "media_type": "application/json",
    }

    full = done(TELL, {"name": "n", "sizes": [1, 2], "scale": 0.5, "loud": True, "token": "s3cr3t"}, **said)
    sparse = done(TELL, {"name": "m"}, **said)

    told = orjson.loads(output(world, full["id"]))
    assert told["argv"][:-1] == ["true", "1", "2", "0.5", "n"]
    assert {name: told["environment"][name] for name in ("API_TOKEN", "NAME", "LOUD")} == {
        "API_TOKEN": "s3cr3t",
        "NAME": "n",
        "LOUD": "true",
    }
    told = orjson.loads(output(world, sparse["id"]))
    assert told["argv"][:-1] == ["m"]
    assert "API_TOKEN" not in told["environment"]


def test_after_a_separator_no_value_is_an_option(world: World, done: Done) -> None:
    job = done(TELL, {"arguments": ["-x", "--output=/etc/cron.d/x"]}, separator=True)

    *arguments, _last = orjson.loads(output(world, job["id"]))["argv"]
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
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with TemporaryDirectory() as name:  # pytest's own directories are closed to other users
        place = Path(name)
        place.chmod(0o711)
        programs = Programs(place / "programs")
        programs.directory.chmod(0o755)
        kind = programs.add("tried", READ_SECRETS)
        (programs.directory / "tried").chmod(0o755)
        var = place / "var"
        var.mkdir(mode=0o711)
        secret = var / "secret-key"
        secret.touch(mode=0o600)
        secret.write_text("hunter2")
        monkeypatch.setitem(world.app.config, "JOB_PROGRAMS_DIR", programs.directory)
        monkeypatch.setitem(world.app.config, "VAR_DIR", var)
        monkeypatch.setitem(world.app.config, "PROGRAM_USER", "nobody")

        job = ran(world, kind, {"arguments": [str(secret)]})

        said = output(world, job["id"]).decode()
    nobody = getpwnam("nobody")
    assert said.splitlines()[:2] == [str(nobody.pw_uid), str(nobody.pw_gid)], said
    assert "hunter2" not in said
    assert said.count("Permission denied") == 3, said


def test_what_it_wrote_is_published(world: World, done: Done) -> None:
    job = done("printf abc > $1", media_type="text/plain")

    assert (job["state"], job["progress"]) == ("succeeded", 1.0)
    assert job["result"] == {"artifact": "output", "size": 3}
    assert output(world, job["id"]) == b"abc"


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
def test_without_a_file_it_fails_however_well_it_ended(done: Done, script: str) -> None:
    job = done(f"echo why >&2; {script}")

    assert job["state"] == "failed"
    assert job["error"] == {
        "code": "no-output",
        "detail": "The program has ended well, but has written nothing.",
        "stderr": "why\n",
    }


def test_a_status_is_told_with_the_end_of_stderr(world: World, done: Done) -> None:
    job = done(f"{PYTHON}import sys\nsys.stderr.write('x' * 100_000 + 'the end')\nsys.exit(3)")

    assert (job["state"], job["error"]["code"], job["error"]["returncode"]) == ("failed", "exit-status", 3)
    assert job["error"]["detail"] == "The program ended with status 3."
    assert len(job["error"]["stderr"]) == MOST_STDERR
    assert job["error"]["stderr"].endswith("xxthe end")


def test_what_cannot_be_stored_is_left_out_of_stderr(done: Done) -> None:
    job = done(r"printf 'a\000b\377c\033[1m\n' >&2; printf '0.5\ta\000b\377\n'; exit 1")

    assert job["error"]["stderr"] == "ab\ufffdc[1m\n"


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
def test_a_signal_is_told_by_its_name(done: Done, name: str) -> None:
    job = done(f"echo oh >&2; kill -{name.removeprefix('SIG')} $$")

    error = job["error"]
    assert (error["code"], error["signal"], error["stderr"]) == ("signal", name, "oh\n")
    assert error["returncode"] < 0


def test_a_file_that_grows_beyond_the_limit_ends_it(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(child.LIMITS, "RLIMIT_FSIZE", 2**20)

    job = done('exec head -c 2000000 /dev/zero > "$1"')

    assert (job["error"]["code"], job["error"]["signal"]) == ("signal", "SIGXFSZ")


def test_a_job_whose_program_takes_other_parameters_by_now_says_so(world: World, programs: Programs) -> None:
    job = start(world.admin, programs.add("tried", "true"), arguments=["a"])
    programs.say("tried", orjson.dumps({"parameters": {"properties": {"name": {"type": "string"}}}}))

    with world.app.app_context():
        running.run(UUID(job["id"]), "tests")

    error = data(world.admin.get(f"/v1/jobs/{job['id']}"))["attributes"]["error"]
    assert error == {"code": "invalid-parameters", "detail": "The program takes other parameters now."}


@pytest.mark.parametrize("script", ["#!/no/such/interpreter\n", "#!/etc/passwd\n"])
def test_a_program_without_interpreter_is_not_executable(done: Done, script: str) -> None:
    assert done(script)["error"]["code"] == "not-executable"


def test_a_program_without_first_line_is_not_executable(world: World, programs: Programs) -> None:
    kind = programs.add("tried", "true")
    (programs.directory / "tried").write_text("echo\n")

    assert ran(world, kind)["error"]["code"] == "not-executable"


def test_a_machine_that_starts_nothing_more_says_so_and_nothing_is_left_open(
    done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **_more: Any) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("app.programs.child.subprocess.Popen", refuse)
    before = pipes()

    job = done("true")

    assert job["error"] == {"code": "cannot-start", "detail": "The program cannot be started: Cannot allocate memory."}
    assert pipes() == before


def pipes() -> set[str]:
    """Those that this process has open."""
    opened = {os.readlink(each.path) for each in os.scandir("/proc/self/fd") if os.path.lexists(each.path)}
    return {each for each in opened if each.startswith("pipe:")}


def test_more_arguments_than_the_system_takes_are_too_long(world: World, programs: Programs) -> None:
    said = {"type": "object", "properties": {"a": {"type": "array"}, "b": {"type": "array"}}}
    kind = programs.add("tried", "true", parameters=said, arguments=["a", "b"], environment={"A": "a"})
    with world.app.app_context():
        # From a command: what the API takes of one resource is never too long.
        with db.session.begin():
            job = submission.submit(kind, {"a": [""] * 170_000}, trigger="cli", owner_id=None).job
        running.run(job.id, "tests")

    ended = data(world.admin.get(f"/v1/jobs/{job.id}"))["attributes"]

    assert ended["error"]["code"] == "arguments-too-long"


def test_progress_is_told_as_it_is_said(world: World, done: Done) -> None:
    script = r"""
    printf '0.25\n'; sleep 0.6
    printf '0.5\thalf\n'; sleep 0.6
    printf '{"progress": 0.75, "message": "more", "other": 1}\n'; sleep 0.6
    printf '0.1\tback\n'; sleep 0.6
    printf '0.9\tlast'; echo x > $1"""

    job = done(script)

    told = [(each["fraction"], each["message"]) for each in events(world, job["id"])]
    assert [one for one in told if one[0] not in (None, 1.0)] == [
        (0.25, None),
        (0.5, "half"),
        (0.75, "more"),
        (0.75, "back"),
        (0.9, "last"),
    ]
    assert (job["message"], job["progress"]) == ("last", 1.0)
    assert events(world, job["id"], "warning") == []


def test_what_was_said_too_soon_is_told_a_moment_later(world: World, done: Done) -> None:
    job = done("echo 0.1; sleep 0.2; echo 0.2; echo 0.3; sleep 1; echo x > $1")

    told = [each["fraction"] for each in events(world, job["id"])]
    assert 0.3 in told
    assert 0.2 not in told


def test_what_is_not_understood_is_a_warning_and_only_some_are_kept(world: World, done: Done) -> None:
    job = done(f"{PYTHON}import sys\nfor n in range(500): print('what', n)\nopen(sys.argv[1], 'w').write('x')")

    said = [each["message"] for each in events(world, job["id"], "warning")]
    assert job["state"] == "succeeded"
    assert said == [*(f"Not understood: what {number}" for number in range(MOST_WARNINGS)), NO_MORE]


def test_a_database_that_is_away_for_a_moment_ends_no_program_and_loses_no_word(
    world: World, done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = [OperationalError("", None, Exception())] * 3
    report, heard = lifecycle.report, tmp_path / "heard"

    def heard_later(job: Any, fraction: float | None, message: str | None, level: str) -> Any:
        if away:
            raise away.pop()
        if fraction is not None:
            heard.touch()
        return report(job, fraction, message, level)

    monkeypatch.setattr(lifecycle, "report", heard_later)
    script = r"""echo what; printf '0.5\thalf\n'; while [ ! -e "$1" ]; do sleep 0.05; done; echo x > "$2" """

    job = done(script, {"arguments": [str(heard)]}, time_limit=30)

    assert (job["state"], away) == ("succeeded", [])
    assert [each["message"] for each in events(world, job["id"], "warning")] == ["Not understood: what"]
    assert (0.5, "half") in [(each["fraction"], each["message"]) for each in events(world, job["id"])]


def test_a_program_that_ends_before_its_children_does_not_hang(done: Done) -> None:
    mark = f"9{os.getpid()}.5"
    job = done(f"sleep {mark} & setsid sleep {mark} & echo x > $1")

    assert job["state"] == "succeeded"
    assert marked(mark) == []


def test_a_program_that_is_out_of_time_is_ended_with_all_it_has_started(done: Done) -> None:
    mark = f"9{os.getpid()}.75"
    asleep = f"trap '' TERM; sleep {mark}; true"
    forks = f'trap "" TERM; setsid sh -c "{asleep}" & sh -c "{asleep}" & echo late >&2; {asleep}'

    job = done(forks, time_limit=1)

    assert (job["state"], job["error"]["code"]) == ("failed", "timed-out")
    assert job["error"]["stderr"].startswith("late\n")
    assert marked(mark) == []


def test_a_program_that_listens_to_sigterm_ends_at_once(done: Done) -> None:
    job = done("trap 'echo tidied >&2; exit 0' TERM; sleep 60 & wait", time_limit=1)

    assert job["error"]["code"] == "timed-out"


@pytest.mark.parametrize("stream", ["stdout", "stderr", "both"])
def test_a_flood_neither_blocks_nor_is_kept(
    world: World, done: Done, figure: Callable[[str], None], stream: str
) -> None:
    streams = {"stdout": ["1"], "stderr": ["2"], "both": ["1", "2"]}[stream]
    script = f"{PYTHON}import os, sys\npiece = b'0.5\\n' * 16384\nfor _ in range({2**30 // 2**16}):\n"
    script += "".join(f"    os.write({number}, piece)\n" for number in streams)
    script += "open(sys.argv[1], 'w').write('x')\n"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = monotonic()

    job = done(script)

    took = monotonic() - begun
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    assert job["state"] == "succeeded"
    kept = len(events(world, job["id"]))
    figure(f"flood of 1 GiB on {stream}: {took:.1f} s, peak {more:+.1f} MiB, {kept} events")
    assert kept < 100
    assert more < 50
    assert took < 60


def test_secrets_are_nowhere_to_be_seen(world: World, done: Done, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "s3cr3t-of-the-test"
    script = (
        'printf "0.5\\tmy token is $API_TOKEN\\n"; echo "what $API_TOKEN"; echo "oh $API_TOKEN" >&2; '
        "tr '\\0' ' ' < /proc/$$/cmdline >&2; exit 1"
    )
    capsys.readouterr()

    job = done(script, {"name": "n", "token": secret}, parameters=SECRETIVE, environment={"API_TOKEN": "token"})

    assert job["parameters"] == {"name": "n"}
    assert job["error"]["stderr"].startswith("oh [hidden]\n")
    shown = [str(job), str(events(world, job["id"])), capsys.readouterr().out]
    assert "my token is [hidden]" in shown[1]
    assert "Not understood: what [hidden]" in shown[1]
    assert not [where for where in shown if secret in where]
