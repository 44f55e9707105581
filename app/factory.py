"""create_app: the one place that knows every package."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import structlog
from flask import Blueprint, Flask, Request
from flask.sessions import SessionInterface
from flask_rest_jsonapi_next import Api

from app import (
    archive,
    bodies,
    changes,
    cors,
    database,
    errors,
    large_answers,
    logs,
    mail,
    memory,
    outbox,
    proxies,
    quotas,
    relay,
    request_slots,
    response_headers,
    storage,
    stored_files,
    throttle,
    trash,
    worker,
)
from app.extensions import db
from app.health import routes as health
from app.images import resize_api, uploads
from app.jobs import shares, sweep, triggers, watching
from app.jobs import sleep as _sleep
from app.jsonapi import idempotency, operations
from app.openapi import routes as openapi
from app.overview import routes as overview
from app.pages import routes as pages
from app.processors import routes as processors
from app.programs import discovery as _programs
from app.site import routes as site
from app.treatments import launching
from app.treatments import mailing as _treatment_mails
from app.users import auth, auth_routes, sign_ins
from config import list_warnings

DISCOVERED_MODULES = ("models", "resources", "kinds", "tasks")
"""Modules of packages that are imported wherever they are: tables, resource types, kinds of jobs, consumers."""


def import_modules(name: str) -> list[ModuleType]:
    """Import the modules of this name in all packages of the app."""
    files = sorted(Path(__file__).parent.glob(f"*/{name}.py"))
    return [importlib.import_module(f"app.{file.parent.name}.{name}") for file in files]


MODULES = {name: import_modules(name) for name in DISCOVERED_MODULES}
OTHER_RESOURCES = (archive, processors)
OTHER_KINDS = (_sleep, _programs)
OTHER_CONSUMERS = (_treatment_mails,)

log = structlog.get_logger(__name__)


class App(Flask):
    """A Flask app without coroutines."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as it is: Flask would look at each view and hook of each request for a coroutine."""
        return func


class NoSessions(SessionInterface):
    """No cookies: Flask would prepare to sign one for every request. `app/pages` reads its own, and nobody else any."""

    def open_session(self, app: Flask, request: Request) -> None:
        """Nothing."""


def create_app(config: dict[str, Any]) -> Flask:
    """The WSGI app made from what `config.read` returned."""
    app = App("app", static_folder=None)
    app.session_interface = NoSessions()
    app.config.update(config)
    say_what_happens(app)
    request_slots.install(app)
    response_headers.install(app)
    bodies.install(app)
    request_slots.wait_for_slots(app)
    memory.install(app)
    database.install(app)
    changes.install(db.session)
    trust_proxies(app)
    outbox.subscribe()
    triggers.subscribe()
    launching.subscribe()
    run_in_background(app)
    storage.install(app)
    health.install(app)
    accept_accounts(app)
    serve_resources(app)
    take_images(app)
    openapi.install(app)
    site.install(app)
    pages.install(app)
    overview.install(app)
    large_answers.install(app)  # last: what it refuses is finished like all other answers
    return app


def say_what_happens(app: Flask) -> None:
    """Log lines for every request: first, so that nothing happens unseen."""
    logs.configure(app.config["LOG_FORMAT"], app.config["LOG_LEVEL"])
    for warning in list_warnings(app.config):
        log.warning("insecure setting", detail=warning)
    logs.follow_requests(app)


def run_in_background(app: Flask) -> None:
    """The Celery app that consumers' tasks run in, failures to Sentry, and what the relay's sweep deletes."""
    worker.make_celery(app)
    logs.report_failures(app)  # after Celery: its integration imports what reads REMAP_SIGTERM only once
    relay.sweep_with(app, sweep.sweep)
    prunes = (outbox.prune, sign_ins.prune, idempotency.prune, mail.prune, sweep.prune, shares.prune, quotas.prune)
    relay.prune_with(app, *prunes, stored_files.sweep_orphans, trash.purge)


def accept_accounts(app: Flask) -> None:
    """Log in, refresh, reset: the routes of accounts, their limits, and the one place where tokens become viewers."""
    throttle.install(app)
    app.extensions["authenticate"] = auth.authenticate
    app.register_blueprint(auth_routes.routes)


def serve_resources(app: Flask) -> None:
    """The JSON:API resources below /v1, for web pages of CORS_ORIGINS too, and JSON:API errors for all that fails."""
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # its redirect would go wherever the Host header says
    errors.register(app)
    idempotency.install(app)
    watching.install(app)
    app.register_blueprint(make_blueprint())
    cors.install(app)


def make_blueprint() -> Blueprint:
    """Return the routes below /v1."""
    blueprint = Blueprint("v1", __name__, url_prefix="/v1")
    api = Api(blueprint=blueprint)
    for module in (*MODULES["resources"], *OTHER_RESOURCES):
        if hasattr(module, "route"):
            module.route(api)
    blueprint.add_url_rule("/operations", view_func=operations.OperationsView.as_view("operations"))
    return blueprint


def take_images(app: Flask) -> None:
    """Uploads, and the resize API."""
    for package in (uploads, resize_api):
        app.register_blueprint(package.routes)


def trust_proxies(app: Flask) -> None:
    """X-Forwarded-* count for as many hops as the operator names, from nobody else."""
    if hops := app.config["TRUSTED_PROXIES"]:
        app.wsgi_app = proxies.trust_proxies(app.wsgi_app, hops)  # type: ignore[method-assign]  # Flask's documented way
