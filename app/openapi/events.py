"""The operations of events that are not those of every resource: the answers to an offer of ownership."""

from collections.abc import Mapping
from http import HTTPStatus

from app.events.resources import AcceptOwnership, DeclineOwnership
from app.jsonapi.view import View
from app.openapi.json_schema import Json, reference
from app.openapi.responses import answered

WORDS: Mapping[type, Mapping[str, tuple[str, str]]] = {
    AcceptOwnership: {"POST": ("Accept the ownership of {a_type}", "acceptOwnershipOf{Type}")},
    DeclineOwnership: {"POST": ("Decline the ownership of {a_type}", "declineOwnershipOf{Type}")},
}

HEADERS = ("ETag", "Vary", "Idempotent-Replayed")


def success(view: type[View]) -> Json | None:
    """Return the answer of a view of events that succeeds; None for what every resource does."""
    if issubclass(view, AcceptOwnership):
        return answered(HTTPStatus.OK, "The caller is the owner.", reference("EventDocument"), *HEADERS)
    if issubclass(view, DeclineOwnership):
        return answered(HTTPStatus.OK, "The owner is the one of before.", reference("MetaDocument"), *HEADERS)
    return None
