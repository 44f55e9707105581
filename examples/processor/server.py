"""Routes, options, start and stop of the processor."""

import argparse
import os
import signal
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from flask import Flask, Response, abort, json, request, send_from_directory
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server

from callbacks import decode_secret
from images import is_http_url
from runs import CANCELLED, Run, Runs, TooManyRuns
from tasks import TASKS

MAX_DOCUMENTS = 2000
MAX_REQUEST_BYTES = 4 * 2**20
STOP_TIMEOUT_SECONDS = 0.5


def create_app(runs: Runs, base_url: str) -> Flask:
    """Return the WSGI application; without a base URL, the URLs of results have the host of the start request."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    app.register_error_handler(HTTPException, _build_error_response)

    @app.post("/<task>/start")
    def start(task: str) -> tuple[dict[str, Any], int]:
        if task not in TASKS:
            abort(HTTPStatus.NOT_FOUND, f"There is no task {task}; the tasks are {', '.join(TASKS)}.")
        body = _parse_start_request()
        url = f"{base_url or request.host_url.rstrip('/')}/{task}"
        try:
            return {"tracking_id": runs.add(task, body, url).tracking_id}, HTTPStatus.ACCEPTED
        except TooManyRuns:
            abort(HTTPStatus.SERVICE_UNAVAILABLE, "Too many runs are waiting.")

    @app.get("/<task>/<tracking_id>/status")
    def status(task: str, tracking_id: str) -> dict[str, Any]:
        run = _get_run(runs, task, tracking_id)
        with run.lock:
            return {"status": run.status, "fraction": run.fraction, "output": run.output(), "error": list(run.errors)}

    @app.post("/<task>/<tracking_id>/cancel")
    def cancel(task: str, tracking_id: str) -> dict[str, Any]:
        run = _get_run(runs, task, tracking_id)
        run.end(CANCELLED, "The run was cancelled.")
        return {"status": run.status}

    @app.get("/<task>/<tracking_id>/results/<int:number>.json")
    def result(task: str, tracking_id: str, number: int) -> Response:
        return send_from_directory(_get_run(runs, task, tracking_id).directory, f"{number}.json")

    return app


def _get_run(runs: Runs, task: str, tracking_id: str) -> Run:
    run = runs.find(task, tracking_id)
    if run is None:
        abort(HTTPStatus.NOT_FOUND, "There is no such run.")
    return run


def _parse_start_request() -> dict[str, Any]:
    """Return the body of a start request; respond with 400 when it is not valid. Parameters are ignored."""
    try:
        body = json.loads(request.get_data())
    except (ValueError, RecursionError):
        _refuse("The body must be JSON.")
    if not isinstance(body, dict):
        _refuse("The body must be a JSON object.")
    if not isinstance(body.get("experiment_id"), str) or not body["experiment_id"]:
        _refuse("experiment_id is missing.")
    if not is_http_url(body.get("notify_url")):
        _refuse("notify_url must be an http or https URL.")
    _check_documents(body.get("documents"))
    if body.get("notify_secret") is not None:
        _check_secret(body["notify_secret"])
    return body


def _check_documents(documents: Any) -> None:
    if not isinstance(documents, list) or not documents:
        _refuse("documents must be a list of at least one document.")
    if len(documents) > MAX_DOCUMENTS:
        _refuse(f"documents must be a list of at most {MAX_DOCUMENTS} documents.")
    for number, document in enumerate(documents):
        names = ("type", "src", "uid")
        if not isinstance(document, dict) or not all(isinstance(document.get(name), str) for name in names):
            _refuse(f"documents/{number} must have type, src and uid.")
        if not is_http_url(document["src"]):
            _refuse(f"documents/{number}: src must be an http or https URL.")


def _check_secret(secret: Any) -> None:
    try:
        decode_secret(str(secret))
    except ValueError as error:
        _refuse(f"notify_secret: {error}.")


def _refuse(reason: str) -> NoReturn:
    abort(HTTPStatus.BAD_REQUEST, reason)


def _build_error_response(error: HTTPException) -> tuple[dict[str, Any], int]:
    return {"error": error.description}, error.code or HTTPStatus.INTERNAL_SERVER_ERROR


class Handler(WSGIRequestHandler):
    """Request handler that closes idle connections."""

    timeout = 30
    """Seconds without data from the client."""


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    options = _parse_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with TemporaryDirectory(prefix="processor-", ignore_cleanup_errors=True) as directory:
        runs = Runs(Path(directory))
        app = create_app(runs, options.base_url.rstrip("/"))
        server = make_server(options.host, options.port, app, threaded=True, request_handler=Handler)
        with suppress(KeyboardInterrupt):
            print(f"ready: {options.base_url or f'http://{options.host}:{server.port}'}", flush=True)
            server.serve_forever()
        runs.stop(STOP_TIMEOUT_SECONDS)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Image processor for the Open Event API server.")
    parser.add_argument("--host", default=os.environ.get("PROCESSOR_HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=os.environ.get("PROCESSOR_PORT", "5080"), help="0: any free port")
    parser.add_argument("--base-url", default="", help="URL of this processor for clients, behind a proxy")
    return parser.parse_args()


if __name__ == "__main__":
    main()
