"""`python -m benchmarks.serve SYSTEM`: serve one system with the web server of `manage.py web`."""

import os
import sys
from collections.abc import Callable
from typing import Any

from flask import Flask

import config
from app.factory import create_app
from app.outbox import CONSUMERS
from app.web import serve_app
from benchmarks import handwritten, static_response, stock_library


def create_app_without_consumers(settings: dict[str, Any]) -> Flask:
    """Return the app without outbox consumers, so that no outbox entry is written."""
    app = create_app(settings)
    CONSUMERS.clear()
    return app


SYSTEMS: dict[str, Callable[[dict[str, Any]], Flask]] = {
    "ours": create_app,
    "stock": stock_library.create_app,
    "limit": handwritten.create_app,
    "constant": static_response.create_app,
    "no-outbox": create_app_without_consumers,
}

if __name__ == "__main__":
    settings = config.read_config(os.environ)
    serve_app(settings, lambda: SYSTEMS[sys.argv[1]](settings))
