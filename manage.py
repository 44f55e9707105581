"""Start here: the WSGI app, the Celery app and every command."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from dotenv import dotenv_values
from flask import Flask
from flask.cli import ScriptInfo
from flask_migrate.cli import db as db_commands
from psycopg import OperationalError as PsycopgError
from sqlalchemy.exc import OperationalError

import config
from app import embedded
from app.extensions import migrate
from app.factory import create_app

ROOT = Path(__file__).resolve().parent
HINT = "the database does not answer: is it running, and is DATABASE_URL right?"
migrate.directory = str(ROOT / "migrations")


def environment() -> dict[str, str]:
    """The environment, completed from `.env`."""
    return {**{name: value or "" for name, value in dotenv_values(ROOT / ".env").items()}, **os.environ}


def make_app(servers: Mapping[str, str]) -> Flask:
    """The app on these servers."""
    return create_app(config.read({**environment(), **servers}))


def command_app() -> Flask:
    """The app of a command, with servers that live at least as long as the command."""
    root = click.get_current_context().find_root()
    return make_app(root.with_resource(embedded.available(config.read(environment()))))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def cli(context: click.Context) -> None:
    """Run and look after the Open Event API server."""
    context.obj = ScriptInfo(create_app=command_app)


cli.add_command(db_commands)


def main() -> None:
    """Run a command; what an operator can mend is one line, not a traceback."""
    try:
        cli(prog_name="manage.py")
    except config.ConfigError as error:
        _fail(str(error), 2)
    except embedded.EmbeddedError as error:
        _fail(str(error), 1)
    except (OperationalError, PsycopgError):
        _fail(HINT, 1)


def _fail(message: str, code: int) -> None:
    print(f"manage.py: {message}", file=sys.stderr)
    sys.exit(code)


def __getattr__(name: str) -> Any:
    """`app` for WSGI servers (`gunicorn manage:app`)."""
    if name == "app":
        return make_app(embedded.urls(embedded.needed(config.read(environment()))))
    raise AttributeError(name)


if __name__ == "__main__":
    main()
