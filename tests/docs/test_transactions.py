"""Every example of the blueprint is sent to a live server, which answers as documented."""

import json
import re
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from uuid import UUID

import pytest

from tests.conftest import Processes
from tests.docs import body_parser, drafter
from tests.docs.blueprint_dataset import TokenProvider
from tests.docs.blueprint_sources import BlueprintExample, list_examples, read_blueprint
from tests.docs.blueprint_writer import record_answer
from tests.docs.body_comparison import find_differences
from tests.docs.conftest import RAN_TRANSACTIONS
from tests.docs.drafter import Transaction

PLACEHOLDER = re.compile(r"<([a-z ]*\btoken\b[a-z ]*)>")
EXAMPLES = list_examples()
REPLACEMENTS = {
    "access_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiIyIn0.signature",
    "refresh_token": "43-characters-that-tell-nothing-about-a-user",
}
SERVER, PROCESSOR = "https://api.example.org", "https://processor.example.org"
"""Documented addresses that replace those of this run."""

NEW_ID, NOW = "019b7e30-6720-7c55-8f3d-6a1e9b02c4d7", "2026-01-02T10:11:00.402560+00:00"
"""Documented values that replace those that differ in each run."""

ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b")
TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
STARTED = datetime.now(UTC)


# Both have session scope: without Node the tests are skipped before a server is started.
@pytest.fixture(scope="session")
def result() -> drafter.Element:
    """Return the sources as parsed by drafter."""
    return drafter.parse_blueprint()


@pytest.fixture(scope="session")
def transactions(result: drafter.Element) -> list[Transaction]:
    """Return the transactions that drafter found."""
    return list(drafter.list_transactions(result))


def test_drafter_has_no_complaint(result: drafter.Element) -> None:
    assert drafter.list_annotations(result) == []


def test_drafter_finds_what_is_written(transactions: list[Transaction]) -> None:
    found = [f"{each.method} {each.title}" for each in transactions]

    assert found == [f"{each.action.method} {each.title}" for each in EXAMPLES]
    assert len(found) == count_documented_answers()


@pytest.mark.parametrize(("number", "example"), list(enumerate(EXAMPLES)), ids=[str(each) for each in EXAMPLES])
def test_transaction(
    number: int,
    example: BlueprintExample,
    transactions: list[Transaction],
    live_server: Processes,
    tokens: TokenProvider,
    pytestconfig: pytest.Config,
) -> None:
    transaction = transactions[number]
    pytestconfig.stash[RAN_TRANSACTIONS].append(str(example))

    answer, body = send_transaction(live_server, transaction, tokens)

    assert answer.status == transaction.status, body
    media_type = answer.headers["Content-Type"] if body else ""
    assert media_type == transaction.answer.headers.get("Content-Type", "")
    assert {name for name in transaction.answer.headers if name not in answer.headers} == set()
    promised = body_parser.parse_body(media_type, transaction.answer.body.encode())
    found = list(find_differences(promised, body_parser.parse_body(media_type, body)))
    if found and pytestconfig.getoption("--record", default=False):
        record_answer(number, to_documented_answer(media_type, body, live_server))
    else:
        assert found == []


def test_every_transaction_was_tried(
    transactions: list[Transaction], request: pytest.FixtureRequest, pytestconfig: pytest.Config
) -> None:
    selected = [item for item in request.session.items if item.function is test_transaction]  # type: ignore[attr-defined]  # all are functions here
    if len(selected) < len(EXAMPLES):
        pytest.skip(f"only {len(selected)} transactions were asked for")

    assert len(pytestconfig.stash[RAN_TRANSACTIONS]) == len(transactions) == count_documented_answers()


def count_documented_answers() -> int:
    """Return the number of responses in the sources, counted by their headings alone."""
    return len(re.findall(r"^\+ Response ", read_blueprint(), re.MULTILINE))


def send_transaction(
    live_server: Processes, transaction: Transaction, tokens: TokenProvider
) -> tuple[HTTPResponse, bytes]:
    """Send a transaction; return the response of the server and its body."""

    def fill_in(text: str) -> str:
        whole = PLACEHOLDER.sub(lambda found: tokens[found[1]], text)
        return whole.replace(PROCESSOR, live_server.environment["PROCESSOR_URL"])

    headers = {name: fill_in(value) for name, value in transaction.request.headers.items()}
    body = fill_in(transaction.request.body).rstrip("\n").encode() or None
    connection = HTTPConnection(live_server.base_url.removeprefix("http://"), timeout=10)
    try:
        connection.request(transaction.method, transaction.uri, body, headers)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def to_documented_answer(media_type: str, body: bytes, live_server: Processes) -> Any:
    """Return the response with the host and the values of the documentation."""
    ours = body.decode().replace(live_server.base_url, SERVER)
    shown = mask_volatile_values(ours.replace(live_server.environment["PROCESSOR_URL"], PROCESSOR))
    if body_parser.is_stream(media_type):
        return shown
    document = json.loads(shown)
    if isinstance(document, list):
        return document
    return {name: REPLACEMENTS.get(name, value) for name, value in document.items()}


def mask_volatile_values(text: str) -> str:
    """Replace times and UUIDs (RFC 9562, section 5.7) of this run by the documented ones."""

    def is_new(moment: datetime) -> bool:
        return STARTED <= moment <= datetime.now(UTC)

    def time(found: re.Match[str]) -> str:
        return NOW if is_new(datetime.fromisoformat(found[0])) else found[0]

    def id_(found: re.Match[str]) -> str:
        milliseconds = UUID(found[0]).int >> 80
        return NEW_ID if is_new(datetime.fromtimestamp(milliseconds / 1000, UTC)) else found[0]

    return ID.sub(id_, TIME.sub(time, text))
