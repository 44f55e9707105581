"""Every example of the blueprint is sent to a live server, which answers as documented."""

import json
import re
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from uuid import UUID

import pytest

from tests.conftest import Processes
from tests.docs import content, drafter
from tests.docs.conftest import RAN
from tests.docs.drafter import Transaction
from tests.docs.people import Tokens
from tests.docs.recording import record
from tests.docs.sources import Written, flat, written
from tests.docs.structure import differences

PLACEHOLDER = re.compile(r"<([a-z ]*\btoken\b[a-z ]*)>")
WRITTEN = written()
RATHER = {
    "access_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiIyIn0.signature",
    "refresh_token": "43-characters-that-tell-nothing-about-anybody",
}
SERVER, PROCESSOR = "https://api.example.org", "https://processor.example.org"
"""What people read instead of the addresses of this run."""

NEW_ID, NOW = "019b7e30-6720-7c55-8f3d-6a1e9b02c4d7", "2026-01-02T10:11:00.402560+00:00"
"""What stands in the documentation for what is different each time."""

ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b")
TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
STARTED = datetime.now(UTC)


# Both of the session: without Node the tests are skipped before any server is started for them.
@pytest.fixture(scope="session")
def result() -> drafter.Element:
    """The sources, parsed by drafter."""
    return drafter.parsed()


@pytest.fixture(scope="session")
def transactions(result: drafter.Element) -> list[Transaction]:
    """What drafter found."""
    return list(drafter.transactions(result))


def test_drafter_has_no_complaint(result: drafter.Element) -> None:
    assert drafter.complaints(result) == []


def test_drafter_finds_what_is_written(transactions: list[Transaction]) -> None:
    found = [f"{each.method} {each.title}" for each in transactions]

    assert found == [f"{each.action.method} {each.title}" for each in WRITTEN]
    assert len(found) == answers_written()


@pytest.mark.parametrize(("number", "example"), list(enumerate(WRITTEN)), ids=[str(each) for each in WRITTEN])
def test_transaction(
    number: int,
    example: Written,
    transactions: list[Transaction],
    live: Processes,
    tokens: Tokens,
    pytestconfig: pytest.Config,
) -> None:
    transaction = transactions[number]
    pytestconfig.stash[RAN].append(str(example))

    answer, body = send(live, transaction, tokens)

    assert answer.status == transaction.status, body
    media_type = answer.headers["Content-Type"] if body else ""
    assert media_type == transaction.answer.headers.get("Content-Type", "")
    assert {name for name in transaction.answer.headers if name not in answer.headers} == set()
    promised = content.read(media_type, transaction.answer.body.encode())
    found = list(differences(promised, content.read(media_type, body)))
    if found and pytestconfig.getoption("--record", default=False):
        record(number, documented(media_type, body, live))
    else:
        assert found == []


def test_every_transaction_was_tried(
    transactions: list[Transaction], request: pytest.FixtureRequest, pytestconfig: pytest.Config
) -> None:
    selected = [item for item in request.session.items if item.function is test_transaction]  # type: ignore[attr-defined]  # all are functions here
    if len(selected) < len(WRITTEN):
        pytest.skip(f"only {len(selected)} transactions were asked for")

    assert len(pytestconfig.stash[RAN]) == len(transactions) == answers_written()


def answers_written() -> int:
    """How many answers the sources promise, counted without understanding them."""
    return len(re.findall(r"^\+ Response ", flat(), re.MULTILINE))


def send(live: Processes, transaction: Transaction, tokens: Tokens) -> tuple[HTTPResponse, bytes]:
    """The answer of the server, and its body."""

    def filled(text: str) -> str:
        whole = PLACEHOLDER.sub(lambda found: tokens[found[1]], text)
        return whole.replace(PROCESSOR, live.environment["PROCESSOR_URL"])

    headers = {name: filled(value) for name, value in transaction.request.headers.items()}
    body = filled(transaction.request.body).rstrip("\n").encode() or None
    connection = HTTPConnection(live.base_url.removeprefix("http://"), timeout=10)
    try:
        connection.request(transaction.method, transaction.uri, body, headers)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def documented(media_type: str, body: bytes, live: Processes) -> Any:
    """The answer as people read it: from the host they know, without what belongs to this run."""
    ours = body.decode().replace(live.base_url, SERVER)
    shown = steady(ours.replace(live.environment["PROCESSOR_URL"], PROCESSOR))
    if content.is_stream(media_type):
        return shown
    document = json.loads(shown)
    if isinstance(document, list):
        return document
    return {name: RATHER.get(name, value) for name, value in document.items()}


def steady(text: str) -> str:
    """Times since this run began, and ids that were made since then (RFC 9562, 5.7), are always the same."""

    def is_new(moment: datetime) -> bool:
        return STARTED <= moment <= datetime.now(UTC)

    def time(found: re.Match[str]) -> str:
        return NOW if is_new(datetime.fromisoformat(found[0])) else found[0]

    def id_(found: re.Match[str]) -> str:
        milliseconds = UUID(found[0]).int >> 80
        return NEW_ID if is_new(datetime.fromtimestamp(milliseconds / 1000, UTC)) else found[0]

    return ID.sub(id_, TIME.sub(time, text))
