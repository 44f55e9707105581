"""The floor: Flask that answers with bytes it has, without looking at the request."""

from typing import Any

from flask import Flask, Response

from app.errors import MEDIA_TYPE
from benchmarks.cases import CASES


def create_app(settings: dict[str, Any]) -> Flask:
    """An app with our answer to every case at `/<letter>`."""
    app = Flask("constant", static_folder=None)
    answers = {case.letter: (settings["VAR_DIR"] / f"{case.letter}.json").read_bytes() for case in CASES}

    @app.route("/<letter>", methods=["GET", "POST", "PATCH"])
    def answer(letter: str) -> Response:
        status = next(case.request.status for case in CASES if case.letter == letter)
        return Response(answers[letter], status=status, content_type=MEDIA_TYPE)

    return app
