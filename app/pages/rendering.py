"""Rendering of pages for signed-in users."""

from http import HTTPStatus
from typing import Any

from flask import Response, current_app, render_template, request

from app.pages import job_queries
from app.pages.cookies import PageSession


def render_page(template: str, caller: PageSession, status: HTTPStatus = HTTPStatus.OK, **more: Any) -> Response:
    """Render a template with the values that all pages need for their header and forms; return the response."""
    query = request.query_string.decode("ascii", "replace")
    path = request.path.rstrip("/")
    html = render_template(
        template,
        email=job_queries.get_email(caller.viewer),
        token=caller.csrf_token,
        here=f"{path}?{query}" if query else path,
        has_processor=has_processor(),
        **more,
    )
    return Response(html, status, content_type="text/html; charset=utf-8")


def has_processor() -> bool:
    """Return whether a processor is configured, so that treatments can be started."""
    return bool(current_app.config["PROCESSOR_URL"])
