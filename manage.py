"""Start here: the WSGI app, the Celery app and every command.

What the app is made of is imported by the commands that need it: `run`, which stays for as long as the server does, and
`status` start four times faster and smaller without it.
"""

import gc
import importlib
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from dotenv import dotenv_values
from dotenv.parser import parse_stream
from psycopg import OperationalError as DriverError

import config
from app import embedded, supervisor
from app.console import Console
from app.processes import bind_address, demo_login, embedded_runtime, var_dir, worker_nodes

if TYPE_CHECKING:
    from flask import Flask

ROOT = Path(__file__).resolve().parent

COMMAND_GROUPS = {"db": "flask_migrate.cli:db", "jobs": "app.jobs.cli:jobs_cli", "users": "app.users.cli:users_cli"}
"""Groups of commands that live elsewhere."""

SERVING_COMMANDS = ("run", "web", "worker", "relay", "prepare")
"""Commands whose output is a log: with LOG_FORMAT=json their errors are JSON too."""

PRIVATE_UMASK = 0o077
"""Mails, archives and images are for the user of the server alone, not for other users of the machine."""

UNDEFINED_TABLE = "42P01"
DISK_FULL = "53100"

OPERATOR_ERRORS = {
    config.ConfigError: 2,
    embedded_runtime.EmbeddedError: 1,
    supervisor.StartupError: 1,
    var_dir.VarDirLocked: 1,
    var_dir.VarDirNotWritable: 2,
    var_dir.DiskFull: 1,
    bind_address.PortInUse: 1,
}
"""What an operator can mend is one line on stderr and this exit status, never a traceback."""


def read_environment() -> dict[str, str]:
    """The environment, completed from `.env`; raises ConfigError where that file cannot be used."""
    found = dotenv_values(stream=io.StringIO(_read_env_file(ROOT / ".env")))
    return {**{name: value or "" for name, value in found.items()}, **os.environ}


def _read_env_file(file: Path) -> str:
    try:
        text = file.read_text("utf-8-sig")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise config.ConfigError(f"{file} is not UTF-8 text") from None
    except OSError as error:
        raise config.ConfigError(f"{file} cannot be read: {error.strerror}") from None
    if "\0" in text:
        raise config.ConfigError(f"{file} holds a NUL character")
    for statement in parse_stream(io.StringIO(text)):
        name_alone = statement.key is not None and statement.value is None
        if statement.error or name_alone:
            raise config.ConfigError(f"{file}, line {statement.original.line}: must be NAME=value")
    return text


def read_settings() -> dict[str, Any]:
    """The settings of this command."""
    return config.read_config(read_environment())


def make_app(servers: Mapping[str, str]) -> "Flask":
    """Return the app on these servers.

    What it is made of lives as long as the process. The garbage collector does not look at it: not while it is
    imported, which takes a sixth less time, and not later, so that forks go on sharing its memory.
    """
    gc.disable()
    try:
        from app.factory import create_app

        app = create_app(config.read_config({**read_environment(), **servers}))
        var_dir.make_private(app.config["VAR_DIR"])
        return app
    finally:
        gc.freeze()
        gc.enable()


def servers_for_command() -> dict[str, str]:
    """Servers that live at least as long as the command."""
    return click.get_current_context().find_root().with_resource(embedded.provide_servers(read_settings()))


