"""Commands of manage.py: output on stdout and stderr, and exit status."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest
from flask import Flask

import config
import manage
from app import embedded
from app.routes import list_routes
from tests.conftest import Processes

pytestmark = [pytest.mark.faults, pytest.mark.long]

ROOT = Path(__file__).resolve().parent.parent
Environment = dict[str, str]
CompletedCommand = subprocess.CompletedProcess[str]


def run_manage(environment: Mapping[str, str], *arguments: str, **settings: str) -> CompletedCommand:
    command = [sys.executable, str(ROOT / "manage.py"), *arguments]
    environ = {**os.environ, **environment, **settings}
    # From another directory: no command may depend on the current directory.
    return subprocess.run(command, env=environ, cwd="/", capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", ["run", "web", "worker", "relay", "status", "demo", "routes"])
def test_bad_settings_are_one_line_and_exit_status_2(environment: Environment, command: str) -> None:
    done = run_manage(environment, command, SECRET_KEY="hunter2")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "manage.py: SECRET_KEY must be at least 32 characters\n"


def test_production_without_its_settings_is_one_line_and_exit_status_2(environment: Environment) -> None:
    done = run_manage(environment, "web", APP_ENV="production", DATABASE_URL="", REDIS_URL="", MAIL_URL="")

    assert (done.returncode, done.stdout) == (2, "")
    needed = "PUBLIC_URL, DATABASE_URL, REDIS_URL, SECRET_KEY, JWT_KEYS, MAIL_URL"
    assert done.stderr == f"manage.py: production needs {needed}\n"


def test_files_of_the_server_are_closed_to_other_users_of_the_machine(
    environment: Environment, processes: Processes, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    before = os.umask(0o022)
    try:
        for name in ("mail", "files/jobs", "work"):
            (tmp_path / "var" / name).mkdir(parents=True)
        for name in ("mail/old.eml", "files/jobs/old.zip", "notes.txt", "owner.lock"):
            (tmp_path / "var" / name).write_text("private")
        started = [processes.start(command, VAR_DIR=str(tmp_path / "var")) for command in ("relay", "worker", "web")]
    finally:
        os.umask(before)

    wait_until(lambda: all("Umask:\t0077" in _read_status(process.pid) for process in started))
    wait_until(lambda: {_get_mode(path) for path in (tmp_path / "var").iterdir()} <= {0o600, 0o700})
    assert _get_mode(tmp_path / "var") == (0o711 if os.geteuid() == 0 else 0o700)
    for process in started:
        processes.stop(process)


def _read_status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def _get_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("command", [("demo",), ("run",), ("db", "upgrade")], ids=lambda command: command[0])
def test_a_database_that_is_down_is_a_hint_and_exit_status_1(
    environment: Environment, command: tuple[str, ...]
) -> None:
    done = run_manage(environment, *command, DATABASE_URL="postgresql://me:hunter2@127.0.0.1:1/events")

    assert done.returncode == 1
    assert done.stderr == "manage.py: the database does not answer; is it running, and is DATABASE_URL right?\n"
    assert "hunter2" not in done.stdout


def test_an_option_no_driver_knows_is_one_line_and_exit_status_2(environment: Environment) -> None:
    done = run_manage(environment, "db", "check", DATABASE_URL="postgresql://me:hunter2@127.0.0.1:1/events?bogus=1")

    assert (done.returncode, done.stderr) == (
        2,
        "manage.py: DATABASE_URL has an unknown option\n",
    )


def test_a_directory_nobody_can_write_is_one_line_and_exit_status_2(environment: Environment) -> None:
    keys = {"SECRET_KEY": "x" * 40, "JWT_KEYS": f"k={'A' * 43}", "DATABASE_URL": "", "REDIS_URL": ""}

    done = run_manage(environment, "run", VAR_DIR="/proc/nope", **keys)

    assert (done.returncode, done.stderr) == (
        2,
        "manage.py: VAR_DIR /proc/nope cannot be used: No such file or directory\n",
    )


@pytest.mark.parametrize("command", ["run", "web"])
def test_an_address_of_another_machine_is_one_line_at_once(
    environment: Environment, tmp_path: Path, command: str
) -> None:
    started = monotonic()
    done = run_manage(environment, command, VAR_DIR=str(tmp_path), HOST="192.0.2.1")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"manage.py: cannot listen on 192.0.2.1:{environment['PORT']} (Cannot assign requested address);"
        " set HOST or PORT to another one\n"
    )
    assert monotonic() - started < 10


def test_errors_of_a_serving_command_are_json_with_log_format_json(environment: Environment) -> None:
    done = run_manage(environment, "run", SECRET_KEY="hunter2", LOG_FORMAT="json")

    assert (done.returncode, done.stderr) == (2, "")
    error = json.loads(done.stdout)
    assert (error["component"], error["level"]) == ("run", "error")
    assert error["event"] == "SECRET_KEY must be at least 32 characters"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 150 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill_disk(disk: Path, free: int) -> None:
    """Fill the disk except for this many bytes."""
    with (disk / "filling").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - free)


@pytest.mark.parametrize("free", [50 * 2**20, 20 * 2**20, 4096, 0])
def test_a_new_database_on_a_full_disk_is_one_line_and_leaves_none(
    environment: Environment, small_disk: Path, free: int
) -> None:
    fill_disk(small_disk, free)

    done = run_manage(environment, "run", VAR_DIR=str(small_disk / "var"), DATABASE_URL="", REDIS_URL="")

    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert done.stderr.startswith(f"manage.py: {'the disk of ' if free > 8192 else ''}")
    assert re.search(r"the disk of VAR_DIR .* is full|No space left on device", done.stderr)
    assert done.stderr.count("\n") == 1
    assert not list(small_disk.glob("var/postgres*"))
    (small_disk / "filling").unlink()
    assert run_manage(environment, "status", VAR_DIR=str(small_disk / "var")).stderr == ""


def test_a_disk_that_fills_up_while_migrating_is_one_line(environment: Environment, small_disk: Path) -> None:
    server = embedded.Postgres(small_disk / "var")
    server.directory.parent.mkdir()
    with embedded.run_server(server):
        fill_disk(small_disk, 0)

        done = run_manage(environment, "db", "upgrade", DATABASE_URL=server.url)

    assert (done.returncode, done.stderr) == (1, "manage.py: the disk of the database is full\n")


def test_a_directory_on_a_disk_that_is_read_only_is_one_line(environment: Environment, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    done = run_manage(environment, "run", VAR_DIR=str(small_disk / "var"))

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"manage.py: VAR_DIR {small_disk}/var cannot be used: Read-only file system\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PORT=6000\nMAIL_FROM=m\xfcller@example.com\n", "{file} is not UTF-8 text"),
        (b"PORT=6000\nHOST 127.0.0.1\n", "{file}, line 2: must be NAME=value"),
        (b"HOST=127.0.0.1\nexport PORT\n", "{file}, line 2: must be NAME=value"),
        (b"PORT=\x006000\n", "{file} contains a NUL character"),
        (None, "{file} cannot be read: Is a directory"),
    ],
)
def test_an_env_file_that_cannot_be_used_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, message: str
) -> None:
    file = tmp_path / ".env"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    monkeypatch.setattr(manage, "ROOT", tmp_path)

    with pytest.raises(config.ConfigError) as refused:
        manage.read_environment()

    assert str(refused.value) == message.format(file=file)


def test_an_env_file_of_another_user_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as an ordinary user, because root may read every file."""
    file = tmp_path / ".env"
    file.touch(mode=0)
    monkeypatch.setattr(manage, "ROOT", tmp_path)
    with ExitStack() as stack:
        if os.geteuid() == 0:
            os.seteuid(65534)
            stack.callback(os.seteuid, 0)
        with pytest.raises(config.ConfigError, match="cannot be read: Permission denied"):
            manage.read_environment()


