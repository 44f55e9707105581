"""The home page at / for browsers, and the JSON:API entry document at / and /v1 for API clients."""

from typing import NamedTuple

import orjson
import structlog
from flask import Blueprint, Response, current_app, render_template, request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.jsonapi.base_view import json_response
from app.jsonapi.negotiation import check_accept
from app.jsonapi.query_params import NO_FAMILIES, parse_parameters
from app.jsonapi.reader import JSONAPI
from app.jsonapi.resource_type import TYPES
from app.jsonapi.select_plan import Item
from app.preconditions import apply_preconditions
from app.site.responses import HTML_MEDIA_TYPE, add_page_headers, prefers_html
from app.site.upcoming_events import UpcomingEvent, list_upcoming_events
from app.version import VERSION

TITLE = "Open Event API server"

log = structlog.get_logger(__name__)

home = Blueprint("home", __name__, template_folder="templates")


class Health(NamedTuple):
    """Result of the health check, with the names of the failing checks."""

    is_healthy: bool
    failing: list[str]


@home.get("/")
def show_home() -> Response:
    """Show the page to browsers, the entry document to API clients."""
    return _show_page() if prefers_html() else show_entry()


@home.get("/v1")
def show_entry() -> Response:
    """Get the entry document: links to all collections, and the version of the server."""
    check_accept(request.headers)
    parse_parameters(request.query_string, NO_FAMILIES)
    document: Item = {
        "jsonapi": JSONAPI,
        "meta": {"title": TITLE, "version": VERSION},
        "links": {"self": request.path.rstrip("/") or "/", "describedby": "/openapi.json", **_list_collection_urls()},
    }
    return json_response(document)


for _view in (show_home, show_entry):
    _view.permission = "anyone"  # type: ignore[attr-defined]  # read by `manage.py routes`


def _list_collection_urls() -> dict[str, str]:
    """Return the URLs of all resource types that have a collection, by plural name."""
    routes = {rule.rule for rule in current_app.url_map.iter_rules()}
    return {type_.plural: type_.path for type_ in TYPES.values() if type_.path in routes}


def _show_page() -> Response:
    health = _read_health()
    html = render_template(
        "home.html",
        title=TITLE,
        version=VERSION,
        source=current_app.config["SOURCE_URL"],
        health=health,
        events=_read_events(health),
    )
    response = Response(html, content_type=HTML_MEDIA_TYPE)
    response.headers["Vary"] = "Accept"
    response.headers["Cache-Control"] = "no-cache"  # stored, but revalidated each time
    add_page_headers(response)
    response.add_etag()
    apply_preconditions(response)
    return response


def _read_health() -> Health:
    """Return the result of /health-check, which is cached for two seconds and takes at most one."""
    body, status, _headers = current_app.extensions["health"].run()
    return Health(status == 200, [each["checker"] for each in orjson.loads(body)["results"] if not each["passed"]])


def _read_events(health: Health) -> list[UpcomingEvent] | None:
    """Return the next events; None if the database does not respond, so that the page is still shown."""
    if "health_check_db" in health.failing:
        return None
    try:
        return list_upcoming_events()
    except (DBAPIError, PoolTimeout) as error:
        log.warning("home page shown without events: database unavailable", error=type(error).__name__)
        return None
