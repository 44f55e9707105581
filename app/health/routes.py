"""Routes /livez, /readyz and /health-check, for load balancers and monitoring."""

from http import HTTPStatus

import orjson
from flask import Blueprint, Flask, Response, current_app

from app.extensions import limiter
from app.health.checks import HealthChecks, make_health_probes, make_readiness_probes
from app.health.report import HealthReport
from app.request_bodies import describe_stuck_readers

health = Blueprint("health", __name__)
limiter.exempt(health)


def init_app(app: Flask) -> None:
    """Create the reports of this app and register the health routes."""
    checks, hostname = HealthChecks(app), app.config["HEALTH_HOSTNAME"]
    app.extensions["readiness"] = HealthReport(make_readiness_probes(checks), hostname)
    app.extensions["health"] = HealthReport(make_health_probes(checks, app.config["HEALTH_GRACE_SECONDS"]), hostname)
    app.register_blueprint(health)


@health.get("/livez")
@health.get("/livez/")
def live() -> Response:
    """Check that this process answers and can read request bodies."""
    if problem := describe_stuck_readers():
        content = orjson.dumps({"status": "failure", "output": problem})
        return Response(content, HTTPStatus.SERVICE_UNAVAILABLE, content_type="application/json")
    return Response('{"status": "success"}', content_type="application/json")


@health.get("/readyz")
@health.get("/readyz/")
def ready() -> Response:
    """Check that this process can serve: the database answers and has the right schema, and it is not shutting down."""
    return _respond_with_report(current_app.extensions["readiness"])


@health.get("/health-check")
@health.get("/health-check/")
def check() -> Response:
    """Check the database, its migrations, Redis, the workers, the outbox and the threads that read request bodies."""
    return _respond_with_report(current_app.extensions["health"])


for _view in (live, ready, check):
    _view.permission = "anyone"  # type: ignore[attr-defined]  # read by `manage.py routes`


def _respond_with_report(report: HealthReport) -> Response:
    body, status, headers = report.run()
    return Response(body, status, headers)
