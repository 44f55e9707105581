"""Everything below /jobs, for people with a browser."""

from datetime import datetime

from flask import Flask
from jinja2 import StrictUndefined

from app.pages import answers, assets, document_sets, sign_in, streams, treatments, views
from app.pages.routing import pages
from app.pages.shown import BLANK

MODULES = (assets, document_sets, sign_in, streams, treatments, views)
"""They register their routes when they are imported."""


def install(app: Flask) -> None:
    """Answer."""
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.globals.update(asset_url=assets.asset_url, blank=BLANK)
    app.jinja_env.filters["moment"] = moment
    app.register_blueprint(pages)
    app.after_request(answers.finish)


def moment(at: str) -> str:
    """A time as people read it before the script says it in their own zone."""
    return f"{datetime.fromisoformat(at):%-d %b %Y, %H:%M:%S} UTC" if at else ""
