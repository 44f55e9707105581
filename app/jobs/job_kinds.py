"""/v1/job-kinds: what the caller may start, with the JSON Schema of its parameters."""

from typing import ClassVar

from flask import Response, request
from flask.views import MethodView

from app.database import transaction
from app.errors import NotFound
from app.jobs.kinds import KINDS, Kind
from app.jobs.submission import is_offered
from app.jsonapi.negotiation import check_accept
from app.jsonapi.permissions import signed_in, words
from app.jsonapi.plan import Item
from app.jsonapi.query import NOTHING, check_names
from app.jsonapi.reading import JSONAPI
from app.jsonapi.view import answer, path
from app.jsonapi.viewer import Viewer, signed_in_viewer

TYPE = "job-kind"
URL = "/v1/job-kinds"


class _KindView(MethodView):
    """What both views of kinds share."""

    methods: ClassVar[set[str]] = {"GET"}
    viewer: Viewer

    @classmethod
    def permissions_by_method(cls) -> dict[str, str]:
        """Names of programs and tasks tell of the inside of the server: callers see what they may start."""
        return {"GET": words(signed_in)}

    def dispatch_request(self, **names: str) -> Response:
        """Negotiate as for every resource."""
        check_accept(request.headers)
        check_names(request.query_string, NOTHING)
        with transaction(is_read=True):
            self.viewer = signed_in_viewer()
        response: Response = super().dispatch_request(**names)  # type: ignore[assignment]  # Flask's type says more than a Response
        return response

    def is_shown(self, kind: Kind) -> bool:
        """Return whether the server offers the kind, and the caller may start it with some parameters."""
        return is_offered(kind) and kind.may(self.viewer, {})


class KindList(_KindView):
    """All kinds that the caller may start, by name."""

    def get(self) -> Response:
        kinds = sorted(filter(self.is_shown, KINDS.values()), key=lambda kind: kind.name)
        links = {"self": path()}
        meta = {"count": len(kinds)}
        return answer({"data": [_printed(kind) for kind in kinds], "links": links, "meta": meta, "jsonapi": JSONAPI})


class KindDetail(_KindView):
    """One kind."""

    def get(self, id: str) -> Response:
        kind = KINDS.get(id)
        if kind is None or not self.is_shown(kind):
            raise NotFound(f"There is no job-kind {id[:80]!r} here.")
        return answer({"data": _printed(kind), "links": {"self": path()}, "jsonapi": JSONAPI})


def _printed(kind: Kind) -> Item:
    attributes = {
        "title": kind.title,
        "parameters": kind.parameters,
        "runner": kind.runner,
        "dedupe": kind.dedupe,
        "time-limit": kind.time_limit.total_seconds(),
        "max-attempts": kind.max_attempts,
        "concurrency": kind.concurrency,
        "started-by": list(kind.on),
    }
    return {"type": TYPE, "id": kind.name, "attributes": attributes, "links": {"self": f"{URL}/{kind.name}"}}
