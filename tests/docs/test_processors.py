"""docs/processors.md is correct: its programs run, its task stores results, its limits are those of the code."""

import hmac
import importlib.util
import json
import subprocess
import time
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import select
from werkzeug.datastructures import Headers

from app import webhook_signatures
from app.database import get_connection, open_transaction
from app.jobs import lifecycle
from app.jobs.context import JobFailed
from app.jobs.kinds import KINDS
from app.processors import polling
from app.processors.task_registry import ENTRY_POINT_GROUP, InvalidResult, Payload, RequestDocument
from app.programs import manifest
from app.treatments.models import Region
from tests.docs import blueprint_dataset, overview
from tests.docs.markdown import PROCESSORS, get_code_block, get_table_rows
from tests.docs.treatments import FOUND

KEY = "an unknown key"


@pytest.fixture
def faces_task(tmp_path: Path) -> ModuleType:
    """Return the module with the task in the document."""
    path = tmp_path / "open_event_faces.py"
    path.write_text(get_code_block(path.name))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("number", "constant"), [row[1:] for row in get_table_rows("Limits")])
def test_limits_are_those_of_the_code(number: str, constant: str) -> None:
    module, _, name = constant.strip("`").rpartition(".")

    assert getattr(import_module(module), name) == float(number.replace(",", ""))


def test_manifest_documentation_lists_every_property() -> None:
    named = [row[0].strip("`") for row in get_table_rows("NAME.json")]

    assert sorted(named) == sorted(manifest.MANIFEST_SCHEMA["properties"])
    assert set(json.loads(get_code_block("programs/pseudonyms.json"))) == set(named)


def test_the_program_makes_what_it_says(tmp_path: Path) -> None:
    overview.install_programs(tmp_path / "programs")
    output = tmp_path / "output"
    command = [str(tmp_path / "programs" / "pseudonyms"), "12", "Ada", "Grace", str(output)]

    said = subprocess.run(command, env={"PSEUDONYM_KEY": KEY}, capture_output=True, text=True, check=True)

    ada, grace = (hmac.new(KEY.encode(), name, "sha256").hexdigest()[:12] for name in (b"Ada", b"Grace"))
    assert json.loads(output.read_text()) == {"Ada": ada, "Grace": grace}
    assert said.stdout.splitlines() == ["0.0\tname 1 of 2", "0.5\tname 2 of 2"]


def test_documented_trial_commands_run(tmp_path: Path) -> None:
    overview.install_programs(tmp_path / "programs")
    blocks = [part.partition("```")[0] for part in PROCESSORS.split("```sh\n")[1:]]
    lines = next(each for each in blocks if "env -i" in each).partition("\n\n")[0]

    tried = subprocess.run(["/bin/bash", "-ec", lines], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert json.loads(tried.stdout.splitlines()[-1]).keys() == {"Ada", "Grace"}


def test_programs_are_offered_as_they_are_described(docs_app: Flask) -> None:
    with docs_app.app_context():
        pseudonyms, docset = (KINDS[f"program:{name}"] for name in ("pseudonyms", "process-docset"))

    assert (pseudonyms.concurrency, pseudonyms.secrets) == (2, {"key"})
    assert docset.secrets == {"api_token"}


def test_a_script_that_takes_its_token_as_an_argument_needs_one_line() -> None:
    line = next(line for line in PROCESSORS.splitlines() if line.startswith('{"arguments"'))

    said = manifest.parse_manifest("process-docset", line.encode(), is_overview=True)

    assert (said.arguments, said.environment) == (("server", "document_set_id", "api_token"), {})


def test_documented_signature_code_verifies(app: Flask) -> None:
    names: dict[str, Any] = {}
    exec(compile(get_code_block("sign.py"), "sign.py", "exec"), names)  # noqa: S102  # what stands there is ours
    body, now = b'{"event": "STARTED"}', str(int(time.time()))

    with app.app_context():
        made = names["signature"](webhook_signatures.derive_secret(b"this"), "msg_1", now, body)
        headers = Headers({"webhook-id": "msg_1", "webhook-timestamp": now, "webhook-signature": made})

        assert webhook_signatures.verify_message(b"this", headers, body) == "msg_1"
        with pytest.raises(webhook_signatures.InvalidSignature):
            webhook_signatures.verify_message(b"that", headers, body)


def test_every_word_of_a_status_is_named() -> None:
    assert [word for word in polling.STATUS_TO_EVENT if f"`{word}`" not in PROCESSORS] == []


def test_the_task_takes_images_and_stores_what_was_found(docs_app: Flask, faces_task: ModuleType) -> None:
    blueprint_dataset.replace_dataset(docs_app)
    image, faq = (
        RequestDocument("image", "https://a.example", "upload-1"),
        RequestDocument("faq", "https://b.example", "faq-1"),
    )
    with docs_app.app_context(), open_transaction(is_read=False):
        job = lifecycle.get_job(UUID(FOUND))
        assert job is not None

        assert faces_task.prepare_request([faq, image], job)["documents"] == [image]
        with pytest.raises(JobFailed):
            faces_task.prepare_request([faq], job)
        for _ in range(2):
            faces_task.process_results(Payload(job, "upload-1", [[1, 2, 11, 22], [0, 0, 5, 5]]), completed=True)
        with pytest.raises(InvalidResult):
            faces_task.process_results(Payload(job, "upload-1", {"no": "list"}), completed=True)
        found = get_connection().execute(select(Region.width, Region.height).where(Region.document == "upload-1"))

        assert sorted(found) == [(5, 5), (10, 20)]


def test_the_task_is_found_by_its_entry_point() -> None:
    said = tomllib.loads(get_code_block("pyproject.toml"))

    assert said["project"]["entry-points"] == {ENTRY_POINT_GROUP: {"faces": "open_event_faces"}}
