"""docs/processors.md is true: its programs run, its task stores, its limits are those of the code."""

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

from app import signatures
from app.database import connection, transaction
from app.jobs import lifecycle
from app.jobs.context import JobFailed
from app.jobs.kinds import KINDS
from app.processors import asking
from app.processors.modules import GROUP, Document, Payload, Unfit
from app.programs import manifest
from app.treatments.models import Region
from tests.docs import overview, people
from tests.docs.texts import PROCESSORS, block, rows
from tests.docs.treatments import FOUND

KEY = "a key that nobody knows"


@pytest.fixture
def faces(tmp_path: Path) -> ModuleType:
    """The task in the text."""
    path = tmp_path / "open_event_faces.py"
    path.write_text(block(path.name))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("number", "constant"), [row[1:] for row in rows("Limits")])
def test_limits_are_those_of_the_code(number: str, constant: str) -> None:
    module, _, name = constant.strip("`").rpartition(".")

    assert getattr(import_module(module), name) == float(number.replace(",", ""))


def test_what_is_said_of_a_program_is_what_can_be_said() -> None:
    named = [row[0].strip("`") for row in rows("NAME.json")]

    assert sorted(named) == sorted(manifest.SCHEMA["properties"])
    assert set(json.loads(block("programs/pseudonyms.json"))) == set(named)


def test_the_program_makes_what_it_says(tmp_path: Path) -> None:
    overview.install(tmp_path / "programs")
    output = tmp_path / "output"
    command = [str(tmp_path / "programs" / "pseudonyms"), "12", "Ada", "Grace", str(output)]

    said = subprocess.run(command, env={"PSEUDONYM_KEY": KEY}, capture_output=True, text=True, check=True)

    ada, grace = (hmac.new(KEY.encode(), name, "sha256").hexdigest()[:12] for name in (b"Ada", b"Grace"))
    assert json.loads(output.read_text()) == {"Ada": ada, "Grace": grace}
    assert said.stdout.splitlines() == ["0.0\tname 1 of 2", "0.5\tname 2 of 2"]


def test_the_lines_to_try_it_work(tmp_path: Path) -> None:
    overview.install(tmp_path / "programs")
    blocks = [part.partition("```")[0] for part in PROCESSORS.split("```sh\n")[1:]]
    lines = next(each for each in blocks if "env -i" in each).partition("\n\n")[0]

    tried = subprocess.run(["/bin/bash", "-ec", lines], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert json.loads(tried.stdout.splitlines()[-1]).keys() == {"Ada", "Grace"}


def test_programs_are_offered_as_they_are_described(served: Flask) -> None:
    with served.app_context():
        pseudonyms, docset = (KINDS[f"program:{name}"] for name in ("pseudonyms", "process-docset"))

    assert (pseudonyms.concurrency, pseudonyms.secrets) == (2, {"key"})
    assert docset.secrets == {"api_token"}


def test_a_script_that_takes_its_token_as_an_argument_needs_one_line() -> None:
    line = next(line for line in PROCESSORS.splitlines() if line.startswith('{"arguments"'))

    said = manifest.read("process-docset", line.encode(), is_overview=True)

    assert (said.arguments, said.environment) == (("server", "document_set_id", "api_token"), {})


def test_the_signature_holds(app: Flask) -> None:
    names: dict[str, Any] = {}
    exec(compile(block("sign.py"), "sign.py", "exec"), names)  # noqa: S102  # what stands there is ours
    body, now = b'{"event": "STARTED"}', str(int(time.time()))

    with app.app_context():
        made = names["signature"](signatures.secret(b"this"), "msg_1", now, body)
        headers = Headers({"webhook-id": "msg_1", "webhook-timestamp": now, "webhook-signature": made})

        assert signatures.verified_id(b"this", headers, body) == "msg_1"
        with pytest.raises(signatures.InvalidSignature):
            signatures.verified_id(b"that", headers, body)


def test_every_word_of_a_status_is_named() -> None:
    assert [word for word in asking.WORDS if f"`{word}`" not in PROCESSORS] == []


def test_the_task_takes_images_and_stores_what_was_found(served: Flask, faces: ModuleType) -> None:
    people.replace_world(served)
    image, faq = Document("image", "https://a.example", "upload-1"), Document("faq", "https://b.example", "faq-1")
    with served.app_context(), transaction(is_read=False):
        job = lifecycle.found(UUID(FOUND))
        assert job is not None

        assert faces.prepare_request([faq, image], job)["documents"] == [image]
        with pytest.raises(JobFailed):
            faces.prepare_request([faq], job)
        for _ in range(2):
            faces.process_results(Payload(job, "upload-1", [[1, 2, 11, 22], [0, 0, 5, 5]]), completed=True)
        with pytest.raises(Unfit):
            faces.process_results(Payload(job, "upload-1", {"no": "list"}), completed=True)
        found = connection().execute(select(Region.width, Region.height).where(Region.document == "upload-1"))

        assert sorted(found) == [(5, 5), (10, 20)]


def test_the_task_is_found_by_its_entry_point() -> None:
    said = tomllib.loads(block("pyproject.toml"))

    assert said["project"]["entry-points"] == {GROUP: {"faces": "open_event_faces"}}
