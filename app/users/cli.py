"""Commands about users."""

import json
import sys

import click
from flask.cli import AppGroup
from sqlalchemy.exc import IntegrityError

from app.extensions import db
from app.users.emails import normalize_email
from app.users.models import User
from app.users.passwords import hash_password

users_cli = AppGroup("users", help="User accounts.")


class UserCommandError(click.ClickException):
    """Error of a command; printed as one line on stderr, exit status 2."""

    exit_code = 2


@users_cli.command("create")
@click.option("--email", required=True)
@click.option("--admin", is_flag=True)
@click.option("--super-admin", is_flag=True)
@click.option("--verified", is_flag=True, help="The address needs no verification mail.")
@click.option(
    "--password-stdin", is_flag=True, required=True, expose_value=False, help="The password is the first line."
)
def create_user(*, email: str, admin: bool, super_admin: bool, verified: bool) -> None:
    """Create a user and print its id."""
    try:
        user = User(
            email=normalize_email(email),
            password_hash=hash_password(sys.stdin.readline().rstrip("\r\n")),
            is_admin=admin,
            is_super_admin=super_admin,
            is_verified=verified,
        )
        db.session.add(user)
        db.session.commit()
    except UnicodeError:
        raise UserCommandError("the password must be UTF-8 text") from None
    except ValueError as error:
        raise UserCommandError(f"{error}") from None
    except IntegrityError:
        raise UserCommandError("a user with this e-mail address exists already") from None
    click.echo(json.dumps({"id": str(user.id)}))
