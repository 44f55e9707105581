"""POST /v1/upload/image: a picture gets an address, to be named as the image of an event or a user."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, jsonify, request

from app import quotas
from app.database import transaction
from app.errors import ContentTooLarge, Unavailable
from app.images import sent
from app.images.headers import MOST_BYTES, inspect
from app.images.picture import SUFFIXES
from app.images.pixels import Size, Variant, make_variants
from app.jsonapi.idempotency import TAKES_KEY, answered_once
from app.jsonapi.negotiation import JSON_TYPES, require_media_type
from app.jsonapi.viewer import Viewer, signed_in_viewer
from app.storage import current_storage
from app.uploads.intake import StoredImage, keep

routes = Blueprint("uploads", __name__)

LONGEST_SIDE = 4_096
"""Of what is kept; a larger image is made smaller."""

MOST_DECODERS = 2
"""Images that one web process takes in at once: each is two seconds of a processor, at worst."""
LONGEST_WAIT = 5.0
"""Seconds a request waits for its turn."""

FORM = "multipart/form-data"
_MEMBERS: dict[str, Any] = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
TAKES: dict[str, Any] = {
    FORM: {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}, "required": ["file"]},
    **dict.fromkeys(JSON_TYPES, _MEMBERS),
}
_TEXT = {"type": "string"}
GIVES: dict[str, Any] = {"type": "object", "properties": {"url": _TEXT, "id": _TEXT}, "required": ["url", "id"]}

_turns = threading.BoundedSemaphore(MOST_DECODERS)


def _largest_body() -> int:
    """Return the limit; raise 401 for callers who are not signed in, 429 or 507 where no more is stored."""
    quotas.require_room(_require_user().id)
    return sent.largest_body()


@routes.post("/v1/upload/image", strict_slashes=False)
def upload() -> Response:
    """Upload an image, and return its URL.

    The image is turned upright, fitted into 4096x4096 pixels and stripped of camera data. `id` names the upload, which
    a document set can hold. The same image sent again is the same upload.
    """
    viewer = _require_user()
    with _turn():
        variant = _upright(*_sent())
    image = _stored(variant)

    def answer() -> Response:
        id_ = keep(viewer.id, image)
        return jsonify(url=current_storage().url(image.stored_as), id=str(id_))

    with transaction(is_read=False):
        return answered_once(viewer, answer)


upload.permission = "signed in"  # type: ignore[attr-defined]  # read by `manage.py routes`
upload.keyed_methods = TAKES_KEY  # type: ignore[attr-defined]  # read by app/jsonapi/idempotency.py
upload.largest_body = _largest_body  # type: ignore[attr-defined]  # read by app/bodies.py
upload.takes, upload.gives, upload.status = TAKES, GIVES, HTTPStatus.OK  # type: ignore[attr-defined]  # read by /openapi.json


def _require_user() -> Viewer:
    with transaction(is_read=True):
        return signed_in_viewer()


@contextmanager
def _turn() -> Iterator[None]:
    if not _turns.acquire(timeout=LONGEST_WAIT):
        raise Unavailable("Too many images are being sent at this moment.", headers={"Retry-After": "5"})
    try:
        yield
    finally:
        _turns.release()


def taken_in(content: bytes) -> StoredImage:
    """The image as it is kept, in storage by now; raises what an upload of it is refused with. Not in a transaction."""
    with _turn():
        variant = _upright(sent.within_limit(content, None), None)
    return _stored(variant)


def _sent() -> tuple[bytes, str | None]:
    """The image in the body, and what errors of it point to."""
    if require_media_type(request.headers, TAKES) == FORM:
        return sent.file_of_form(), None
    return sent.decoded(sent.read_members(), "data"), "/data"


def _upright(content: bytes, pointer: str | None) -> Variant:
    """The image made anew in its own format."""
    with sent.refusing(pointer):
        size = Size("upload", LONGEST_SIDE, LONGEST_SIDE, format=inspect(content).format)
        [variant] = make_variants(content, [size])
    if len(variant.content) > MOST_BYTES:  # the encoder of a PNG may have been a better one than ours
        detail = f"Made anew, the image has more than {MOST_BYTES // 2**20} MiB."
        raise ContentTooLarge(detail, pointer=pointer, code="image-too-large")
    return variant


def _stored(variant: Variant) -> StoredImage:
    storage = current_storage()
    name = storage.put_by_content("uploads", variant.content, SUFFIXES[variant.format], variant.media_type)
    return StoredImage(name, variant.media_type, variant.width, variant.height, len(variant.content))
