"""Signatures of Standard Webhooks (https://www.standardwebhooks.com), scheme `v1`: HMAC-SHA256.

A secret is derived from SECRET_KEY and its context (`about`) and not stored: read access to the database is not enough
to sign. A new SECRET_KEY changes all secrets.
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
"""Seconds between the timestamp of a message and the current time."""

# Without dots, which separate the parts of the signed content.
_ID_RE = re.compile(r"[!-\-/-~]{1,255}", re.ASCII)
_TIMESTAMP_RE = re.compile(r"[0-9]{1,12}", re.ASCII)


class InvalidSignature(Unauthenticated):
    """The signature of the call is missing or not valid."""

    def __init__(self, detail: str, header: str) -> None:
        super().__init__(detail, header=header, code="invalid-signature")
        self.headers = {"WWW-Authenticate": 'Webhook-Signature realm="open-event"'}  # not the scheme of access tokens


def derive_secret(about: bytes) -> str:
    """Return the secret of a context in the format of Standard Webhooks: `whsec_` and base64."""
    return f"whsec_{b64encode(derive_key(about)).decode()}"


def has_signature(headers: Headers) -> bool:
    """Return whether a message has one of the signature headers."""
    return any(name in headers for name in (ID, TIMESTAMP, SIGNATURE))


def verify_message(about: bytes, headers: Headers, body: bytes) -> str:
    """Return the id of a message; raise InvalidSignature for another secret or an old or future timestamp."""
    message_id, sent_at = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    if not _ID_RE.fullmatch(message_id):
        raise InvalidSignature(f"Calls must be signed: {ID} is missing or not valid.", ID)
    if not _TIMESTAMP_RE.fullmatch(sent_at) or abs(time.time() - int(sent_at)) > TIMESTAMP_TOLERANCE_SECONDS:
        raise InvalidSignature(
            f"Must be a Unix time within {TIMESTAMP_TOLERANCE_SECONDS} seconds of the current time.", TIMESTAMP
        )
    signed = f"{message_id}.{sent_at}.".encode() + body
    expected = b64encode(hmac.digest(derive_key(about), signed, "sha256"))
    if not any(hmac.compare_digest(each, expected) for each in _parse_signatures(headers)):
        raise InvalidSignature("No signature was made with the secret of this URL.", SIGNATURE)
    return message_id


def _parse_signatures(headers: Headers) -> list[bytes]:
    """Return the signatures of version `v1`; senders that rotate secrets send several, separated by spaces."""
    values = [each.partition(",") for each in headers.get(SIGNATURE, "").split(" ")]
    return [signature.encode() for version, _, signature in values if version == "v1"]
