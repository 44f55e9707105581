"""Views of /v1/job-kinds: the kinds that the current user may start, with the JSON Schema of their parameters."""

from typing import ClassVar

from flask import Response, request
from flask.views import MethodView

from app.database import open_transaction
from app.errors import NotFound
from app.jobs.kinds import KINDS, Kind
from app.jobs.submission import is_offered
from app.jsonapi.base_view import json_response, request_path
from app.jsonapi.current_user import CurrentUser, require_current_user
from app.jsonapi.negotiation import check_accept
from app.jsonapi.permissions import any_user, describe_predicate
from app.jsonapi.query_params import NO_FAMILIES, parse_parameters
from app.jsonapi.reader import JSONAPI
from app.jsonapi.select_plan import Item

RESOURCE_TYPE_NAME = "job-kind"
COLLECTION_URL = "/v1/job-kinds"


class _KindView(MethodView):
    """Base of both views of kinds."""

    methods: ClassVar[set[str]] = {"GET"}
    viewer: CurrentUser

    @classmethod
    def permissions_by_method(cls) -> dict[str, str]:
        """Return the permission of each method; the views show only kinds that the current user may start.

        Names of programs and tasks would reveal internals of the server.
        """
        return {"GET": describe_predicate(any_user)}

    def dispatch_request(self, **names: str) -> Response:
        """Check the Accept header and the query parameters, and load the current user, as for every resource."""
        check_accept(request.headers)
        parse_parameters(request.query_string, NO_FAMILIES)
        with open_transaction(is_read=True):
            self.viewer = require_current_user()
        response: Response = super().dispatch_request(**names)  # type: ignore[assignment]  # Flask's type says more than a Response
        return response

    def is_visible(self, kind: Kind) -> bool:
        """Return whether the kind is available and the current user may start it with some parameters."""
        return is_offered(kind) and kind.can_start(self.viewer, {})


class KindList(_KindView):
    """All kinds that the current user may start, sorted by name."""

    def get(self) -> Response:
        kinds = sorted(filter(self.is_visible, KINDS.values()), key=lambda kind: kind.name)
        links = {"self": request_path()}
        meta = {"count": len(kinds)}
        return json_response(
            {"data": [_serialize_kind(kind) for kind in kinds], "links": links, "meta": meta, "jsonapi": JSONAPI}
        )


class KindDetail(_KindView):
    """One kind."""

    def get(self, id: str) -> Response:
        kind = KINDS.get(id)
        if kind is None or not self.is_visible(kind):
            raise NotFound(f"There is no job-kind {id[:80]!r} here.")
        return json_response({"data": _serialize_kind(kind), "links": {"self": request_path()}, "jsonapi": JSONAPI})


def _serialize_kind(kind: Kind) -> Item:
    attributes = {
        "title": kind.title,
        "parameters": kind.parameters,
        "runner": kind.runner,
        "dedupe": kind.dedupe,
        "time-limit": kind.time_limit.total_seconds(),
        "max-attempts": kind.max_attempts,
        "concurrency": kind.concurrency,
        "started-by": list(kind.triggers),
    }
    return {
        "type": RESOURCE_TYPE_NAME,
        "id": kind.name,
        "attributes": attributes,
        "links": {"self": f"{COLLECTION_URL}/{kind.name}"},
    }
