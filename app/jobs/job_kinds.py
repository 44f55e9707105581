"""/v1/job-kinds: what can run, with the JSON Schema of its parameters."""

from typing import ClassVar

from flask import Response, request
from flask.views import MethodView

from app.errors import NotFound
from app.jobs.kinds import KINDS, Kind
from app.jobs.submission import is_offered
from app.jsonapi.negotiation import check_accept
from app.jsonapi.permissions import anyone, words
from app.jsonapi.plan import Item
from app.jsonapi.query import NOTHING, check_names
from app.jsonapi.reading import JSONAPI
from app.jsonapi.view import answer, path

TYPE = "job-kind"
URL = "/v1/job-kinds"


class _KindView(MethodView):
    """What both views of kinds share."""

    methods: ClassVar[set[str]] = {"GET"}

    @classmethod
    def permissions_by_method(cls) -> dict[str, str]:
        """They are no secret; who may start which is asked when it is started."""
        return {"GET": words(anyone)}

    def dispatch_request(self, **names: str) -> Response:
        """Negotiate as for every resource."""
        check_accept(request.headers)
        check_names(request.query_string, NOTHING)
        response: Response = super().dispatch_request(**names)  # type: ignore[assignment]  # Flask's type says more than a Response
        return response


class KindList(_KindView):
    """All kinds that this server runs, by name."""

    def get(self) -> Response:
        kinds = sorted((kind for kind in KINDS.values() if is_offered(kind)), key=lambda kind: kind.name)
        links = {"self": path()}
        meta = {"count": len(kinds)}
        return answer({"data": [_printed(kind) for kind in kinds], "links": links, "meta": meta, "jsonapi": JSONAPI})


class KindDetail(_KindView):
    """One kind."""

    def get(self, id: str) -> Response:
        kind = KINDS.get(id)
        if kind is None or not is_offered(kind):
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
