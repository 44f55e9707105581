"""Entry point: the WSGI app, the Celery app and all commands.

Commands import the app only if they need it: without it, `run` and `status` start four times faster and take less
memory.
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
"""Command groups that are defined in other modules, imported when they are used."""

SERVING_COMMANDS = ("run", "web", "worker", "relay", "prepare")
"""Commands whose output is a log; with LOG_FORMAT=json their errors are JSON, too."""

PRIVATE_UMASK = 0o077
"""File mode mask: only the user of the server may read mails, archives and images."""

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
"""Errors that an operator can fix, printed as one line without a traceback, each with its exit status."""


def read_environment() -> dict[str, str]:
    """Return the variables of the environment and of `.env`; raise ConfigError if that file is invalid."""
    values = dotenv_values(stream=io.StringIO(_read_env_file(ROOT / ".env")))
    return {**{name: value or "" for name, value in values.items()}, **os.environ}


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
        raise config.ConfigError(f"{file} contains a NUL character")
    for statement in parse_stream(io.StringIO(text)):
        name_alone = statement.key is not None and statement.value is None
        if statement.error or name_alone:
            raise config.ConfigError(f"{file}, line {statement.original.line}: must be NAME=value")
    return text


def read_settings() -> dict[str, Any]:
    """Return the settings from the environment."""
    return config.read_config(read_environment())


def make_app(servers: Mapping[str, str]) -> "Flask":
    """Return the app, configured with the URLs of these servers.

    Its objects live as long as the process, so the garbage collector ignores them: this makes the import a sixth
    faster, and forks continue to share their memory.
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
    """Return the URLs of the embedded servers, which run at least as long as the command."""
    return click.get_current_context().find_root().with_resource(embedded.provide_servers(read_settings()))


class LazyCommandGroup(click.Group):
    """Command group of the commands in this module and of COMMAND_GROUPS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted([*super().list_commands(ctx), *COMMAND_GROUPS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name; None if there is none."""
        if cmd_name not in COMMAND_GROUPS:
            return super().get_command(ctx, cmd_name)
        module, _, name = COMMAND_GROUPS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=LazyCommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def cli(context: click.Context) -> None:
    """Run and maintain the Open Event API server."""
    if context.invoked_subcommand in COMMAND_GROUPS:
        from flask.cli import ScriptInfo

        context.obj = ScriptInfo(create_app=lambda: make_app(servers_for_command()))


@cli.command()
def run() -> None:
    """Run everything in the foreground: PostgreSQL, Redis, web, worker, relay."""
    supervisor.run_supervisor(read_settings(), read_environment())


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(*, as_json: bool) -> None:
    """Print the processes that run in VAR_DIR; exit status 1 if there are none."""
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
    """Run the web process."""
    from app.web import serve_app

    servers = servers_for_command()
    serve_app(config.read_config({**read_environment(), **servers}), lambda: make_app(servers))


@cli.command()
@click.argument("queues", nargs=-1)
def worker(queues: tuple[str, ...]) -> None:
    """Run the Celery worker: nodes for all queues, or one node for the given QUEUES."""
    from app.worker import import_celery_worker, run_worker

    app = make_app(servers_for_command())
    if queues:
        run_worker(app, *queues)
    else:
        import_celery_worker()
        node_queues = worker_nodes.list_node_queues(has_processor=bool(app.config["PROCESSOR_URL"]))
        sys.exit(worker_nodes.run_nodes(lambda queues: run_worker(app, *queues), node_queues))


@cli.command()
def relay() -> None:
    """Run the relay, which publishes outbox entries to Celery."""
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
    """Add sample data: a published and a draft event, and their organizer."""
    from app.demo import DEMO_EMAIL, create_sample_data

    with make_app(servers_for_command()).app_context():
        password = create_sample_data()
    if password is None:
        print(f"demo: the sample data is there already, with the login {DEMO_EMAIL}")
    else:
        print(f"demo: log in as {DEMO_EMAIL} with the password {password}")


@cli.command(hidden=True)
def prepare() -> None:
    """Migrate the database, and add sample data to a new development database; `run` calls this before it serves."""
    import flask_migrate
    import structlog

    from app.demo import DEMO_EMAIL, create_sample_data, is_database_empty

    log = structlog.get_logger("app.prepare")
    app = make_app(servers_for_command())
    settings = app.config
    applied: list[str] = []

    @app.extensions["migrate"].migrate.configure  # type: ignore[untyped-decorator]  # Flask-Migrate carries no types
    def collect_revisions(alembic_config: Any) -> Any:
        """Let `migrations/env.py` append revisions to this list instead of printing them."""
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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def routes(*, as_json: bool) -> None:
    """Print all routes with their methods and permissions."""
    from app.routes import list_routes

    # The servers need not run: nothing connects to them.
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
        if (message_and_status := _describe_database_error(error)) is None:
            raise
        _exit_with_error(*message_and_status)


def _describe_database_error(error: Exception) -> tuple[str, int] | None:
    """Return message and exit status for a database error that an operator can fix; None for others.

    The driver's own message is not included: it may contain the user and other parts of the URL.
    """
    from sqlalchemy.exc import OperationalError, ProgrammingError

    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    if state == DISK_FULL:
        return "the disk of the database is full", 1
    if isinstance(error, OperationalError | DriverError):
        return "the database does not answer; is it running, and is DATABASE_URL right?", 1
    if isinstance(error, ProgrammingError) and state == UNDEFINED_TABLE:
        return "the database has not been migrated; run `manage.py db upgrade`", 1
    if isinstance(error, ProgrammingError) and state is None:
        return "DATABASE_URL has an unknown option", 2
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
    """Return `app` for WSGI servers (`gunicorn manage:app`), or `celery` for Celery (`celery -A manage:celery`)."""
    if name not in ("app", "celery"):
        raise AttributeError(name)
    os.umask(PRIVATE_UMASK)
    app = make_app(embedded.get_server_urls(embedded.select_servers(read_settings())))
    return app if name == "app" else app.extensions["celery"]


if __name__ == "__main__":
    main()
