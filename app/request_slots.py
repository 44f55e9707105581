"""Slots of requests: how many of one client address are in progress at once, from their body to their response.

Each request in progress competes for the interpreter, also one whose client has left, and one that needs no database.
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
"""Requests in progress at once; `app/web.py` has threads for these and for those that wait."""

MAX_REQUESTS_PER_ADDRESS = 12
"""Of these, how many one client address may have at once."""

MAX_WAITING = 256
MAX_WAITING_PER_ADDRESS = 192
"""Thirty people behind one address load a page with six requests each; others are refused at once."""

SLOT_TIMEOUT_SECONDS = 5.0
"""How long a request waits for its slot."""

RETRY_AFTER_SECONDS = 1

MAX_MEDIA_TYPE_HEADER_LENGTH = 1024
"""Characters of `Accept` and `Content-Type`: parsing them takes more time than anything else before the view."""

SLOT_EXEMPT_KEY = "open_event.needs_no_slot"
"""The key of the WSGI environment of probes at HEALTH_ADDRESS, and of requests that took their slot before Flask."""

LONG_HEADER_KEY = "open_event.long_header"
"""The key of the WSGI environment for the name of a header that was removed because it is too long."""

LOG_INTERVAL_SECONDS = 1.0

FULL_DETAIL = "Too many requests are in progress at this moment. Try again."

SHARE_DETAIL = (
    f"Too many requests of your address are in progress: {MAX_REQUESTS_PER_ADDRESS} run at once, and others wait. "
    "Send fewer at once."
)

log = structlog.get_logger(__name__)


class _RefusalResponder:
    """Responses to requests that got no slot, without Flask: a flood of them must cost little."""

    def __init__(self) -> None:
        self._refusal_count = 0
        self._logged_at = 0.0

    def send_refusal(
        self, environ: "WSGIEnvironment", start_response: "StartResponse", holder: str | None
    ) -> Iterable[bytes]:
        """Send 429 where a holder has its share, otherwise 503; log once a second how many were sent."""
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
    """Let requests wait for their slots before Flask sees them, and remove headers that are too long to be parsed.

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
    """Let a request with a body wait for its slot when the body has been read; return the slot with the response."""
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
