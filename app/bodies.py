"""Request bodies, read whole before anything else happens: a slow client holds no connection to the database.

Nor may slow clients hold every thread: in production a proxy in front collects bodies, without one this limit keeps
probes and reads alive.
"""

import threading

from flask import Flask, request

from app.errors import BadRequest, ContentTooLarge, Unavailable

LARGEST_BODY = 2**20
MOST_READERS = 192
"""Bodies that are read at once; `app/web.py` has 64 threads more."""

_readers = threading.BoundedSemaphore(MOST_READERS)


def install(app: Flask) -> None:
    """Read the body of every request to a route there is."""
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.before_request(_read)


def _read() -> None:
    is_chunked = "Transfer-Encoding" in request.headers
    if request.endpoint is None or not (request.content_length or is_chunked):
        return
    if is_chunked:
        # Granian ends the input where the body ends, but does not say so; Werkzeug would read nothing.
        request.environ["wsgi.input_terminated"] = True
    if not _readers.acquire(blocking=False):
        raise Unavailable("Too many bodies are being sent at this moment.", headers={"Retry-After": "5"})
    try:
        body = request.get_data()
    finally:
        _readers.release()
    if is_chunked and len(body) >= LARGEST_BODY:
        raise ContentTooLarge  # Werkzeug stops reading there and says nothing
    if request.content_length is not None and len(body) < request.content_length:
        raise BadRequest("The body ends before its Content-Length.", code="incomplete-body")
