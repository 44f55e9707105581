"""What we ask a processor: to start, how far it is, to stop; and the results that it names."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx
from flask import current_app

from app import http_client
from app.errors import ApiError, Errors
from app.http_client import Fetched, Limits, OutboundError
from app.jsonapi.body import UNSTORABLE, read_json

LARGEST_RESULT = 16 * 2**20
LONGEST_TRACKING_ID = 200

START = Limits(trusted=True)
QUESTION = Limits(largest=2**20, seconds=5.0, trusted=True)
"""Many runs are asked by few slots: it must not take long."""

_DOTS = re.compile(r"\.+")


class Rejected(Exception):
    """The processor did not take the task; the message says why."""


class Unfetched(Exception):
    """A result could not be fetched; `is_transient` where another time it might."""

    def __init__(self, detail: str, *, is_transient: bool = False) -> None:
        self.is_transient = is_transient
        super().__init__(detail)


def start(task: str, body: Mapping[str, Any]) -> str:
    """The tracking id under which the processor has begun; raises Rejected."""
    try:
        answer = http_client.post(_url(task, "start"), json=body, limits=START)
    except OutboundError as error:
        raise Rejected(f"The processor cannot be reached: {error}") from None
    if not HTTPStatus(200) <= answer.status < HTTPStatus(300):
        raise Rejected(f"The processor answered {answer.status}.{_words(answer)}")
    tracking_id = _tracking_id(_members(answer))
    if tracking_id is None:
        raise Rejected("The processor answered without a tracking_id that can be used.")
    return tracking_id


def status(task: str, tracking_id: str) -> dict[str, Any] | None:
    """What the processor says of a run; None for an answer that says nothing. Raises OutboundError."""
    return _said(http_client.fetch(_url(task, tracking_id, "status"), limits=QUESTION))


def cancel(task: str, tracking_id: str) -> dict[str, Any] | None:
    """Ask the processor to stop; as `status`, and raises OutboundError also where it could not take the question."""
    answer = http_client.post(_url(task, tracking_id, "cancel"), limits=QUESTION)
    if _is_passing(answer.status):
        raise OutboundError(f"The answer is {answer.status}.")
    return _said(answer)


def result(url: str) -> bytes:
    """A result, from the processor itself or from a public address; raises Unfetched."""
    limits = Limits(largest=LARGEST_RESULT, trusted=_is_own(url))
    try:
        answer = http_client.fetch(url, limits=limits)
    except (http_client.Refused, http_client.TooLarge) as error:
        raise Unfetched(str(error)) from None
    except OutboundError as error:
        raise Unfetched(str(error), is_transient=True) from None
    if answer.status != HTTPStatus.OK:
        raise Unfetched(f"The answer is {answer.status}.", is_transient=_is_passing(answer.status))
    return answer.content


def _url(*parts: str) -> str:
    return "/".join([current_app.config["PROCESSOR_URL"], *(quote(part, safe="") for part in parts)])


def _is_own(url: str) -> bool:
    """Whether a URL leads to the processor that the operator has named."""
    try:
        asked, own = httpx.URL(url), httpx.URL(current_app.config["PROCESSOR_URL"])
        return not asked.userinfo and _origin(asked) == _origin(own)
    except (httpx.InvalidURL, ValueError):  # also of a name that IDNA does not know, read from the text only now
        return False


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _is_passing(status: int) -> bool:
    """Whether another time the answer may be another one."""
    return status >= HTTPStatus(500) or status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


def _said(answer: Fetched) -> dict[str, Any] | None:
    return _members(answer) if answer.status == HTTPStatus.OK else None


def _members(answer: Fetched) -> dict[str, Any] | None:
    try:
        members = read_json(answer.content)
    except (ApiError, Errors):
        return None
    return members if isinstance(members, dict) else None


def _tracking_id(members: Mapping[str, Any] | None) -> str | None:
    """As text; None for what can be none, or would lead elsewhere when it stands in a URL."""
    value = (members or {}).get("tracking_id")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    text = str(value)
    is_usable = 0 < len(text) <= LONGEST_TRACKING_ID and not UNSTORABLE.search(text) and not _DOTS.fullmatch(text)
    return text if is_usable else None


def _words(answer: Fetched) -> str:
    """What it says of an error, where it says it in JSON."""
    members = _members(answer) or {}
    said = next((members[name] for name in ("error", "message", "detail") if isinstance(members.get(name), str)), "")
    return f" It says: {UNSTORABLE.sub('', said)[:200]}" if said else ""
