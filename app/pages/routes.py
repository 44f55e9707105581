"""Everything below /jobs, for people with a browser."""

from datetime import datetime
from pathlib import Path

from flask import Flask

from app.pages import answers, document_sets, sign_in, streams, treatments, views
from app.pages.routing import pages
from app.pages.shown import BLANK
from app.site.assets import register_assets

STATIC = Path(__file__).resolve().parent / "static"

MODULES = (document_sets, sign_in, streams, treatments, views)
"""They register their routes when they are imported."""


def install(app: Flask) -> None:
    """Answer."""
    register_assets(STATIC, "jobs.js")
    app.jinja_env.globals["blank"] = BLANK
    app.jinja_env.filters["moment"] = moment
    app.register_blueprint(pages)
    app.after_request(answers.finish)


def moment(at: str) -> str:
    """A time as people read it before the script says it in their own zone."""
    return f"{datetime.fromisoformat(at):%-d %b %Y, %H:%M:%S} UTC" if at else ""
