"""Callbacks to the server: signed (https://www.standardwebhooks.com), sent in order, and retried."""

import binascii
import hmac
import json
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping
from queue import SimpleQueue
from threading import Thread
from typing import Any
from uuid import uuid4

import httpx

RESPONSE_TIMEOUT_SECONDS = 10.0
MIN_DELAY_SECONDS, MAX_DELAY_SECONDS = 0.5, 30.0
DELIVERY_TIMEOUT_SECONDS = 600.0
"""Seconds after which a message is not sent again; the server can still request the status."""

FINAL_STATUSES = {401, 404, 410, 422}
"""Statuses after which a message is not sent again: the server would refuse it each time."""


class Callbacks:
    """Sender of the callbacks of one run, in a thread of its own, so that the run does not wait for the server."""

    def __init__(self, url: str, secret: str | None) -> None:
        self._url = url
        self._key = decode_secret(secret) if secret else None
        self._waiting: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread = Thread(target=self._send_all, daemon=True)
        self._thread.start()

    def send(self, message: Mapping[str, Any], *, is_last: bool = False) -> None:
        """Queue a message; it is sent after the earlier ones."""
        self._waiting.put(json.dumps(message).encode())
        if is_last:
            self._waiting.put(None)

    def wait(self, seconds: float) -> None:
        """Wait until the last message is sent, at most this many seconds."""
        self._thread.join(max(0.0, seconds))

    def _send_all(self) -> None:
        with httpx.Client(timeout=RESPONSE_TIMEOUT_SECONDS, trust_env=False) as client:
            while (body := self._waiting.get()) is not None:
                if not self._send(client, body):
                    return

    def _send(self, client: httpx.Client, body: bytes) -> bool:
        """Send a message, each time with the same id and bytes; return False at DELIVERY_TIMEOUT_SECONDS."""
        id_, delay, until = f"msg_{uuid4().hex}", MIN_DELAY_SECONDS, time.monotonic() + DELIVERY_TIMEOUT_SECONDS
        while not self._is_settled(client, id_, body):
            if time.monotonic() > until:
                return False
            time.sleep(delay)
            delay = min(2 * delay, MAX_DELAY_SECONDS)
        return True

    def _is_settled(self, client: httpx.Client, id_: str, body: bytes) -> bool:
        headers = {"Content-Type": "application/json", **self._sign(id_, body)}
        try:
            status = client.post(self._url, content=body, headers=headers).status_code
        except (httpx.HTTPError, ValueError):  # ValueError: a host that is not valid in IDNA
            return False
        return 200 <= status < 300 or status in FINAL_STATUSES

    def _sign(self, id_: str, body: bytes) -> dict[str, str]:
        """Return signature headers with the current time, valid for five minutes; none without a secret."""
        if self._key is None:
            return {}
        sent_at = str(int(time.time()))
        digest = hmac.digest(self._key, f"{id_}.{sent_at}.".encode() + body, "sha256")
        signature = f"v1,{b64encode(digest).decode()}"
        return {"webhook-id": id_, "webhook-timestamp": sent_at, "webhook-signature": signature}


def decode_secret(secret: str) -> bytes:
    """Return the key in `whsec_<base64>`; raise ValueError."""
    prefix, _, encoded = secret.partition("_")
    if prefix != "whsec" or not encoded:
        raise ValueError("a secret must begin with whsec_")
    try:
        return b64decode(encoded, validate=True)
    except binascii.Error:
        raise ValueError("a secret must be base64 after whsec_") from None
