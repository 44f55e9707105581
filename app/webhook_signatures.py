"""Signed calls, as Standard Webhooks describes them (https://www.standardwebhooks.com): HMAC-SHA256, `v1`.

A secret is derived from SECRET_KEY and what it is `about`, and stored nowhere: who reads the database cannot sign. With
another SECRET_KEY all secrets are others.
"""

import hmac
import re
import time
from base64 import b64encode

from werkzeug.datastructures import Headers

from app.derived_keys import derive_key
from app.errors import Unauthenticated

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
TIMESTAMP_TOLERANCE_SECONDS = 300
"""Seconds that a message may be old, or a clock may be wrong."""

# Without dots, which separate what is signed.
_ID_RE = re.compile(r"[!-\-/-~]{1,255}", re.ASCII)
_TIMESTAMP_RE = re.compile(r"[0-9]{1,12}", re.ASCII)


class InvalidSignature(Unauthenticated):
    """The call is not signed as it should be."""

    def __init__(self, detail: str, header: str) -> None:
        super().__init__(detail, header=header, code="invalid-signature")
        self.headers = {"WWW-Authenticate": 'Webhook-Signature realm="open-event"'}  # a token is not what is missing


def derive_secret(about: bytes) -> str:
    """A secret as its sender is given it."""
    return f"whsec_{b64encode(derive_key(about)).decode()}"


def has_signature(headers: Headers) -> bool:
    """Whether a message carries anything of a signature."""
    return any(name in headers for name in (ID, TIMESTAMP, SIGNATURE))


def verify_message(about: bytes, headers: Headers, body: bytes) -> str:
    """The id of a message that is signed with this secret and was sent just now; 401 otherwise."""
    message_id, sent_at = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    if not _ID_RE.fullmatch(message_id):
        raise InvalidSignature(f"Only signed calls are taken here: {ID} is missing, or is none.", ID)
    if not _TIMESTAMP_RE.fullmatch(sent_at) or abs(time.time() - int(sent_at)) > TIMESTAMP_TOLERANCE_SECONDS:
        raise InvalidSignature(
            f"Must be the present time in seconds, within {TIMESTAMP_TOLERANCE_SECONDS} of ours.", TIMESTAMP
        )
    signed = f"{message_id}.{sent_at}.".encode() + body
    expected = b64encode(hmac.digest(derive_key(about), signed, "sha256"))
    if not any(hmac.compare_digest(each, expected) for each in _parse_signatures(headers)):
        raise InvalidSignature("None of the signatures is made with the secret for these calls.", SIGNATURE)
    return message_id


def _parse_signatures(headers: Headers) -> list[bytes]:
    """Those of our version: while a sender changes secrets there are several, separated by spaces."""
    listed = [each.partition(",") for each in headers.get(SIGNATURE, "").split(" ")]
    return [signature.encode() for version, _, signature in listed if version == "v1"]
