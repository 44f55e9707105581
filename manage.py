"""Start here: the WSGI app, the Celery app and every command.

What the app is made of is imported by the commands that need it: `run`, which stays for as long as the server does, and
`status` start four times faster and smaller without it.
"""

import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from dotenv import dotenv_values
from flask import current_app
from flask.cli import ScriptInfo, with_appcontext
from psycopg import OperationalError as DriverError
from sqlalchemy.exc import OperationalError, ProgrammingError

import config
from app import embedded, supervisor
from app.processes import address, machine, nodes, var_dir

if TYPE_CHECKING:
    from flask import Flask

ROOT = Path(__file__).resolve().parent

GROUPS = {"db": "flask_migrate.cli:db", "jobs": "app.jobs.cli:jobs_cli", "users": "app.users.cli:users_cli"}
"""Groups of commands that live elsewhere."""

UNDEFINED_TABLE = "42P01"

MENDABLE = {
    config.ConfigError: 2,
    machine.EmbeddedError: 1,
    supervisor.CannotRun: 1,
    var_dir.Busy: 1,
    var_dir.Unusable: 2,
    address.Taken: 1,
}
"""What an operator can mend is one line on stderr and this exit status, never a traceback."""


def environment() -> dict[str, str]:
    """The environment, completed from `.env`."""
    return {**{name: value or "" for name, value in dotenv_values(ROOT / ".env").items()}, **os.environ}


def read_settings() -> dict[str, Any]:
    """The settings of this command."""
    return config.read(environment())


def make_app(servers: Mapping[str, str]) -> "Flask":
    """The app on these servers."""
    from app.factory import create_app

    return create_app(config.read({**environment(), **servers}))


def command_servers() -> dict[str, str]:
    """Servers that live at least as long as the command."""
    return click.get_current_context().find_root().with_resource(embedded.available(read_settings()))


class Commands(click.Group):
    """The commands below, and GROUPS, which are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, for --help."""
        return sorted([*super().list_commands(ctx), *GROUPS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        if cmd_name not in GROUPS:
            return super().get_command(ctx, cmd_name)
        module, _, name = GROUPS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def cli(context: click.Context) -> None:
    """Run and look after the Open Event API server."""
    context.obj = ScriptInfo(create_app=lambda: make_app(command_servers()))


@cli.command()
def run() -> None:
    """Everything in the foreground: PostgreSQL, Redis, web, worker, relay."""
    supervisor.run(read_settings(), environment())


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(*, as_json: bool) -> None:
    """What runs in VAR_DIR; exit status 1 when nothing does."""
    report = supervisor.report(read_settings())
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
    from app.web import serve

    servers = command_servers()
    serve(config.read({**environment(), **servers}), lambda: make_app(servers))


@cli.command()
@click.argument("queues", nargs=-1)
def worker(queues: tuple[str, ...]) -> None:
    """The Celery worker: nodes for all queues, or one for those that are named."""
    servers = command_servers()
    if not queues:
        os.environ.update(servers)
        served = nodes.nodes_for(has_processor=bool(read_settings()["PROCESSOR_URL"]))
        sys.exit(nodes.run_nodes([sys.executable, str(ROOT / "manage.py"), "worker"], served))
    from app.worker import run_worker

    run_worker(make_app(servers), *queues)


@cli.command()
def relay() -> None:
    """The relay from the outbox to Celery."""
    from app.relay import run_relay

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run_relay(make_app(command_servers()), stop)


@cli.command()
@with_appcontext
def demo() -> None:
    """Sample data: a published and a draft event, and who organizes them."""
    from app.demo import make

    print(make())


@cli.command(hidden=True)
@with_appcontext
def prepare() -> None:
    """What `run` does before it serves: migrate, and sample data for a new development database."""
    import flask_migrate

    from app.demo import is_wanted, make

    flask_migrate.upgrade()
    if current_app.config["APP_ENV"] == "development" and current_app.config["DEMO"] and is_wanted():
        print(make())


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def routes(*, as_json: bool) -> None:
    """Every route, its methods and who may call it."""
    from app.routes import listed

    # No server is asked, so none needs to run.
    listing = listed(make_app(embedded.urls(embedded.needed(read_settings()))))
    if as_json:
        print(json.dumps(listing))
    else:
        for route in listing:
            for method, permission in route["permissions"].items():
                print(f"{method:<7} {route['path']:<60} {permission}")


def main() -> None:
    """Run a command."""
    try:
        cli(prog_name="manage.py")
    except tuple(MENDABLE) as error:
        _fail(str(error), MENDABLE[type(error)])
    except ProgrammingError as error:
        said = getattr(error.orig, "sqlstate", None)
        if said == UNDEFINED_TABLE:
            _fail("the database has not been migrated; `manage.py db upgrade` does it", 1)
        if said is None:
            _fail("DATABASE_URL has an option that the driver does not know", 2)
        raise
    except (OperationalError, DriverError):
        # Without its text: the driver's message may name the user and more of the URL.
        _fail("the database does not answer; is it running, and is DATABASE_URL right?", 1)


def _fail(message: str, exit_status: int) -> None:
    print(f"manage.py: {message}", file=sys.stderr)
    sys.exit(exit_status)


def __getattr__(name: str) -> Any:
    """`app` for WSGI servers (`gunicorn manage:app`), `celery` for Celery's own command (`celery -A manage:celery`)."""
    if name not in ("app", "celery"):
        raise AttributeError(name)
    app = make_app(embedded.urls(embedded.needed(read_settings())))
    return app if name == "app" else app.extensions["celery"]


if __name__ == "__main__":
    main()