def test_a_database_nobody_has_migrated_is_one_line_and_exit_status_1(
    app: Flask, environment: Environment, servers: dict[str, str]
) -> None:
    with psycopg.connect(servers["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("CREATE DATABASE empty")
    empty = servers["DATABASE_URL"].replace("/postgres?", "/empty?")

    done = run_manage(environment, "demo", DATABASE_URL=empty)

    assert (done.returncode, done.stderr) == (
        1,
        "manage.py: the database has not been migrated; run `manage.py db upgrade`\n",
    )


def test_migrations_and_models_are_equal(app: Flask, environment: Environment) -> None:
    assert run_manage(environment, "db", "check").returncode == 0


def test_a_missing_migration_fails_the_check(app: Flask, environment: Environment) -> None:
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        connection.execute("ALTER TABLE faqs ALTER position DROP DEFAULT")
    try:
        assert run_manage(environment, "db", "check").returncode == 1
    finally:
        with psycopg.connect(environment["DATABASE_URL"]) as connection:
            connection.execute("ALTER TABLE faqs ALTER position SET DEFAULT 0")


def test_the_way_down_leaves_nothing_and_the_way_up_works_again(app: Flask, environment: Environment) -> None:
    with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("CREATE DATABASE down_and_up")
    url = environment["DATABASE_URL"].replace("/postgres?", "/down_and_up?")

    for way in ("upgrade", "downgrade", "upgrade"):
        arguments = ["base"] if way == "downgrade" else []
        assert run_manage(environment, "db", way, *arguments, DATABASE_URL=url).returncode == 0
        with psycopg.connect(url) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert (tables == [("alembic_version",)]) == (way == "downgrade")


def test_sample_data_is_made_once(app: Flask, environment: Environment) -> None:
    first, second = run_manage(environment, "demo"), run_manage(environment, "demo")

    assert first.stdout.startswith("demo: log in as organizer@example.com with the password ")
    assert second.stdout == "demo: the sample data is there already, with the login organizer@example.com\n"
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        states = connection.execute("SELECT state FROM events ORDER BY state").fetchall()
        assert states == [("draft",), ("published",)]
        assert connection.execute("SELECT count(*) FROM faqs WHERE faq_type_id IS NOT NULL").fetchone() == (8,)


def test_status_fails_when_nothing_runs(environment: Environment, tmp_path: Path) -> None:
    done = run_manage(
        environment, "status", "--json", VAR_DIR=str(tmp_path), DATABASE_URL="postgresql://me:hunter2@db/x"
    )

    assert done.returncode == 1
    status = json.loads(done.stdout)
    assert status["web"] is None
    assert status["database_url"] == "postgresql+psycopg://me@db/x"


def test_web_says_in_one_line_that_its_port_is_in_use(environment: Environment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        done = run_manage(environment, "web", PORT=str(port))

    assert done.returncode == 1
    assert done.stderr.startswith(f"manage.py: cannot listen on 127.0.0.1:{port} (Address already in use)")


def test_web_ends_at_once_while_it_is_starting(processes: Processes, wait_until: Callable[..., Any]) -> None:
    web = processes.start("web")
    wait_until(lambda: "listening" in processes.log("web").read_text(), 30)
    started = monotonic()

    assert processes.stop(web) == 0

    assert monotonic() - started < 5
    assert "refused" not in processes.log("web").read_text()


def test_every_route_is_listed_with_its_methods(app: Flask) -> None:
    routes = {route["path"]: route for route in list_routes(app)}

    assert routes["/v1/faqs/<id>"]["methods"] == ["DELETE", "GET", "PATCH"]
    assert routes["/v1/users"]["permissions"]["GET"] == "admin"


def test_a_view_without_a_permission_shows(app: Flask) -> None:
    bare = Flask("bare")
    bare.add_url_rule("/open", view_func=lambda: "")

    assert [route["permissions"] for route in list_routes(bare) if route["path"] == "/open"] == [{"GET": "none"}]


def test_wsgi_servers_and_celery_find_their_apps(environment: Environment) -> None:
    find = "import manage; print(manage.app.name, manage.celery.main)"
    environ = {**os.environ, **environment}

    done = subprocess.run(
        [sys.executable, "-c", find], env=environ, cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == "app open-event"


def test_the_environment_goes_before_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PORT=6000\nHOST=127.0.0.2\n")
    monkeypatch.setattr(manage, "ROOT", tmp_path)
    monkeypatch.setenv("PORT", "7000")
    monkeypatch.delenv("HOST", raising=False)

    environ = manage.read_environment()

    assert (environ["PORT"], environ["HOST"]) == ("7000", "127.0.0.2")
