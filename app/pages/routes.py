"""Everything below /jobs, for people with a browser."""

from datetime import datetime
from pathlib import Path

from flask import Flask

from app.pages import document_sets, login, responses, sse, treatment_form, views
from app.pages.decorators import pages
from app.pages.job_presenter import BLANK
from app.site.assets import register_assets

STATIC = Path(__file__).resolve().parent / "static"

VIEW_MODULES = (document_sets, login, sse, treatment_form, views)
"""They register their routes when they are imported."""


def init_app(app: Flask) -> None:
    """Answer."""
    register_assets(STATIC, "jobs.js")
    app.jinja_env.globals["blank"] = BLANK
    app.jinja_env.filters["moment"] = format_time
    app.register_blueprint(pages)
    app.after_request(responses.add_headers)


def format_time(at: str) -> str:
    """A time as people read it before the script says it in their own zone."""
    return f"{datetime.fromisoformat(at):%-d %b %Y, %H:%M:%S} UTC" if at else ""
