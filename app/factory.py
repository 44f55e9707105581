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
    change_signals,
    cors,
    database,
    errors,
    large_responses,
    logs,
    mail,
    memory,
    outbox,
    proxies,
    quotas,
    relay,
    request_bodies,
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
from app.images import resize_api, upload_view
from app.jobs import maintenance, notify_hub, shares, triggers
from app.jobs import sleep as _sleep
from app.jsonapi import atomic_operations, idempotency
from app.openapi import routes as openapi
from app.overview import routes as overview
from app.pages import routes as pages
from app.processors import routes as processors
from app.programs import discovery as _programs
from app.site import routes as site
from app.treatments import job_creation
from app.treatments import notifications as _treatment_mails
from app.users import auth, auth_routes, login_sessions
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
    """The WSGI app made from what `config.read_config` returned."""
    app = App("app", static_folder=None)
    app.session_interface = NoSessions()
    app.config.update(config)
    init_logging(app)
    request_slots.init_app(app)
    response_headers.init_app(app)
    request_bodies.init_app(app)
    request_slots.init_body_slots(app)
    memory.init_app(app)
    database.init_app(app)
    change_signals.init_app(db.session)
    trust_proxies(app)
    outbox.connect_signals()
    triggers.connect_signals()
    job_creation.connect_signal()
    configure_celery(app)
    storage.init_app(app)
    health.init_app(app)
    register_auth(app)
    register_resources(app)
    register_images(app)
    openapi.init_app(app)
    site.init_app(app)
    pages.init_app(app)
    overview.init_app(app)
    large_responses.init_app(app)  # last: what it refuses is finished like all other answers
    return app


def init_logging(app: Flask) -> None:
    """Log lines for every request: first, so that nothing happens unseen."""
    logs.configure_logging(app.config["LOG_FORMAT"], app.config["LOG_LEVEL"])
    for warning in list_warnings(app.config):
        log.warning("insecure setting", detail=warning)
    logs.log_requests(app)


def configure_celery(app: Flask) -> None:
    """The Celery app that consumers' tasks run in, failures to Sentry, and what the relay's sweep deletes."""
    worker.make_celery(app)
    logs.init_sentry(app)  # after Celery: its integration imports what reads REMAP_SIGTERM only once
    relay.set_maintenance_tasks(app, maintenance.run_maintenance)
    prunes = (
        outbox.prune_entries,
        login_sessions.prune_sessions,
        idempotency.prune_keys,
        mail.prune_counts,
        maintenance.prune_jobs,
        shares.prune_shares,
        quotas.prune_counts,
    )
    relay.set_prune_tasks(app, *prunes, stored_files.sweep_orphans, trash.purge_trash)


def register_auth(app: Flask) -> None:
    """Log in, refresh, reset: the routes of accounts, their limits, and the one place where tokens become viewers."""
    throttle.init_app(app)
    app.extensions["authenticate"] = auth.authenticate_request
    app.register_blueprint(auth_routes.routes)


def register_resources(app: Flask) -> None:
    """The JSON:API resources below /v1, for web pages of CORS_ORIGINS too, and JSON:API errors for all that fails."""
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # its redirect would go wherever the Host header says
    errors.register_error_handlers(app)
    idempotency.init_app(app)
    notify_hub.init_app(app)
    app.register_blueprint(make_blueprint())
    cors.init_app(app)


def make_blueprint() -> Blueprint:
    """Return the routes below /v1."""
    blueprint = Blueprint("v1", __name__, url_prefix="/v1")
    api = Api(blueprint=blueprint)
    for module in (*MODULES["resources"], *OTHER_RESOURCES):
        if hasattr(module, "route"):
            module.route(api)
    blueprint.add_url_rule("/operations", view_func=atomic_operations.OperationsView.as_view("operations"))
    return blueprint


def register_images(app: Flask) -> None:
    """Uploads, and the resize API."""
    for package in (upload_view, resize_api):
        app.register_blueprint(package.routes)


def trust_proxies(app: Flask) -> None:
    """X-Forwarded-* count for as many hops as the operator names, from nobody else."""
    if hops := app.config["TRUSTED_PROXIES"]:
        app.wsgi_app = proxies.trust_proxies(app.wsgi_app, hops)  # type: ignore[method-assign]  # Flask's documented way
