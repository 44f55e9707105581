"""The rows that have a picture: the addresses of its original, and of the variants that are made of it."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import BigInteger, Text, and_, bindparam, select, update

from app.database import Prepared, commit, transaction
from app.events.models import Event
from app.images.pixels import EVENT_SIZES, USER_SIZES, Size
from app.users.models import User

Originals = tuple[str | None, ...]


class Pictured:
    """A table whose rows have a picture: the columns of its original, the first one counts, and the sizes it is in."""

    def __init__(self, model: type[Any], originals: tuple[str, ...], sizes: tuple[Size, ...]) -> None:
        table = model.__table__
        self.originals = originals
        self.sizes = sizes
        is_live = and_(table.c.id == bindparam("id", type_=BigInteger), table.c.deleted_at.is_(None))
        is_same = [table.c[name].is_not_distinct_from(bindparam(f"read_{name}", type_=Text)) for name in originals]
        new = {_column(size): bindparam(f"new_{size.name}", type_=Text) for size in sizes}
        self._read = Prepared(select(*(table.c[name] for name in originals)).where(is_live))
        self._write = Prepared(update(table).where(is_live, *is_same).values(new).returning(table.c.id))

    def read(self, id_: int) -> Originals | None:
        """The addresses of the original; None for a row that is not there, or in the trash."""
        with transaction(is_read=True):
            found = self._read.rows({"id": id_})
        return tuple(found[0]) if found else None

    def write(self, id_: int, originals: Originals, urls: Mapping[str, str | None]) -> bool:
        """Write the addresses of the variants, all at once and unannounced; False when the original is another now."""
        read = {f"read_{name}": url for name, url in zip(self.originals, originals, strict=True)}
        new = {f"new_{size.name}": urls.get(size.name) for size in self.sizes}
        with transaction(is_read=False):
            written = self._write.rows({"id": id_, **read, **new})
            commit()
        return bool(written)


def _column(size: Size) -> str:
    return f"{size.name}_image_url"


EVENTS = Pictured(Event, ("original_image_url",), EVENT_SIZES)
USERS = Pictured(User, ("original_image_url", "avatar_url"), USER_SIZES)
