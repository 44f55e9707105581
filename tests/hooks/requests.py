"""Requests of users who manage hooks, and of senders that call them."""

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
    """Create a hook, by default of the kind `sleep` with 0 seconds, and return the response."""
    given = {"seconds": 0} if parameters is None else parameters
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return caller.create("/v1/hooks", "hook", {"kind": kind, "parameters": given, **named})


def create_hook(caller: ApiClient, kind: str = "sleep", parameters: Any = None, **more: Any) -> Any:
    """Create a hook like `post_hook` and return the resource."""
    return get_data(post_hook(caller, kind, parameters, **more))


def get_hook_path(hook: Any) -> str:
    """Return the path at which a hook is called."""
    url: str = hook["attributes"]["url"]
    return url[url.index("/v1/") :]


def call_hook(app: Flask, hook: Any, body: Any = None, **headers: str) -> TestResponse:
    """Call a hook without authentication and return the buffered response; a body that is not bytes becomes JSON."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None and not isinstance(body, bytes):
        body = orjson.dumps(body)
        sent.setdefault("Content-Type", JSON)
    return app.test_client().post(get_hook_path(hook), data=body, headers=sent, buffered=True)


def get_job_id(response: TestResponse) -> str:
    """Return the id of the job in a response."""
    assert response.status_code in (200, 202), response.text
    id_: str = response.get_json()["job"]["id"]
    return id_


def sign_message(secret: str, message_id: str, sent_at: str, body: bytes) -> str:
    """Return the signature of a message (Standard Webhooks)."""
    key = b64decode(secret.removeprefix("whsec_"), validate=True)
    signed = b".".join((message_id.encode(), sent_at.encode(), body))
    return f"v1,{b64encode(hmac.digest(key, signed, 'sha256')).decode()}"


def build_signed_headers(
    hook: Any, body: bytes = b"", *, message_id: str = "msg_1", seconds: int = 0
) -> dict[str, str]:
    """Return the headers of a message that is signed with a time this many seconds from now."""
    sent_at = str(int(time.time()) + seconds)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": sent_at,
        "webhook-signature": sign_message(hook["attributes"]["secret"], message_id, sent_at, body),
    }
