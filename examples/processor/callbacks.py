"""Tells the server how a run goes: signed (https://www.standardwebhooks.com), in order, again until it is heard."""

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

ANSWER_SECONDS = 10.0
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
PATIENCE = 600.0
"""Seconds after which a server that does not take a message is given up; it can still ask for the status."""

REFUSED = {401, 404, 410, 422}
"""The server will not take the message another time either."""


class Callbacks:
    """The messages of one run; a thread of its own sends them, so that the work never waits for the server."""

    def __init__(self, url: str, secret: str | None) -> None:
        self._url = url
        self._key = key_of(secret) if secret else None
        self._waiting: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread = Thread(target=self._send_all, daemon=True)
        self._thread.start()

    def send(self, message: Mapping[str, Any], *, is_last: bool = False) -> None:
        """Send it after those before it."""
        self._waiting.put(json.dumps(message).encode())
        if is_last:
            self._waiting.put(None)

    def wait(self, seconds: float) -> None:
        """Until the last message is sent, but no longer than this."""
        self._thread.join(max(0.0, seconds))

    def _send_all(self) -> None:
        with httpx.Client(timeout=ANSWER_SECONDS, trust_env=False) as client:
            while (body := self._waiting.get()) is not None:
                if not self._send(client, body):
                    return

    def _send(self, client: httpx.Client, body: bytes) -> bool:
        """Whether the server has answered for good; each time with the same id and bytes, so that it counts once."""
        id_, delay, until = f"msg_{uuid4().hex}", FIRST_DELAY, time.monotonic() + PATIENCE
        while not self._is_settled(client, id_, body):
            if time.monotonic() > until:
                return False
            time.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)
        return True

    def _is_settled(self, client: httpx.Client, id_: str, body: bytes) -> bool:
        headers = {"Content-Type": "application/json", **self._signature(id_, body)}
        try:
            status = client.post(self._url, content=body, headers=headers).status_code
        except (httpx.HTTPError, ValueError):  # ValueError: a host that cannot be a name
            return False
        return 200 <= status < 300 or status in REFUSED

    def _signature(self, id_: str, body: bytes) -> dict[str, str]:
        """Of this moment: a signature is valid for five minutes only. None where we were given no secret."""
        if self._key is None:
            return {}
        sent_at = str(int(time.time()))
        digest = hmac.digest(self._key, f"{id_}.{sent_at}.".encode() + body, "sha256")
        signature = f"v1,{b64encode(digest).decode()}"
        return {"webhook-id": id_, "webhook-timestamp": sent_at, "webhook-signature": signature}


def key_of(secret: str) -> bytes:
    """The key in `whsec_<base64>`; raises ValueError."""
    prefix, _, encoded = secret.partition("_")
    if prefix != "whsec" or not encoded:
        raise ValueError("a secret begins with whsec_")
    try:
        return b64decode(encoded, validate=True)
    except binascii.Error:
        raise ValueError("what follows whsec_ is not base64") from None
