"""Operations of events besides those of every resource type: to accept and to decline the ownership of an event."""

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
    """Return the success responses of a view of events; None for a view of every resource type."""
    if issubclass(view, AcceptOwnership):
        return success_response(
            HTTPStatus.OK, "The user is now the owner.", component_ref("EventDocument"), *OWNERSHIP_HEADERS
        )
    if issubclass(view, DeclineOwnership):
        return success_response(
            HTTPStatus.OK, "The owner has not changed.", component_ref("MetaDocument"), *OWNERSHIP_HEADERS
        )
    return None
