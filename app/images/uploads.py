"""POST /v1/upload/image: a picture gets an address, to be named as the image of an event or a user."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, jsonify, request

from app import quotas
from app.database import transaction
from app.errors import ContentTooLarge
from app.images import sent
from app.images.headers import MOST_BYTES, inspect
from app.images.picture import SUFFIXES
from app.images.pixels import Size, Variant, make_variants
from app.jsonapi.idempotency import TAKES_KEY, answered_once
from app.jsonapi.negotiation import JSON_TYPES, require_media_type
from app.jsonapi.viewer import Viewer, signed_in_viewer
from app.slots import SlotPool, caller_holders, take_slot
from app.storage import current_storage
from app.uploads.intake import StoredImage, keep

routes = Blueprint("uploads", __name__)

LONGEST_SIDE = 4_096
"""Of what is kept; a larger image is made smaller."""

MOST_DECODERS = 2
"""Images that one web process takes in at once: each is two seconds of a processor, at worst."""
MAX_DECODERS_PER_HOLDER = 1
"""Of these, how many one client address and one user may have at once."""
MAX_WAITING = 64
"""Images that wait for one of these; each holds a thread of the web process."""
MAX_WAITING_PER_HOLDER = 16
"""Of these, how many one client address and one user may have."""
LONGEST_WAIT = 5.0
"""Seconds a request waits for its turn."""
PIXELS_PER_BYTE = 16
"""An image counts for a byte for so many pixels at least: a flat one of few bytes is as much work as any other."""

FORM = "multipart/form-data"
_MEMBERS: dict[str, Any] = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
TAKES: dict[str, Any] = {
    FORM: {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}, "required": ["file"]},
    **dict.fromkeys(JSON_TYPES, _MEMBERS),
}
_TEXT = {"type": "string"}
GIVES: dict[str, Any] = {"type": "object", "properties": {"url": _TEXT, "id": _TEXT}, "required": ["url", "id"]}

_slots = SlotPool(
    MOST_DECODERS,
    MAX_DECODERS_PER_HOLDER,
    max_waiting=MAX_WAITING,
    max_waiting_per_holder=MAX_WAITING_PER_HOLDER,
    remembers_holders=True,
)


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
    image = _take_in(*_sent(), viewer)

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


def taken_in(content: bytes, viewer: Viewer) -> StoredImage:
    """The image as it is kept, in storage by now; raises what an upload of it is refused with. Not in a transaction."""
    return _take_in(sent.within_limit(content, None), None, viewer)


def _take_in(content: bytes, pointer: str | None, viewer: Viewer) -> StoredImage:
    with _decoder_slot(viewer):
        variant, charged = _upright(content, pointer)
    return _stored(variant, charged)


@contextmanager
def _decoder_slot(viewer: Viewer) -> Iterator[None]:
    """Hold a slot while decoding; raise 429 where the caller has its share, 503 where none gets free in time."""
    slot = take_slot(
        _slots,
        caller_holders(request.remote_addr, viewer.id),
        full="Too many images are being sent at this moment.",
        share="Too many images of {holder} are being sent at this moment. Send them one after the other.",
        timeout_seconds=LONGEST_WAIT,
    )
    try:
        yield
    finally:
        _slots.release(slot)


def _sent() -> tuple[bytes, str | None]:
    """The image in the body, and what errors of it point to."""
    if require_media_type(request.headers, TAKES) == FORM:
        return sent.file_of_form(), None
    return sent.decoded(sent.read_members(), "data"), "/data"


def _upright(content: bytes, pointer: str | None) -> tuple[Variant, int]:
    """The image made anew in its own format, and for how many bytes it counts."""
    with sent.refusing(pointer):
        picture = inspect(content)
        size = Size("upload", LONGEST_SIDE, LONGEST_SIDE, format=picture.format)
        [variant] = make_variants(content, [size])
    if len(variant.content) > MOST_BYTES:  # the encoder of a PNG may have been a better one than ours
        detail = f"Made anew, the image has more than {MOST_BYTES // 2**20} MiB."
        raise ContentTooLarge(detail, pointer=pointer, code="image-too-large")
    charged = max(len(content), len(variant.content), picture.width * picture.height // PIXELS_PER_BYTE)
    return variant, charged


def _stored(variant: Variant, charged: int) -> StoredImage:
    storage = current_storage()
    name = storage.put_by_content("uploads", variant.content, SUFFIXES[variant.format], variant.media_type)
    return StoredImage(name, variant.media_type, variant.width, variant.height, len(variant.content), charged)
