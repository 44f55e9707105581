"""The rows that have a picture: the addresses of its original, and of the variants that are made of it."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Text, and_, any_, bindparam, func, or_, select, update

from app import stored_files
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


def _url_columns(model: type[Any]) -> list[ColumnElement[str]]:
    """Return the names in storage that the columns with a URL hold, whatever PUBLIC_URL was when it was written."""
    columns = [column for column in model.__table__.c if column.name.endswith("_url")]
    return [func.split_part(column, "/files/", 2) for column in columns]


def _naming(model: type[Any]) -> Prepared:
    """Select what rows name, those in the trash too: they may be taken out of it."""
    names = _url_columns(model)
    is_named = [name == any_(bindparam("names", type_=ARRAY(Text))) for name in names]
    return Prepared(select(*names).where(or_(*is_named)))


_named_by = [_naming(model) for model in (Event, User)]


@stored_files.finds_used_files
def used_files(names: Collection[str]) -> Collection[str]:
    """Return those of these files that an event or a user shows."""
    public = {name for name in names if not name.startswith("jobs/")}
    if not public:  # at the end of every job of the resize API: all events are looked at otherwise
        return ()
    found = {name for statement in _named_by for row in statement.rows({"names": list(public)}) for name in row}
    return found & public