class LazyCommandGroup(click.Group):
    """The commands below, and GROUPS, which are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, for --help."""
        return sorted([*super().list_commands(ctx), *COMMAND_GROUPS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        if cmd_name not in COMMAND_GROUPS:
            return super().get_command(ctx, cmd_name)
        module, _, name = COMMAND_GROUPS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=LazyCommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def cli(context: click.Context) -> None:
    """Run and look after the Open Event API server."""
    if context.invoked_subcommand in COMMAND_GROUPS:
        from flask.cli import ScriptInfo

        context.obj = ScriptInfo(create_app=lambda: make_app(servers_for_command()))


@cli.command()
def run() -> None:
    """Everything in the foreground: PostgreSQL, Redis, web, worker, relay."""
    supervisor.run_supervisor(read_settings(), read_environment())


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(*, as_json: bool) -> None:
    """What runs in VAR_DIR; exit status 1 when nothing does."""
    report = supervisor.collect_status(read_settings())
    if as_json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:<13} {value['pid'] if isinstance(value, dict) else value or '-'}")
    if not any(isinstance(value, dict) for value in report.values()):
        sys.exit(1)


@cli.command()
def web() -> None:
    """The web process."""
    from app.web import serve_app

    servers = servers_for_command()
    serve_app(config.read_config({**read_environment(), **servers}), lambda: make_app(servers))


@cli.command()
@click.argument("queues", nargs=-1)
def worker(queues: tuple[str, ...]) -> None:
    """The Celery worker: nodes for all queues, or one for those that are named."""
    from app.worker import import_celery_worker, run_worker

    app = make_app(servers_for_command())
    if queues:
        run_worker(app, *queues)
    else:
        import_celery_worker()
        served = worker_nodes.list_node_queues(has_processor=bool(app.config["PROCESSOR_URL"]))
        sys.exit(worker_nodes.run_nodes(lambda queues: run_worker(app, *queues), served))


@cli.command()
def relay() -> None:
    """The relay from the outbox to Celery."""
    from app.logs import log_uncaught_exceptions
    from app.relay import run_relay

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    app = make_app(servers_for_command())
    log_uncaught_exceptions()
    run_relay(app, stop)


@cli.command()
def demo() -> None:
    """Sample data: a published and a draft event, and who organizes them."""
    from app.demo import DEMO_EMAIL, create_sample_data

    with make_app(servers_for_command()).app_context():
        password = create_sample_data()
    if password is None:
        print(f"demo: the sample data is there already, with the login {DEMO_EMAIL}")
    else:
        print(f"demo: log in as {DEMO_EMAIL} with the password {password}")


@cli.command(hidden=True)
def prepare() -> None:
    """Migrate, and add sample data to a new development database: `run` calls this before it serves."""
    import flask_migrate
    import structlog

    from app.demo import DEMO_EMAIL, create_sample_data, is_database_empty

    log = structlog.get_logger("app.prepare")
    app = make_app(servers_for_command())
    settings = app.config
    applied: list[str] = []

    @app.extensions["migrate"].migrate.configure  # type: ignore[untyped-decorator]  # Flask-Migrate carries no types
    def collect_revisions(alembic_config: Any) -> Any:
        """Have `migrations/env.py` append revisions to this list instead of printing them."""
        alembic_config.attributes["applied"] = applied
        return alembic_config

    with app.app_context():
        flask_migrate.upgrade()
        if applied:
            log.info("%d migration%s applied", len(applied), "" if len(applied) == 1 else "s")
        if (
            settings["APP_ENV"] == "development"
            and settings["DEMO"]
            and is_database_empty()
            and (password := create_sample_data())
        ):
            demo_login.save_login(settings["VAR_DIR"], DEMO_EMAIL, password)
            log.info("sample data added")


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def routes(*, as_json: bool) -> None:
    """Every route, its methods and who may call it."""
    from app.routes import list_routes

    # No server is asked, so none needs to run.
    listing = list_routes(make_app(embedded.get_server_urls(embedded.select_servers(read_settings()))))
    if as_json:
        print(json.dumps(listing))
    else:
        for route in listing:
            for method, permission in route["permissions"].items():
                print(f"{method:<7} {route['path']:<60} {permission}")


def main() -> None:
    """Run a command."""
    os.umask(PRIVATE_UMASK)
    try:
        cli(prog_name="manage.py")
    except tuple(OPERATOR_ERRORS) as error:
        _exit_with_error(str(error), OPERATOR_ERRORS[type(error)])
    except Exception as error:
        if (found := _describe_database_error(error)) is None:
            raise
        _exit_with_error(*found)


def _describe_database_error(error: Exception) -> tuple[str, int] | None:
    """Return the line and exit status for an error of the database that an operator can mend.

    The driver's own message is left out: it may name the user and more of the URL.
    """
    from sqlalchemy.exc import OperationalError, ProgrammingError

    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    if state == DISK_FULL:
        return "the disk of the database is full", 1
    if isinstance(error, OperationalError | DriverError):
        return "the database does not answer; is it running, and is DATABASE_URL right?", 1
    if isinstance(error, ProgrammingError) and state == UNDEFINED_TABLE:
        return "the database has not been migrated; `manage.py db upgrade` does it", 1
    if isinstance(error, ProgrammingError) and state is None:
        return "DATABASE_URL has an option that the driver does not know", 2
    return None


def _exit_with_error(message: str, exit_status: int) -> NoReturn:
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if command in SERVING_COMMANDS and _is_log_json():
        Console("json", "info").log_event(command, message, "error")
    else:
        print(f"manage.py: {message}", file=sys.stderr)
    sys.exit(exit_status)


def _is_log_json() -> bool:
    try:
        return read_environment().get("LOG_FORMAT") == "json"
    except config.ConfigError:
        return os.environ.get("LOG_FORMAT") == "json"


def __getattr__(name: str) -> Any:
    """`app` for WSGI servers (`gunicorn manage:app`), `celery` for Celery's own command (`celery -A manage:celery`)."""
    if name not in ("app", "celery"):
        raise AttributeError(name)
    os.umask(PRIVATE_UMASK)
    app = make_app(embedded.get_server_urls(embedded.select_servers(read_settings())))
    return app if name == "app" else app.extensions["celery"]


if __name__ == "__main__":
    main()
