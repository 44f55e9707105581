"""App factory: the only module that depends on every package."""

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
"""Modules that are imported from every package: tables, resource types, kinds of jobs, consumers."""


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
    """Flask app without support for coroutines."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function unchanged: Flask would check each view and hook of each request for a coroutine."""
        return func


class NoSessions(SessionInterface):
    """Disabled sessions: Flask would prepare signing for each request, and `app/pages` has its own cookies."""

    def open_session(self, app: Flask, request: Request) -> None:
        """Return None: there is no session."""


def create_app(config: dict[str, Any]) -> Flask:
    """Return the WSGI app for a configuration from `config.read_config`."""
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
    large_responses.init_app(app)  # last, so that all other hooks also process the responses it creates
    return app


def init_logging(app: Flask) -> None:
    """Configure logging and log every request; called first, so that the other steps can log."""
    logs.configure_logging(app.config["LOG_FORMAT"], app.config["LOG_LEVEL"])
    for warning in list_warnings(app.config):
        log.warning("insecure setting", detail=warning)
    logs.log_requests(app)


def configure_celery(app: Flask) -> None:
    """Create the Celery app, connect Sentry, and set the maintenance and pruning tasks of the relay."""
    worker.make_celery(app)
    logs.init_sentry(app)  # after Celery: the integration imports a module that reads REMAP_SIGTERM at import
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
    """Register the routes of accounts, the rate limits, and the function that authenticates requests."""
    throttle.init_app(app)
    app.extensions["authenticate"] = auth.authenticate_request
    app.register_blueprint(auth_routes.routes)


def register_resources(app: Flask) -> None:
    """Register the JSON:API resources below /v1, CORS, and JSON:API error responses."""
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # its redirect would use the Host header, which the client chooses
    errors.register_error_handlers(app)
    idempotency.init_app(app)
    notify_hub.init_app(app)
    app.register_blueprint(make_blueprint())
    cors.init_app(app)


def make_blueprint() -> Blueprint:
    """Return the blueprint with all routes below /v1."""
    blueprint = Blueprint("v1", __name__, url_prefix="/v1")
    api = Api(blueprint=blueprint)
    for module in (*MODULES["resources"], *OTHER_RESOURCES):
        if hasattr(module, "route"):
            module.route(api)
    blueprint.add_url_rule("/operations", view_func=atomic_operations.OperationsView.as_view("operations"))
    return blueprint


def register_images(app: Flask) -> None:
    """Register the routes of uploads and of the resize API."""
    for package in (upload_view, resize_api):
        app.register_blueprint(package.routes)


def trust_proxies(app: Flask) -> None:
    """Read X-Forwarded-* headers of TRUSTED_PROXIES hops; ignore them if it is 0."""
    if hops := app.config["TRUSTED_PROXIES"]:
        app.wsgi_app = proxies.trust_proxies(app.wsgi_app, hops)  # type: ignore[method-assign]  # Flask's documented way
