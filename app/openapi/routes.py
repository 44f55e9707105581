"""/openapi.json: the OpenAPI document for client generators and tools such as Swagger UI."""

import threading

import orjson
from flask import Blueprint, Flask, Response, current_app

from app.openapi.document import build_document
from app.preconditions import apply_preconditions

openapi = Blueprint("openapi", __name__)

_build_lock = threading.Lock()


def init_app(app: Flask) -> None:
    """Register the route; each process builds the document once, for the first request."""
    app.register_blueprint(openapi)


@openapi.get("/openapi.json")
def show() -> Response:
    """Get the OpenAPI 3.1 document of this server."""
    response = Response(_get_document_bytes(), content_type="application/json")
    response.headers["Cache-Control"] = "no-cache"  # cached, but revalidated each time
    response.add_etag()
    apply_preconditions(response)
    return response


def _get_document_bytes() -> bytes:
    # Concurrent requests wait for the first one: each would build the document for seconds.
    with _build_lock:
        if "openapi" not in current_app.extensions:
            current_app.extensions["openapi"] = orjson.dumps(build_document(current_app))
        document: bytes = current_app.extensions["openapi"]
        return document


show.permission = "anyone"  # type: ignore[attr-defined]  # read by `manage.py routes`
