"""Creation of uploads for stored images; the same image of an owner is one upload."""

from typing import NamedTuple

from sqlalchemy import BigInteger, Text, bindparam, null
from sqlalchemy.dialects.postgresql import insert

from app import quotas, stored_files
from app.database import PreparedStatement
from app.errors import Unavailable
from app.storage import current_storage
from app.uploads.models import Upload

_COLUMN_TYPES = {
    "owner_id": BigInteger,
    "storage_key": Text,
    "media_type": Text,
    "width": BigInteger,
    "height": BigInteger,
    "size": BigInteger,
}
_upsert = PreparedStatement(
    insert(Upload)
    .values({name: bindparam(name, type_=type_) for name, type_ in _COLUMN_TYPES.items()})
    # Sending a deleted image again restores it.
    .on_conflict_do_update(index_elements=["owner_id", "storage_key"], set_={"deleted_at": null()})
    .returning(Upload.id)
)

stored_files.register_table(Upload.__table__)


class StoredImage(NamedTuple):
    """Metadata of an image in storage."""

    storage_key: str
    media_type: str
    width: int
    height: int
    size: int
    charged: int
    """Bytes charged to the quota: at least the size sent and the size stored, more for few bytes with many pixels."""


def upsert_upload(owner_id: int, image: StoredImage) -> int:
    """Insert or restore the upload of an image by its owner, in the current transaction; return its id."""
    values = image._asdict()
    quotas.charge_upload(owner_id, values.pop("charged"))
    stored_files.lock_file(image.storage_key)
    ((id_,),) = _upsert.fetch_rows({"owner_id": owner_id, **values})
    if not current_storage().exists(image.storage_key):  # another user deleted the same image meanwhile
        raise Unavailable("The file was deleted while it was being stored. Try again.", headers={"Retry-After": "1"})
    return int(id_)
