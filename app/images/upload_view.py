"""POST /v1/upload/image: stores an image under a URL, which can be set as the image of an event or a user."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, jsonify, request

from app import quotas
from app.database import open_transaction
from app.errors import ContentTooLarge
from app.images import request_images
from app.images.image_info import SUFFIXES
from app.images.inspection import MAX_IMAGE_BYTES, inspect_image
from app.images.resizer import Variant, VariantSpec, make_variants
from app.jsonapi.current_user import CurrentUser, require_current_user
from app.jsonapi.idempotency import POST_ONLY, run_idempotent
from app.jsonapi.negotiation import JSON_TYPES, require_media_type
from app.slots import SlotPool, caller_holders, take_slot
from app.storage import current_storage
from app.uploads.repository import StoredImage, upsert_upload

routes = Blueprint("uploads", __name__)

MAX_UPLOAD_SIDE_PIXELS = 4_096
"""Maximum width and height of a stored upload in pixels; larger images are scaled down."""

MAX_DECODERS = 2
"""Maximum images that one web process decodes at once; each takes up to two seconds of CPU time."""
MAX_DECODERS_PER_HOLDER = 1
"""Maximum of these for one client address and for one user."""
MAX_WAITING = 64
"""Maximum requests that wait for a decoder; each holds a thread of the web process."""
MAX_WAITING_PER_HOLDER = 16
"""Maximum of these for one client address and for one user."""
DECODER_SLOT_TIMEOUT_SECONDS = 5.0
"""Seconds a request waits for a decoder."""
PIXELS_PER_BYTE = 16
"""Pixels charged as one byte of quota, at least: an image of few bytes and many pixels is as much work as others."""

FORM_MEDIA_TYPE = "multipart/form-data"
_MEMBERS: dict[str, Any] = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
REQUEST_SCHEMAS: dict[str, Any] = {
    FORM_MEDIA_TYPE: {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "binary"}},
        "required": ["file"],
    },
    **dict.fromkeys(JSON_TYPES, _MEMBERS),
}
_TEXT = {"type": "string"}
RESPONSE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"url": _TEXT, "id": _TEXT},
    "required": ["url", "id"],
}

_slots = SlotPool(
    MAX_DECODERS,
    MAX_DECODERS_PER_HOLDER,
    max_waiting=MAX_WAITING,
    max_waiting_per_holder=MAX_WAITING_PER_HOLDER,
    remembers_holders=True,
)


def _get_max_body_bytes() -> int:
    """Return the maximum size of the body in bytes; raise 401 without authentication, 429 or 507 over a quota."""
    quotas.require_quota(_require_user().id)
    return request_images.get_max_body_bytes()


@routes.post("/v1/upload/image", strict_slashes=False)
def upload() -> Response:
    """Upload an image, and return its URL.

    The image is turned upright, fitted into 4096x4096 pixels and stripped of camera data. `id` names the upload, which
    a document set can hold. The same image sent again is the same upload.
    """
    viewer = _require_user()
    image = _store_upload(*_read_image(), viewer)

    def respond() -> Response:
        id_ = upsert_upload(viewer.id, image)
        return jsonify(url=current_storage().get_url(image.storage_key), id=str(id_))

    with open_transaction(is_read=False):
        return run_idempotent(viewer, respond)


upload.permission = "signed in"  # type: ignore[attr-defined]  # read by `manage.py routes`
upload.keyed_methods = POST_ONLY  # type: ignore[attr-defined]  # read by app/jsonapi/idempotency.py
upload.largest_body = _get_max_body_bytes  # type: ignore[attr-defined]  # read by app/request_bodies.py
upload.takes, upload.gives, upload.status = REQUEST_SCHEMAS, RESPONSE_SCHEMA, HTTPStatus.OK  # type: ignore[attr-defined]  # read by /openapi.json


def _require_user() -> CurrentUser:
    with open_transaction(is_read=True):
        return require_current_user()


def store_upload(content: bytes, viewer: CurrentUser) -> StoredImage:
    """Decode and store an image, outside of a transaction; raise the API errors of an upload."""
    return _store_upload(request_images.require_within_limit(content, None), None, viewer)


def _store_upload(content: bytes, pointer: str | None, viewer: CurrentUser) -> StoredImage:
    with _hold_decoder_slot(viewer):
        variant, charged = _normalize_image(content, pointer)
    return _store_variant(variant, charged)


@contextmanager
def _hold_decoder_slot(viewer: CurrentUser) -> Iterator[None]:
    """Hold a decoder slot; raise TooManyRequests if the caller has its share, Unavailable if none is free in time."""
    slot = take_slot(
        _slots,
        caller_holders(request.remote_addr, viewer.id),
        full="Too many images are being uploaded at the moment.",
        share="Too many images of {holder} are being uploaded at the moment. Send them one after the other.",
        timeout_seconds=DECODER_SLOT_TIMEOUT_SECONDS,
    )
    try:
        yield
    finally:
        _slots.release(slot)


def _read_image() -> tuple[bytes, str | None]:
    """Return the image in the body, and the pointer for errors about it."""
    if require_media_type(request.headers, REQUEST_SCHEMAS) == FORM_MEDIA_TYPE:
        return request_images.read_form_file(), None
    return request_images.decode_base64_image(request_images.read_members(), "data"), "/data"


def _normalize_image(content: bytes, pointer: str | None) -> tuple[Variant, int]:
    """Return the re-encoded image in its own format, and the bytes charged to the quota."""
    with request_images.image_errors_as_api_errors(pointer):
        info = inspect_image(content)
        size = VariantSpec("upload", MAX_UPLOAD_SIDE_PIXELS, MAX_UPLOAD_SIDE_PIXELS, format=info.format)
        [variant] = make_variants(content, [size])
    if len(variant.content) > MAX_IMAGE_BYTES:  # another encoder may compress a PNG better
        detail = f"The image has more than {MAX_IMAGE_BYTES // 2**20} MiB after it was re-encoded."
        raise ContentTooLarge(detail, pointer=pointer, code="image-too-large")
    charged = max(len(content), len(variant.content), info.width * info.height // PIXELS_PER_BYTE)
    return variant, charged


def _store_variant(variant: Variant, charged: int) -> StoredImage:
    storage = current_storage()
    name = storage.put_content_addressed("uploads", variant.content, SUFFIXES[variant.format], variant.media_type)
    return StoredImage(name, variant.media_type, variant.width, variant.height, len(variant.content), charged)
