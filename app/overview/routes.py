"""/overview: the four routes of a plugin for Overview, whose work is a program that runs as a job.

For clients of the work queue: they name a server, a document set and a token; whoever names the same finds the same
run, and nobody else does. Without JOB_PROGRAMS_DIR there is none of this.
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
"""Of one address: clients ask again and again whether there is something."""

overview = Blueprint("overview", __name__, url_prefix="/overview", template_folder="templates")

_artifacts = Artifact.__table__
_select_output = PreparedStatement(
    select(_artifacts.c.stored_as, _artifacts.c.media_type).where(
        _artifacts.c.job_id == bindparam("job_id", type_=Uuid)
    )
)


View = Callable[..., Response]


def route(method: str, path: str, who: str) -> Callable[[View], View]:
    """Register a view that is there only where there are programs."""

    def register(view: View) -> View:
        @wraps(view)
        def answer(**names: Any) -> Response:
            if current_app.config["JOB_PROGRAMS_DIR"] is None:
                raise NotFound
            return view(**names)

        answer.permission = who  # type: ignore[attr-defined]  # read by `manage.py routes`
        overview.add_url_rule(path, view_func=answer, methods=[method])
        return view

    return register


@route("GET", "/metadata", "anyone")
def show_metadata() -> Response:
    """What the plugin is; Overview's own pages read it from another origin."""
    kind = KINDS.get(_get_kind_name())
    response = jsonify(title=kind.title if kind else "", json={}, version=1)
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


@route("GET", "/show", "anyone")
def show_page() -> Response:
    """A page that starts the run for what its own query string names, and shows how far it is."""
    response = Response(render_template("overview.html"), content_type="text/html; charset=utf-8")
    allowed = allowed_servers.get_allowed_servers()
    framers = "*" if allowed is None else " ".join(allowed) or "'none'"
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
        f"form-action 'none'; frame-ancestors {framers}"
    )
    response.headers["Referrer-Policy"] = "no-referrer"  # the token stands in the URL that Overview makes
    return response


@route("GET", "/static/<name>", "anyone")
def serve_static_file(name: str) -> Response:
    """What the page is made of."""
    if name not in STATIC_FILES:
        raise NotFound
    response = Response((STATIC / name).read_bytes(), content_type=STATIC_FILES[name])
    response.headers["Cache-Control"] = "no-cache"
    response.add_etag()
    apply_preconditions(response)
    return response


@route("GET", "/search", "anyone with the token")
def send_result() -> Response:
    """What the program has made; 404 until it has."""
    throttle.check_rate_limit("overview-search", per_address=SEARCH_RATE_LIMIT)
    asked = parse_request(request.args, request.headers, may_name_token=False)
    with open_transaction(is_read=True):
        job = submission.find_succeeded(_get_kind_name(), asked._asdict(), owner_id=None)
        for stored_as, media_type in _select_output.fetch_rows({"job_id": job.id}) if job is not None else ():
            return send_stored_file(stored_as, media_type=media_type)
    raise NotFound("There is nothing here yet: generate it.")


@route("POST", "/generate", "anyone with a token")
def generate_result() -> Response:
    """Run the program unless it has run for this, and say how far it is until it is done; `[]` when it was."""
    throttle.check_rate_limit("overview")
    asked = parse_request(request.form, request.headers, may_name_token=True)
    job = _submit_job(asked)
    response = Response(content_type="application/json")
    response.headers["X-Accel-Buffering"] = "no"
    response.response = ["[]"] if job.state == SUCCEEDED else ProgressStream(job)
    return response


def _submit_job(asked: OverviewRequest) -> JobRow:
    """The job that does this, or has done it."""
    if _get_kind_name() not in KINDS:
        raise Unavailable("The program of this plugin is not set up.")
    with open_transaction(is_read=False):
        try:
            job = submission.submit_job(_get_kind_name(), asked._asdict(), trigger="api", owner_id=None).job
        except TooManyRequests:
            raise
        except (ApiError, ApiErrorGroup) as error:
            raise InvalidOverviewRequest(str(error)) from None
        commit()
    return job


def _get_kind_name() -> str:
    return f"program:{current_app.config['OVERVIEW_PROGRAM']}"


def init_app(app: Flask) -> None:
    """Answer."""
    app.register_blueprint(overview)
