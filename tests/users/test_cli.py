"""`manage.py users create`."""

import json

import pytest
from click.testing import Result
from flask import Flask

from app.users.cli import users_cli
from app.users.passwords import verify_password
from tests.users.conftest import PASSWORD, Sql

CREATE_ARGUMENTS = ["create", "--email", " Ada@Example.com ", "--password-stdin"]


def invoke_cli(app: Flask, arguments: list[str], password: str = PASSWORD) -> Result:
    """Run a command with the password on stdin and return the result."""
    return app.test_cli_runner().invoke(users_cli, arguments, input=password + "\n")


def test_create_prints_the_id(app: Flask, run_sql: Sql) -> None:
    result = invoke_cli(app, CREATE_ARGUMENTS)

    ((user_id, email, password_hash, *flags),) = run_sql(
        "SELECT id, email, password_hash, is_admin, is_super_admin, is_verified FROM users"
    )
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"id": str(user_id)})
    assert email == "Ada@example.com"
    assert verify_password(str(password_hash), PASSWORD)
    assert flags == [False, False, False]


def test_create_sets_the_flags(app: Flask, run_sql: Sql) -> None:
    assert invoke_cli(app, [*CREATE_ARGUMENTS, "--admin", "--super-admin", "--verified"]).exit_code == 0

    assert run_sql("SELECT is_admin, is_super_admin, is_verified FROM users") == [(True, True, True)]


@pytest.mark.parametrize(
    ("email", "password", "complaint"),
    [
        ("nobody", PASSWORD, "this is not an e-mail address"),
        ("new@example.com", "short", "8 to 128 characters"),
        ("new@example.com", "", "8 to 128 characters"),
        ("ADA@example.com", PASSWORD, "a user with this e-mail address exists already"),
    ],
)
def test_create_exits_2_with_one_line(
    app: Flask, user_id: int, run_sql: Sql, email: str, password: str, complaint: str
) -> None:
    result = invoke_cli(app, ["create", "--email", email, "--password-stdin"], password)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1
    assert run_sql("SELECT count(*) FROM users") == [(1,)]


def test_the_password_is_never_an_argument(app: Flask) -> None:
    assert invoke_cli(app, ["create", "--email", "ada@example.com"]).exit_code == 2
    assert invoke_cli(app, [*CREATE_ARGUMENTS, "--password", PASSWORD]).exit_code == 2
