"""The home page, the documentation, and the assets that all pages share."""

from pathlib import Path

from flask import Flask
from jinja2 import StrictUndefined

from app.site.assets import asset_url, assets, register_assets
from app.site.documentation import VIEWER_ASSETS, VIEWER_DIRECTORY, documentation
from app.site.home import home
from app.site.responses import show_errors_as_pages
from app.site.well_known import well_known

STATIC = Path(__file__).resolve().parent / "static"
ASSETS = ("theme.css", "site.css", "icon.svg", "openapi.js", "openapi.css")


def init_app(app: Flask) -> None:
    """Register the routes, and the error pages for browsers."""
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.globals["asset_url"] = asset_url
    register_assets(STATIC, *ASSETS)
    register_assets(VIEWER_DIRECTORY, *VIEWER_ASSETS)
    for blueprint in (assets, home, documentation, well_known):
        app.register_blueprint(blueprint)
    app.after_request(show_errors_as_pages)
