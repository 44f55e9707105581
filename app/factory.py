"""create_app: the one place that knows every package."""

from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from app import changes, outbox
from app.events import models as _events
from app.extensions import cors, db, limiter, migrate
from app.faqs import models as _faqs

MODELS = (_events, _faqs)


def create_app(config: dict[str, Any]) -> Flask:
    """The WSGI app made from what `config.read` returned."""
    app = Flask("app", static_folder=None)
    app.config.update(config)
    bind_database(app)
    trust_proxies(app)
    outbox.subscribe()
    return app


def bind_database(app: Flask) -> None:
    """One pool per process; a dead connection is noticed when it is taken, not when it is used."""
    app.config["SQLALCHEMY_DATABASE_URI"] = app.config["DATABASE_URL"]
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "pool_size": app.config["DATABASE_POOL"],
        "max_overflow": 0,
        "pool_timeout": 5,
        "pool_pre_ping": True,
        "connect_args": {"connect_timeout": 3, "options": "-c timezone=UTC", "application_name": "open-event"},
    }
    db.init_app(app)
    migrate.init_app(app, db)
    changes.install(db.session)


def trust_proxies(app: Flask) -> None:
    """X-Forwarded-* count for as many hops as the operator names, from nobody else."""
    if hops := app.config["TRUSTED_PROXIES"]:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=0)  # type: ignore[method-assign]  # Flask's documented way


__all__ = ["MODELS", "cors", "create_app", "limiter"]
