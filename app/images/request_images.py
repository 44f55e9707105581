"""Parsing of the image in a request body: base64 in JSON, or a file of a multipart form."""

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
"""Maximum `,`, `[` and `{` in a JSON body: ten million empty lists are as long as an image, but take 1 GB in memory."""

# In memory, as the body is there already: Flask would write files and leave those of an invalid form open.
_form_parser = FormDataParser(stream_factory=lambda *_, **__: BytesIO(), max_form_parts=100, silent=False)
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_WHITESPACE = b" \t\r\n\f"
_ERRORS: dict[HTTPStatus, type[ApiError]] = {
    each.http_status: each for each in (ContentTooLarge, UnsupportedMediaType, Unprocessable)
}


def get_max_image_bytes() -> int:
    """Return the maximum size of an image in bytes."""
    return int(current_app.config["MAX_UPLOAD_MB"]) * 2**20


def get_max_body_bytes() -> int:
    """Return the maximum size of a body in bytes: base64 adds a third, and each line end has four bytes in JSON."""
    return get_max_image_bytes() * 3 // 2


def read_members() -> dict[str, Any]:
    """Return the members of a JSON body that contains an image; raise BadRequest if it is invalid."""
    body = request.get_data()
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > MAX_JSON_DELIMITER_COUNT:
        raise BadRequest("The body has too many members or array items.", code="too-large")
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not JSON.", code="invalid-json") from None
    if not isinstance(members, dict):
        raise BadRequest("The body must be a JSON object.", pointer="")
    return members


def decode_base64_image(members: Mapping[str, Any], name: str) -> bytes:
    """Decode the image in a member: base64, or a data URL, with or without line breaks."""
    pointer, text = f"/{name}", members.get(name)
    if not isinstance(text, str):
        raise Unprocessable("This member must be a string that contains an image in base64.", pointer=pointer)
    prefix = _DATA_URL.match(text)
    try:
        content = _decode_base64(text[prefix.end() :] if prefix else text)
    except (binascii.Error, UnicodeEncodeError):
        raise Unprocessable("This string is not valid base64.", pointer=pointer) from None
    return require_within_limit(content, pointer)


def _decode_base64(text: str) -> bytes:
    packed = text.encode("ascii").translate(None, _WHITESPACE)
    if missing := -len(packed) % 4:
        packed += b"=" * missing  # data URLs may omit the padding
    return binascii.a2b_base64(packed, strict_mode=True)


def read_form_file() -> bytes:
    """Return the file of a form: `file`, `image`, or the only one; raise BadRequest if the form is invalid."""
    body = request.get_data()
    try:
        _, _, files = _form_parser.parse(BytesIO(body), request.mimetype, len(body), request.mimetype_params)
    except ValueError:
        raise BadRequest("The multipart form is invalid.", code="invalid-form") from None
    if not files:
        raise Unprocessable("The form has no file: send one in the field `file`.")
    name = next(name for name in ("file", "image", *files) if name in files)
    if name not in ("file", "image") and len(files) > 1:
        raise Unprocessable("The form has several files: send the image in the field `file`.")
    return require_within_limit(files[name].read(), None)


def require_within_limit(content: bytes, pointer: str | None) -> bytes:
    """Return the content; raise ContentTooLarge if it is larger than an image may be."""
    if len(content) > get_max_image_bytes():
        detail = f"An image may have at most {current_app.config['MAX_UPLOAD_MB']} MiB."
        raise ContentTooLarge(detail, pointer=pointer, code="image-too-large")
    return content


@contextmanager
def image_errors_as_api_errors(pointer: str | None) -> Iterator[None]:
    """Convert ImageRejected into the API error with its status, with a pointer to the image."""
    try:
        yield
    except ImageRejected as error:
        raise _ERRORS[error.status](str(error), pointer=pointer, code=error.code) from None
