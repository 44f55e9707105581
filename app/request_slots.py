"""Request slots: limits on requests in progress, in the process and for each client address.

Each request in progress competes for the interpreter, even if its client has disconnected or it needs no database.
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import orjson
import structlog
from flask import Flask, g, request

from app.errors import MEDIA_TYPE, BadRequest, TooManyRequests, Unavailable
from app.slots import NoFreeSlotError, Slot, SlotPool, address_holders, take_slot

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MAX_REQUESTS = 192
"""Requests in progress; `app/web.py` has threads for these and for the waiting ones."""

MAX_REQUESTS_PER_ADDRESS = 12
"""Requests in progress from one client address."""

MAX_WAITING = 256
MAX_WAITING_PER_ADDRESS = 192
"""Waiting requests, enough for thirty people behind one address who load a page with six requests each."""

SLOT_TIMEOUT_SECONDS = 5.0
"""Time a request waits for its slot."""

RETRY_AFTER_SECONDS = 1

MAX_MEDIA_TYPE_HEADER_LENGTH = 1024
"""Characters of `Accept` and of `Content-Type`: before the view, parsing them takes the most time."""

SLOT_EXEMPT_KEY = "open_event.needs_no_slot"
"""Key in the WSGI environment of requests that take no slot: probes at HEALTH_ADDRESS, and requests that have one."""

LONG_HEADER_KEY = "open_event.long_header"
"""Key in the WSGI environment for the name of a header that was removed because it is too long."""

LOG_INTERVAL_SECONDS = 1.0

FULL_DETAIL = "Too many requests are in progress. Try again."

SHARE_DETAIL = (
    f"Too many requests of your address are in progress: at most {MAX_REQUESTS_PER_ADDRESS} run at the same time, and "
    "others wait. Send fewer at the same time."
)

log = structlog.get_logger(__name__)


class _RefusalResponder:
    """Responses to requests without a slot, sent without Flask so that many of them take little time."""

    def __init__(self) -> None:
        self._refusal_count = 0
        self._logged_at = 0.0

    def send_refusal(
        self, environ: "WSGIEnvironment", start_response: "StartResponse", holder: str | None
    ) -> Iterable[bytes]:
        """Send 429 if a holder has reached its share, otherwise 503; log their number once a second."""
        self._refusal_count += 1
        now = time.monotonic()
        if now - self._logged_at > LOG_INTERVAL_SECONDS:
            log.warning("requests refused", address=environ.get("REMOTE_ADDR"), count=self._refusal_count)
            self._refusal_count, self._logged_at = 0, now
        error = Unavailable(FULL_DETAIL) if holder is None else TooManyRequests(SHARE_DETAIL)
        body = orjson.dumps({"errors": [error.to_dict()], "jsonapi": {"version": "1.1"}})
        headers = [
            ("Content-Type", MEDIA_TYPE),
            ("Content-Length", str(len(body))),
            ("Retry-After", str(RETRY_AFTER_SECONDS)),
            ("Vary", "Accept, Authorization"),
        ]
        start_response(f"{error.http_status.value} {error.http_status.phrase}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def init_app(app: Flask) -> None:
    """Let requests wait for their slots before Flask handles them, and remove headers that are too long to parse.

    A request with a body waits after its body was read (`init_body_slots`), so that a slow client holds no slot.
    """
    app.extensions["request_slots"] = slots = SlotPool(
        MAX_REQUESTS,
        MAX_REQUESTS_PER_ADDRESS,
        max_waiting=MAX_WAITING,
        max_waiting_per_holder=MAX_WAITING_PER_ADDRESS,
    )
    refusals = _RefusalResponder()
    answer = app.wsgi_app

    def answer_with_slot(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        for header, key in (("Accept", "HTTP_ACCEPT"), ("Content-Type", "CONTENT_TYPE")):
            if len(environ.get(key, "")) > MAX_MEDIA_TYPE_HEADER_LENGTH:
                del environ[key]
                environ[LONG_HEADER_KEY] = header
        has_body = environ.get("CONTENT_LENGTH", "0") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ
        if has_body or SLOT_EXEMPT_KEY in environ:
            return answer(environ, start_response)
        holders = address_holders(environ.get("REMOTE_ADDR", ""))
        try:
            slot = slots.acquire(*holders, timeout_seconds=SLOT_TIMEOUT_SECONDS)
        except NoFreeSlotError as error:
            return refusals.send_refusal(environ, start_response, error.holder)
        environ[SLOT_EXEMPT_KEY] = True
        try:
            return answer(environ, start_response)
        finally:
            slots.release(slot)

    app.wsgi_app = answer_with_slot  # type: ignore[method-assign]  # Flask's documented way


def init_body_slots(app: Flask) -> None:
    """Let requests with a body wait for their slots after the body was read; release the slots after the response."""
    slots: SlotPool = app.extensions["request_slots"]

    def take() -> None:
        environ = request.environ
        if header := environ.get(LONG_HEADER_KEY):
            raise BadRequest(f"{header} may have at most {MAX_MEDIA_TYPE_HEADER_LENGTH} characters.", header=header)
        if SLOT_EXEMPT_KEY in environ:
            return
        g.request_slot = take_slot(
            slots,
            address_holders(request.remote_addr or ""),
            full=FULL_DETAIL,
            share=SHARE_DETAIL,
            retry_after=RETRY_AFTER_SECONDS,
            timeout_seconds=SLOT_TIMEOUT_SECONDS,
        )

    def release(_error: BaseException | None) -> None:
        slot: Slot | None = g.pop("request_slot", None)
        if slot is not None:
            slots.release(slot)

    app.before_request(take)
    app.teardown_request(release)
