"""The pages below /jobs, for browsers."""

from datetime import datetime
from pathlib import Path

from flask import Flask

from app.pages import document_sets, login, responses, sse, treatment_form, views
from app.pages.decorators import pages
from app.pages.job_presenter import BLANK
from app.site.assets import register_assets

STATIC = Path(__file__).resolve().parent / "static"

VIEW_MODULES = (document_sets, login, sse, treatment_form, views)
"""Modules that register their routes on import."""


def init_app(app: Flask) -> None:
    """Register the routes and template filters of the pages."""
    register_assets(STATIC, "jobs.js")
    app.jinja_env.globals["blank"] = BLANK
    app.jinja_env.filters["moment"] = format_time
    app.register_blueprint(pages)
    app.after_request(responses.add_headers)


def format_time(at: str) -> str:
    """Format an ISO 8601 time in UTC; the script replaces it by local time."""
    return f"{datetime.fromisoformat(at):%-d %b %Y, %H:%M:%S} UTC" if at else ""
