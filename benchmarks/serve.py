"""`python -m benchmarks.serve SYSTEM`: one system behind the web server that `manage.py web` runs."""

import os
import sys
from collections.abc import Callable
from typing import Any

from flask import Flask

import config
from app.factory import create_app
from app.outbox import CONSUMERS
from app.web import serve
from benchmarks import constant, limit, stock


def without_consumers(settings: dict[str, Any]) -> Flask:
    """Ours, with nobody who waits for a change: no outbox row is ever written."""
    app = create_app(settings)
    CONSUMERS.clear()
    return app


SYSTEMS: dict[str, Callable[[dict[str, Any]], Flask]] = {
    "ours": create_app,
    "stock": stock.create_app,
    "limit": limit.create_app,
    "constant": constant.create_app,
    "no-outbox": without_consumers,
}

if __name__ == "__main__":
    settings = config.read(os.environ)
    serve(settings, lambda: SYSTEMS[sys.argv[1]](settings))
