"""The operations of events that are not those of every resource: the answers to an offer of ownership."""

from collections.abc import Mapping
from http import HTTPStatus

from app.events.resources import AcceptOwnership, DeclineOwnership
from app.jsonapi.base_view import View
from app.openapi.json_schema import Json, component_ref
from app.openapi.responses import success_response

OPERATION_NAMES: Mapping[type, Mapping[str, tuple[str, str]]] = {
    AcceptOwnership: {"POST": ("Accept the ownership of {a_type}", "acceptOwnershipOf{Type}")},
    DeclineOwnership: {"POST": ("Decline the ownership of {a_type}", "declineOwnershipOf{Type}")},
}

OWNERSHIP_HEADERS = ("ETag", "Vary", "Idempotent-Replayed")


def find_success_responses(view: type[View]) -> Json | None:
    """Return the answer of a view of events that succeeds; None for what every resource does."""
    if issubclass(view, AcceptOwnership):
        return success_response(
            HTTPStatus.OK, "The caller is the owner.", component_ref("EventDocument"), *OWNERSHIP_HEADERS
        )
    if issubclass(view, DeclineOwnership):
        return success_response(
            HTTPStatus.OK, "The owner is the one of before.", component_ref("MetaDocument"), *OWNERSHIP_HEADERS
        )
    return None
