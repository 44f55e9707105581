"""Programs on the command line: secrets are not accepted there."""

import json

from flask import Flask

from tests.jobs.test_cli import invoke_cli
from tests.programs.conftest import ProgramDirectory

SECRET = {
    "type": "object",
    "properties": {"token": {"type": "string", "writeOnly": True}},
    "required": ["token"],
}


def test_a_secret_is_taken_from_a_document_and_not_from_the_command_line(
    app: Flask, programs: ProgramDirectory
) -> None:
    kind = programs.add_program("tried", "true", parameters=SECRET, environment={"TOKEN": "token"})

    refused = invoke_cli(app, "submit", kind, "--param", "token=s3cr3t")
    taken = invoke_cli(app, "submit", kind, "--params", "-", "--json", given=json.dumps({"token": "s3cr3t"}))

    assert refused.exit_code == 2
    assert "s3cr3t" not in refused.output + refused.stderr
    assert json.loads(taken.stdout)["parameters"] == {}
    again = invoke_cli(app, "retry", json.loads(taken.stdout)["id"])
    assert again.exit_code == 2
