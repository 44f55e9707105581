"""The routes of the processor, and how it starts and stops."""

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

from callbacks import key_of
from images import is_http
from runs import CANCELLED, Full, Run, Runs
from tasks import TASKS

MOST_DOCUMENTS = 2000
LARGEST_REQUEST = 4 * 2**20
STOP_SECONDS = 0.5


def create_app(runs: Runs, base_url: str) -> Flask:
    """The processor as a WSGI application; without a base URL, results are where the client has found us."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_REQUEST
    app.register_error_handler(HTTPException, _as_json)

    @app.post("/<task>/start")
    def start(task: str) -> tuple[dict[str, Any], int]:
        if task not in TASKS:
            abort(HTTPStatus.NOT_FOUND, f"There is no task {task}, only {', '.join(TASKS)}.")
        asked = _asked()
        url = f"{base_url or request.host_url.rstrip('/')}/{task}"
        try:
            return {"tracking_id": runs.add(task, asked, url).tracking_id}, HTTPStatus.ACCEPTED
        except Full:
            abort(HTTPStatus.SERVICE_UNAVAILABLE, "Too many runs are waiting.")

    @app.get("/<task>/<tracking_id>/status")
    def status(task: str, tracking_id: str) -> dict[str, Any]:
        run = _found(runs, task, tracking_id)
        with run.lock:
            return {"status": run.status, "fraction": run.fraction, "output": run.output(), "error": list(run.errors)}

    @app.post("/<task>/<tracking_id>/cancel")
    def cancel(task: str, tracking_id: str) -> dict[str, Any]:
        run = _found(runs, task, tracking_id)
        run.end(CANCELLED, "It was cancelled.")
        return {"status": run.status}

    @app.get("/<task>/<tracking_id>/results/<int:number>.json")
    def result(task: str, tracking_id: str, number: int) -> Response:
        return send_from_directory(_found(runs, task, tracking_id).directory, f"{number}.json")

    return app


def _found(runs: Runs, task: str, tracking_id: str) -> Run:
    run = runs.find(task, tracking_id)
    if run is None:
        abort(HTTPStatus.NOT_FOUND, "There is no such run.")
    return run


def _asked() -> dict[str, Any]:
    """The body of a start request, if it is one. Parameters stand in it too; our tasks have none."""
    try:
        asked = json.loads(request.get_data())
    except (ValueError, RecursionError):
        _refuse("The body is not JSON.")
    if not isinstance(asked, dict):
        _refuse("The body is not a JSON object.")
    if not isinstance(asked.get("experiment_id"), str) or not asked["experiment_id"]:
        _refuse("experiment_id is missing.")
    if not is_http(asked.get("notify_url")):
        _refuse("notify_url is not an http or https URL.")
    _check_documents(asked.get("documents"))
    if asked.get("notify_secret") is not None:
        _check_secret(asked["notify_secret"])
    return asked


def _check_documents(documents: Any) -> None:
    if not isinstance(documents, list) or not documents:
        _refuse("documents is not a list of at least one document.")
    if len(documents) > MOST_DOCUMENTS:
        _refuse(f"There are more than {MOST_DOCUMENTS} documents.")
    for number, document in enumerate(documents):
        names = ("type", "src", "uid")
        if not isinstance(document, dict) or not all(isinstance(document.get(name), str) for name in names):
            _refuse(f"documents/{number} has not type, src and uid.")
        if not is_http(document["src"]):
            _refuse(f"documents/{number}: src is not an http or https URL.")


def _check_secret(secret: Any) -> None:
    try:
        key_of(str(secret))
    except ValueError as error:
        _refuse(f"notify_secret: {error}.")


def _refuse(why: str) -> NoReturn:
    abort(HTTPStatus.BAD_REQUEST, why)


def _as_json(error: HTTPException) -> tuple[dict[str, Any], int]:
    return {"error": error.description}, error.code or HTTPStatus.INTERNAL_SERVER_ERROR


class Handler(WSGIRequestHandler):
    """A client that says nothing for so many seconds is let go."""

    timeout = 30


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with TemporaryDirectory(prefix="processor-", ignore_cleanup_errors=True) as directory:
        runs = Runs(Path(directory))
        app = create_app(runs, options.base_url.rstrip("/"))
        server = make_server(options.host, options.port, app, threaded=True, request_handler=Handler)
        with suppress(KeyboardInterrupt):
            print(f"ready: {options.base_url or f'http://{options.host}:{server.port}'}", flush=True)
            server.serve_forever()
        runs.stop(STOP_SECONDS)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A processor of images, for the Open Event API server.")
    parser.add_argument("--host", default=os.environ.get("PROCESSOR_HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=os.environ.get("PROCESSOR_PORT", "5080"), help="0: a free one")
    parser.add_argument("--base-url", default="", help="where clients find it, when that is behind a proxy")
    return parser.parse_args()


if __name__ == "__main__":
    main()
