"""The floor: Flask that reads the request and answers with bytes it has."""

from typing import Any

from flask import Flask, Response, request

from app.errors import MEDIA_TYPE
from benchmarks.cases import CASES


def create_app(settings: dict[str, Any]) -> Flask:
    """An app with our answer to every case at `/<letter>`."""
    app = Flask("constant", static_folder=None)
    answers = {case.letter: (settings["VAR_DIR"] / f"{case.letter}.json").read_bytes() for case in CASES}

    @app.route("/<letter>", methods=["GET", "POST", "PATCH"])
    def answer(letter: str) -> Response:
        request.get_data()  # what is left unread costs the connection
        status = next(case.request.status for case in CASES if case.letter == letter)
        return Response(answers[letter], status=status, content_type=MEDIA_TYPE)

    return app
