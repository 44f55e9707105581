"""The image in the body of a request: as base64 in JSON, or as a file of a form."""

import binascii
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from io import BytesIO
from typing import Any

import orjson
from flask import current_app, request
from werkzeug.formparser import FormDataParser

from app.errors import ApiError, BadRequest, ContentTooLarge, Unprocessable, UnsupportedMediaType
from app.images.image_info import ImageRejected

MAX_JSON_DELIMITER_COUNT = 1_000
"""Of the signs that make values of a body: ten million empty lists are as long as an image, and fill a gigabyte."""

# Kept in memory, where the body is already: Flask would write files, and leave those of a broken form open.
_form_parser = FormDataParser(stream_factory=lambda *_, **__: BytesIO(), max_form_parts=100, silent=False)
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_WHITESPACE = b" \t\r\n\f"
_ERRORS: dict[HTTPStatus, type[ApiError]] = {
    each.http_status: each for each in (ContentTooLarge, UnsupportedMediaType, Unprocessable)
}


def get_max_image_bytes() -> int:
    """Bytes."""
    return int(current_app.config["MAX_UPLOAD_MB"]) * 2**20


def get_max_body_bytes() -> int:
    """Bytes; base64 is a third longer than the image, and has lines, whose ends are four bytes in JSON."""
    return get_max_image_bytes() * 3 // 2


def read_members() -> dict[str, Any]:
    """Return the members of a JSON body with an image in it; raise 400 when it cannot be read."""
    body = request.get_data()
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > MAX_JSON_DELIMITER_COUNT:
        raise BadRequest("The body holds far more than an image.", code="too-large")
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not JSON.", code="invalid-json") from None
    if not isinstance(members, dict):
        raise BadRequest("The body must be a JSON object.", pointer="")
    return members


def decode_base64_image(members: Mapping[str, Any], name: str) -> bytes:
    """The image that a member holds as base64, after `data:...;base64,` or not, in lines or not."""
    pointer, text = f"/{name}", members.get(name)
    if not isinstance(text, str):
        raise Unprocessable("Here must be an image, as text in base64.", pointer=pointer)
    prefix = _DATA_URL.match(text)
    try:
        content = _decode_base64(text[prefix.end() :] if prefix else text)
    except (binascii.Error, UnicodeEncodeError):
        raise Unprocessable("This is no base64.", pointer=pointer) from None
    return require_within_limit(content, pointer)


def _decode_base64(text: str) -> bytes:
    packed = text.encode("ascii").translate(None, _WHITESPACE)
    if missing := -len(packed) % 4:
        packed += b"=" * missing  # data URLs may leave it out
    return binascii.a2b_base64(packed, strict_mode=True)


def read_form_file() -> bytes:
    """The file in a form: `file`, `image`, or the only one; 400 for a form that cannot be read."""
    body = request.get_data()
    try:
        _, _, files = _form_parser.parse(BytesIO(body), request.mimetype, len(body), request.mimetype_params)
    except ValueError:
        raise BadRequest("The form cannot be read.", code="invalid-form") from None
    if not files:
        raise Unprocessable("The form has no file: send one as `file`.")
    name = next(name for name in ("file", "image", *files) if name in files)
    if name not in ("file", "image") and len(files) > 1:
        raise Unprocessable("The form has several files: name the one that is meant `file`.")
    return require_within_limit(files[name].read(), None)


def require_within_limit(content: bytes, pointer: str | None) -> bytes:
    """The same; 413 for more than an image may have."""
    if len(content) > get_max_image_bytes():
        detail = f"An image may have at most {current_app.config['MAX_UPLOAD_MB']} MiB."
        raise ContentTooLarge(detail, pointer=pointer, code="image-too-large")
    return content


@contextmanager
def image_errors_as_api_errors(pointer: str | None) -> Iterator[None]:
    """An image that is not taken is an error of the request, which points to it."""
    try:
        yield
    except ImageRejected as refused:
        raise _ERRORS[refused.status](str(refused), pointer=pointer, code=refused.code) from None
