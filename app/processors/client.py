"""HTTP client of the processor: start a run, get its status, cancel it, download its results."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx
from flask import current_app

from app import http_client
from app.errors import ApiError, ApiErrorGroup
from app.http_client import HttpResponse, NotConnected, OutboundError, RequestLimits
from app.jsonapi.json_parsing import INVALID_TEXT_RE, parse_json

MAX_RESULT_BYTES = 16 * 2**20
MAX_TRACKING_ID_LENGTH = 200

BUSY_STATUSES = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
"""Statuses of a response to a start request after which it is sent again."""

START_LIMITS = RequestLimits(trusted=True)
CONTROL_LIMITS = RequestLimits(largest=2**20, seconds=5.0, trusted=True)
"""Limits of status and cancel requests: short, because few worker slots poll many runs."""

_DOTS = re.compile(r"\.+")


class StartRejected(Exception):
    """The processor did not start the run; the message has the reason."""


class ProcessorBusy(StartRejected):
    """The processor did not start the run but may later: it is busy, or no connection was possible."""


class DownloadFailed(Exception):
    """A result could not be downloaded; with `is_transient` another attempt may succeed."""

    def __init__(self, detail: str, *, is_transient: bool = False) -> None:
        self.is_transient = is_transient
        super().__init__(detail)


def start_run(task: str, body: Mapping[str, Any]) -> str:
    """Start a run and return its tracking id; raise ProcessorBusy or StartRejected."""
    try:
        answer = http_client.post(_build_url(task, "start"), json=body, limits=START_LIMITS)
    except NotConnected as error:
        raise ProcessorBusy(f"The processor cannot be reached: {error}") from None
    except OutboundError as error:
        raise StartRejected(f"The processor cannot be reached: {error}") from None
    if not HTTPStatus(200) <= answer.status < HTTPStatus(300):
        failure = ProcessorBusy if answer.status in BUSY_STATUSES else StartRejected
        raise failure(f"The processor responded with {answer.status}.{_describe_error(answer)}")
    tracking_id = _get_tracking_id(_parse_object(answer))
    if tracking_id is None:
        raise StartRejected("The response of the processor has no valid tracking_id.")
    return tracking_id


def fetch_status(task: str, tracking_id: str) -> dict[str, Any] | None:
    """Return the status response for a run; None unless it is 200 with a JSON object. Raise OutboundError."""
    return _parse_ok_response(http_client.fetch_url(_build_url(task, tracking_id, "status"), limits=CONTROL_LIMITS))


def cancel_run(task: str, tracking_id: str) -> dict[str, Any] | None:
    """Cancel a run and return the response like `fetch_status`; raise OutboundError also for 408, 429 and 5xx."""
    answer = http_client.post(_build_url(task, tracking_id, "cancel"), limits=CONTROL_LIMITS)
    if _is_transient_status(answer.status):
        raise OutboundError(f"The response is {answer.status}.")
    return _parse_ok_response(answer)


def fetch_result(url: str) -> bytes:
    """Download a result from the processor or from a public address; raise DownloadFailed."""
    limits = RequestLimits(largest=MAX_RESULT_BYTES, trusted=_is_processor_url(url))
    try:
        answer = http_client.fetch_url(url, limits=limits)
    except (http_client.UrlNotAllowed, http_client.ResponseTooLarge) as error:
        raise DownloadFailed(str(error)) from None
    except OutboundError as error:
        raise DownloadFailed(str(error), is_transient=True) from None
    if answer.status != HTTPStatus.OK:
        raise DownloadFailed(f"The response is {answer.status}.", is_transient=_is_transient_status(answer.status))
    return answer.content


def _build_url(*parts: str) -> str:
    return "/".join([current_app.config["PROCESSOR_URL"], *(quote(part, safe="") for part in parts)])


def _is_processor_url(url: str) -> bool:
    """Return whether a URL has the origin of PROCESSOR_URL."""
    try:
        target, processor = httpx.URL(url), httpx.URL(current_app.config["PROCESSOR_URL"])
        return not target.userinfo and _get_origin(target) == _get_origin(processor)
    except (httpx.InvalidURL, ValueError):  # ValueError: a host that is not valid in IDNA, decoded only here
        return False


def _get_origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _is_transient_status(status: int) -> bool:
    """Return whether the same request may succeed later."""
    return status >= HTTPStatus(500) or status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


def _parse_ok_response(answer: HttpResponse) -> dict[str, Any] | None:
    return _parse_object(answer) if answer.status == HTTPStatus.OK else None


def _parse_object(answer: HttpResponse) -> dict[str, Any] | None:
    try:
        members = parse_json(answer.content)
    except (ApiError, ApiErrorGroup):
        return None
    return members if isinstance(members, dict) else None


def _get_tracking_id(members: Mapping[str, Any] | None) -> str | None:
    """Return the tracking id as text; None when it is missing or not valid as one segment of a URL path."""
    value = (members or {}).get("tracking_id")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    text = str(value)
    is_usable = (
        0 < len(text) <= MAX_TRACKING_ID_LENGTH and not INVALID_TEXT_RE.search(text) and not _DOTS.fullmatch(text)
    )
    return text if is_usable else None


def _describe_error(answer: HttpResponse) -> str:
    """Return the error message of a JSON response, as a suffix for ours; empty when there is none."""
    members = _parse_object(answer) or {}
    message = next((members[name] for name in ("error", "message", "detail") if isinstance(members.get(name), str)), "")
    return f" Message: {INVALID_TEXT_RE.sub('', message)[:200]}" if message else ""
