"""End-to-end test with real processes, from sign-up to the calendar file."""

import email
import email.policy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.conftest import Processes

pytestmark = pytest.mark.faults

JSONAPI = "application/vnd.api+json"


def send_request(url: str, method: str = "GET", document: Any = None, token: str = "") -> tuple[int, Any]:
    """Send a request to a running server; return status and JSON, or text if it is not JSON."""
    headers = {"Content-Type": JSONAPI, **({"Authorization": f"JWT {token}"} if token else {})}
    body = None if document is None else json.dumps(document).encode()
    try:
        with urlopen(Request(url, body, headers, method=method), timeout=10) as answer:  # noqa: S310  # our own server
            status, text = answer.status, answer.read().decode()
    except HTTPError as refused:
        with refused:
            status, text = refused.code, refused.read().decode()
    return status, json.loads(text) if text.startswith("{") else text


def attempt_get(url: str) -> int:
    """Return the status of a GET request; 0 if there was no response in time."""
    try:
        return send_request(url)[0]
    except OSError:
        return 0


def build_document(type_: str, attributes: Any, id_: str | None = None, **related: tuple[str, str]) -> dict[str, Any]:
    """Return a document with one resource."""
    made: dict[str, Any] = {"type": type_, "attributes": attributes}
    if id_ is not None:
        made["id"] = id_
    if related:
        made["relationships"] = {
            name.replace("_", "-"): {"data": {"type": type_, "id": id_}} for name, (type_, id_) in related.items()
        }
    return {"data": made}


def read_mails(environment: dict[str, str]) -> list[email.message.EmailMessage]:
    """Return all mails that have been sent."""
    paths = sorted(Path(environment["VAR_DIR"], "mail").glob("*.eml"))
    return [email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in paths]  # type: ignore[misc]  # the policy makes them EmailMessages


def test_from_sign_up_to_the_calendar(
    processes: Processes, environment: dict[str, str], wait_until: Callable[..., Any]
) -> None:
    for name in ("web", "worker", "relay"):
        processes.start(name, PUBLIC_URL=processes.base_url)
    base = processes.base_url
    wait_until(lambda: is_healthy(base), 30, "/health-check never became 200")

    # Ada signs up and gets a mail to verify her address.
    credentials = {"email": "ada@example.com", "password": "correct horse"}
    status, ada = send_request(f"{base}/v1/users", "POST", build_document("user", credentials))
    assert status == 201
    user = ada["data"]["id"]
    mail = wait_until(lambda: next((m for m in read_mails(environment) if m["X-Resource-Id"] == user), None))
    assert mail["To"] == "ada@example.com"
    token = max(mail.get_content().split(), key=len)
    assert send_request(f"{base}/v1/auth/verify-email", "POST", {"data": {"token": token}})[0] == 200

    # She logs in and is verified.
    status, tokens = send_request(f"{base}/v1/auth/login", "POST", credentials)
    assert status == 200
    access = tokens["access_token"]
    assert send_request(f"{base}/v1/users/{user}", token=access)[1]["data"]["attributes"]["is-verified"] is True

    # Only Ada sees a draft with a FAQ.
    attributes = {
        "name": "Open Conference",
        "timezone": "Europe/Berlin",
        "starts-at": "2030-05-01T10:00:00+02:00",
        "ends-at": "2030-05-02T10:00:00+02:00",
    }
    event = send_request(f"{base}/v1/events", "POST", build_document("event", attributes), access)[1]["data"]["id"]
    of_event = ("event", event)
    type_ = send_request(
        f"{base}/v1/faq-types", "POST", build_document("faq-type", {"name": "Venue"}, event=of_event), access
    )
    faq = build_document(
        "faq", {"question": "Where?", "answer": "Here"}, event=of_event, faq_type=("faq-type", type_[1]["data"]["id"])
    )
    assert send_request(f"{base}/v1/faqs", "POST", faq, access)[0] == 201
    assert send_request(f"{base}/v1/events/{event}")[0] == 404

    # A published event is public, and its calendar file is written.
    published = build_document("event", {"state": "published"}, event)
    assert send_request(f"{base}/v1/events/{event}", "PATCH", published, access)[0] == 200
    assert [item["attributes"]["question"] for item in send_request(f"{base}/v1/events/{event}/faqs")[1]["data"]] == [
        "Where?"
    ]
    ical_url = wait_until(lambda: fetch_attribute(base, event, "ical-url"))
    status, calendar = send_request(ical_url)
    assert status == 200
    assert "SUMMARY:Open Conference" in calendar

    # A new name is written to the calendar; a draft has no calendar.
    send_request(f"{base}/v1/events/{event}", "PATCH", build_document("event", {"name": "Renamed"}, event), access)
    wait_until(lambda: "SUMMARY:Renamed" in send_request(fetch_attribute(base, event, "ical-url"))[1])
    send_request(f"{base}/v1/events/{event}", "PATCH", build_document("event", {"state": "draft"}, event), access)
    wait_until(lambda: send_request(ical_url)[0] == 404)

    # Ada logs out, and her token is invalid at once.
    assert send_request(f"{base}/v1/auth/logout", "POST", {}, access)[0] in (200, 204)
    assert send_request(f"{base}/v1/users/{user}", token=access)[0] == 401


def is_healthy(base: str) -> bool:
    """Return whether all checks pass."""
    try:
        status, report = send_request(f"{base}/health-check")
    except OSError:
        return False
    return status == 200 and all(result["passed"] for result in report["results"])


def fetch_attribute(base: str, event: str, name: str) -> Any:
    """Return an attribute of the event in a request without log-in."""
    return send_request(f"{base}/v1/events/{event}")[1]["data"]["attributes"][name]
