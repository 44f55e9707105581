"""/openapi.json: the API described for generators of clients and tools like Swagger UI."""

import orjson
from flask import Blueprint, Flask, Response, current_app

from app.openapi.document import build
from app.preconditions import apply_preconditions

openapi = Blueprint("openapi", __name__)


def install(app: Flask) -> None:
    """Register the route; each process builds the document once, for the first request."""
    app.register_blueprint(openapi)


@openapi.get("/openapi.json")
def show() -> Response:
    """Get the OpenAPI 3.1 document of this server."""
    body = current_app.extensions.get("openapi")
    if body is None:
        body = current_app.extensions["openapi"] = orjson.dumps(build(current_app))
    response = Response(body, content_type="application/json")
    response.headers["Cache-Control"] = "no-cache"  # kept, but asked about each time
    response.add_etag()
    apply_preconditions(response)
    return response


show.permission = "anyone"  # type: ignore[attr-defined]  # read by `manage.py routes`
