"""/overview: the routes of an Overview plugin, which executes a program as a job, for clients of the work queue.

A request names a server, a document set and a token. Requests with the same three values share one job; others do not
find it. Without JOB_PROGRAMS_DIR all routes are 404.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify, render_template, request
from sqlalchemy import Uuid, bindparam, select

from app import throttle
from app.database import PreparedStatement, commit, open_transaction
from app.errors import ApiError, ApiErrorGroup, NotFound, TooManyRequests, Unavailable
from app.jobs import submission
from app.jobs.kinds import KINDS
from app.jobs.models import SUCCEEDED, Artifact
from app.jobs.records import JobRow
from app.overview.progress import ProgressStream
from app.overview.request_parser import InvalidOverviewRequest, OverviewRequest, parse_request
from app.preconditions import apply_preconditions
from app.programs import allowed_servers
from app.storage import send_stored_file

STATIC = Path(__file__).resolve().parent / "static"
STATIC_FILES = {"overview.js": "text/javascript; charset=utf-8", "overview.css": "text/css; charset=utf-8"}

SEARCH_RATE_LIMIT = "120/minute"
"""Rate limit of /search for each address; clients poll it."""

overview = Blueprint("overview", __name__, url_prefix="/overview", template_folder="templates")

_artifacts = Artifact.__table__
_select_output = PreparedStatement(
    select(_artifacts.c.storage_key, _artifacts.c.media_type).where(
        _artifacts.c.job_id == bindparam("job_id", type_=Uuid)
    )
)


View = Callable[..., Response]


def route(method: str, path: str, permission: str) -> Callable[[View], View]:
    """Register a view that is 404 without JOB_PROGRAMS_DIR; `permission` is its text in `manage.py routes`."""

    def register(view: View) -> View:
        @wraps(view)
        def answer(**names: Any) -> Response:
            if current_app.config["JOB_PROGRAMS_DIR"] is None:
                raise NotFound
            return view(**names)

        answer.permission = permission  # type: ignore[attr-defined]  # read by `manage.py routes`
        overview.add_url_rule(path, view_func=answer, methods=[method])
        return view

    return register


@route("GET", "/metadata", "anyone")
def show_metadata() -> Response:
    """Return the metadata of the plugin; pages of Overview read it from another origin."""
    kind = KINDS.get(_get_kind_name())
    response = jsonify(title=kind.title if kind else "", json={}, version=1)
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


@route("GET", "/show", "anyone")
def show_page() -> Response:
    """Show a page that submits the job of its query string and shows the progress."""
    response = Response(render_template("overview.html"), content_type="text/html; charset=utf-8")
    allowed = allowed_servers.get_allowed_servers()
    framers = "*" if allowed is None else " ".join(allowed) or "'none'"
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
        f"form-action 'none'; frame-ancestors {framers}"
    )
    response.headers["Referrer-Policy"] = "no-referrer"  # the URL that Overview opens contains the token
    return response


@route("GET", "/static/<name>", "anyone")
def serve_static_file(name: str) -> Response:
    """Serve the script or the stylesheet of the page."""
    if name not in STATIC_FILES:
        raise NotFound
    response = Response((STATIC / name).read_bytes(), content_type=STATIC_FILES[name])
    response.headers["Cache-Control"] = "no-cache"
    response.add_etag()
    apply_preconditions(response)
    return response


@route("GET", "/search", "anyone with the token")
def send_result() -> Response:
    """Send the output of the program; raise NotFound until the job has succeeded."""
    throttle.check_rate_limit("overview-search", per_address=SEARCH_RATE_LIMIT)
    parameters = parse_request(request.args, request.headers, may_name_token=False)
    with open_transaction(is_read=True):
        job = submission.find_succeeded(_get_kind_name(), parameters._asdict(), owner_id=None)
        for storage_key, media_type in _select_output.fetch_rows({"job_id": job.id}) if job is not None else ():
            return send_stored_file(storage_key, media_type=media_type)
    raise NotFound("There is no result yet. Send POST /overview/generate first.")


@route("POST", "/generate", "anyone with a token")
def generate_result() -> Response:
    """Submit the job, or find the existing one, and stream its progress; return `[]` if it has succeeded already."""
    throttle.check_rate_limit("overview")
    job = _submit_job(parse_request(request.form, request.headers, may_name_token=True))
    response = Response(content_type="application/json")
    response.headers["X-Accel-Buffering"] = "no"
    response.response = ["[]"] if job.state == SUCCEEDED else ProgressStream(job)
    return response


def _submit_job(parameters: OverviewRequest) -> JobRow:
    """Submit the job and commit; return it, or the existing job with these parameters."""
    if _get_kind_name() not in KINDS:
        raise Unavailable("The program of this plugin is not installed on this server.")
    with open_transaction(is_read=False):
        try:
            job = submission.submit_job(_get_kind_name(), parameters._asdict(), trigger="api", owner_id=None).job
        except TooManyRequests:
            raise
        except (ApiError, ApiErrorGroup) as error:
            raise InvalidOverviewRequest(str(error)) from None
        commit()
    return job


def _get_kind_name() -> str:
    return f"program:{current_app.config['OVERVIEW_PROGRAM']}"


def init_app(app: Flask) -> None:
    """Register the routes of the plugin."""
    app.register_blueprint(overview)
