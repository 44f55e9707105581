"""Import of a file into a gallery: it is read, decoded, encoded again, stored and recorded."""

import unicodedata
from hashlib import sha256
from pathlib import PurePosixPath

from sqlalchemy import BigInteger, Text, bindparam, func, select
from sqlalchemy.dialects.postgresql import insert

from app import stored_files
from app.database import PreparedStatement, commit, open_transaction
from app.events.models import Event
from app.gallery import inbox
from app.gallery.models import EventImage
from app.images.image_info import SUFFIXES
from app.images.inspection import inspect_image
from app.images.resizer import Variant, VariantSpec, make_variants
from app.storage import FileInfo, current_storage

MAX_SIDE_PIXELS = 2560
"""Pixels of the longer side: to encode a WebP of 16 megapixels takes 1.7 seconds, one of pure noise 4."""

_VALUES = {
    "event_id": BigInteger,
    "name": Text,
    "storage_key": Text,
    "media_type": Text,
    "width": BigInteger,
    "height": BigInteger,
    "size": BigInteger,
    "sha256": Text,
    "source_sha256": Text,
}
_events, _images = Event.__table__, EventImage.__table__
_EVENT_ID = bindparam("event_id", type_=BigInteger)

_select_identifier = PreparedStatement(
    select(_events.c.identifier).where(_events.c.id == _EVENT_ID, _events.c.deleted_at.is_(None))
)
_select_image_count = PreparedStatement(
    select(func.count()).select_from(_images).where(_images.c.event_id == _EVENT_ID)
)
_select_by_source = PreparedStatement(
    select(_images.c.id).where(
        _images.c.event_id == _EVENT_ID, _images.c.source_sha256 == bindparam("source_sha256", type_=Text)
    )
)
_insert_image = PreparedStatement(
    insert(EventImage)
    .values({name: bindparam(name, type_=type_) for name, type_ in _VALUES.items()})
    .on_conflict_do_nothing()
    .returning(_images.c.id)
)

stored_files.register_table(_images)


def get_event_identifier(event_id: int) -> str | None:
    """Return the identifier of an event; None when the event does not exist or is in the trash."""
    rows = _select_identifier.fetch_rows({"event_id": event_id})
    return rows[0][0] if rows else None


def count_images(event_id: int) -> int:
    """Return the number of images of an event, including those in the trash."""
    ((images,),) = _select_image_count.fetch_rows({"event_id": event_id})
    return int(images)


def import_image(event_id: int, name: str, file: FileInfo) -> bool:
    """Import a file of the inbox; return False when it was imported before. Raise ImageRejected or READ_ERRORS."""
    content = inbox.read_file(file)
    source_sha256 = sha256(content).hexdigest()
    if _is_known(event_id, source_sha256):
        return False
    size = VariantSpec("gallery", MAX_SIDE_PIXELS, MAX_SIDE_PIXELS, format=inspect_image(content).format)
    (image,) = make_variants(content, [size])
    # macOS decomposes file names (NFD); filters compare NFC.
    composed_name = unicodedata.normalize("NFC", name)
    return _insert_if_new(
        {"event_id": event_id, "name": composed_name, "source_sha256": source_sha256, **_store_image(image)}
    )


def _store_image(image: Variant) -> dict[str, object]:
    """Store an image and return the columns of its row that describe the file."""
    storage_key = current_storage().put_content_addressed(
        "images", image.content, SUFFIXES[image.format], image.media_type
    )
    return {
        "storage_key": storage_key,
        "media_type": image.media_type,
        "width": image.width,
        "height": image.height,
        "size": len(image.content),
        "sha256": PurePosixPath(storage_key).stem,
    }


def _is_known(event_id: int, source_sha256: str) -> bool:
    with open_transaction(is_read=True):
        return bool(_select_by_source.fetch_rows({"event_id": event_id, "source_sha256": source_sha256}))


def _insert_if_new(values: dict[str, object]) -> bool:
    """Insert an image; return False when the event has an image with the same content or source already."""
    name = str(values["storage_key"])
    with open_transaction(is_read=False):
        stored_files.lock_file(name)
        added = _insert_image.fetch_rows(values)
        if added and not current_storage().exists(name):
            raise FileNotFoundError(name)  # the last row of this file was just deleted: the next import stores it again
        commit()
    return bool(added)
