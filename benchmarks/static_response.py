"""System `constant`: a Flask app that reads the request and returns a stored response, the minimum of Flask."""

from typing import Any

from flask import Flask, Response, request

from app.errors import MEDIA_TYPE
from benchmarks.cases import CASES


def create_app(settings: dict[str, Any]) -> Flask:
    """Return an app with the stored response of every case at `/<letter>`."""
    app = Flask("constant", static_folder=None)
    answers = {case.letter: (settings["VAR_DIR"] / f"{case.letter}.json").read_bytes() for case in CASES}

    @app.route("/<letter>", methods=["GET", "POST", "PATCH"])
    def answer(letter: str) -> Response:
        request.get_data()  # an unread body would close the connection
        status = next(case.request.status for case in CASES if case.letter == letter)
        return Response(answers[letter], status=status, content_type=MEDIA_TYPE)

    return app
