"""Hooks as people make them, and calls as senders send them."""

import hmac
import time
from base64 import b64decode, b64encode
from typing import Any

import orjson
from flask import Flask
from werkzeug.test import TestResponse

from tests.dataset import ApiClient, get_data

JSON = "application/json"


def post_hook(caller: ApiClient, kind: str = "sleep", parameters: Any = None, **more: Any) -> TestResponse:
    """A new hook; one whose jobs sleep no time where nothing else is said."""
    given = {"seconds": 0} if parameters is None else parameters
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return caller.create("/v1/hooks", "hook", {"kind": kind, "parameters": given, **named})


def create_hook(caller: ApiClient, kind: str = "sleep", parameters: Any = None, **more: Any) -> Any:
    """The same, which must succeed; the resource."""
    return get_data(post_hook(caller, kind, parameters, **more))


def get_hook_path(hook: Any) -> str:
    """The URL that is called, as the client of a test wants it."""
    url: str = hook["attributes"]["url"]
    return url[url.index("/v1/") :]


def call_hook(app: Flask, hook: Any, body: Any = None, **headers: str) -> TestResponse:
    """What a sender does, who has no account; bytes go as they are, all else as JSON. The answer is read to its end."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None and not isinstance(body, bytes):
        body = orjson.dumps(body)
        sent.setdefault("Content-Type", JSON)
    return app.test_client().post(get_hook_path(hook), data=body, headers=sent, buffered=True)


def get_job_id(response: TestResponse) -> str:
    """The id of the job in an answer."""
    assert response.status_code in (200, 202), response.text
    id_: str = response.get_json()["job"]["id"]
    return id_


def sign_message(secret: str, message_id: str, sent_at: str, body: bytes) -> str:
    """As the sender of a signed message makes it."""
    key = b64decode(secret.removeprefix("whsec_"), validate=True)
    signed = b".".join((message_id.encode(), sent_at.encode(), body))
    return f"v1,{b64encode(hmac.digest(key, signed, 'sha256')).decode()}"


def build_signed_headers(
    hook: Any, body: bytes = b"", *, message_id: str = "msg_1", seconds: int = 0
) -> dict[str, str]:
    """The headers of a signed message that is sent in so many seconds."""
    sent_at = str(int(time.time()) + seconds)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": sent_at,
        "webhook-signature": sign_message(hook["attributes"]["secret"], message_id, sent_at, body),
    }
