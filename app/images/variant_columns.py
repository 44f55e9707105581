"""The rows that have a picture: the addresses of its original, and of the variants that are made of it."""

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    FromClause,
    Text,
    and_,
    any_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    update,
)

from app import stored_files
from app.database import PreparedStatement, commit, open_transaction
from app.events.models import Event
from app.events.schemas import DocumentLinks
from app.images.resizer import EVENT_SIZES, USER_SIZES, VariantSpec
from app.jsonapi.fields import Url
from app.jsonapi.resource_type import TYPES
from app.users.models import User

OriginalUrls = tuple[str | None, ...]


class VariantColumns:
    """A table whose rows have a picture: the columns of its original, the first one counts, and the sizes it is in."""

    def __init__(self, model: type[Any], originals: tuple[str, ...], sizes: tuple[VariantSpec, ...]) -> None:
        table = model.__table__
        self.originals = originals
        self.sizes = sizes
        is_live = and_(table.c.id == bindparam("id", type_=BigInteger), table.c.deleted_at.is_(None))
        is_same = [table.c[name].is_not_distinct_from(bindparam(f"read_{name}", type_=Text)) for name in originals]
        new = {_get_column_name(size): bindparam(f"new_{size.name}", type_=Text) for size in sizes}
        self._select_originals = PreparedStatement(select(*(table.c[name] for name in originals)).where(is_live))
        self._update_variants = PreparedStatement(
            update(table).where(is_live, *is_same).values(new).returning(table.c.id)
        )

    def read_originals(self, id_: int) -> OriginalUrls | None:
        """The addresses of the original; None for a row that is not there, or in the trash."""
        with open_transaction(is_read=True):
            found = self._select_originals.fetch_rows({"id": id_})
        return tuple(found[0]) if found else None

    def write_variants(self, id_: int, originals: OriginalUrls, urls: Mapping[str, str | None]) -> bool:
        """Write the addresses of the variants, all at once and unannounced; False when the original is another now."""
        read = {f"read_{name}": url for name, url in zip(self.originals, originals, strict=True)}
        new = {f"new_{size.name}": urls.get(size.name) for size in self.sizes}
        with open_transaction(is_read=False):
            written = self._update_variants.fetch_rows({"id": id_, **read, **new})
            commit()
        return bool(written)


def _get_column_name(size: VariantSpec) -> str:
    return f"{size.name}_image_url"


EVENT_VARIANT_COLUMNS = VariantColumns(Event, ("original_image_url",), EVENT_SIZES)
USER_VARIANT_COLUMNS = VariantColumns(User, ("original_image_url", "avatar_url"), USER_SIZES)


@cache
def _prepare_url_searches() -> list[PreparedStatement]:
    """Select the files that attributes of rows name, those of rows in the trash too: they may be taken out of it."""
    statements = []
    for known in TYPES.values():
        attributes = [each for each in known.attributes.values() if each.is_column]
        urls = [known.table.c[each.name] for each in attributes if isinstance(each.field, Url)]
        if urls:
            statements.append(_select_segments(known.table, urls))
        for links in (known.table.c[each.name] for each in attributes if isinstance(each.field, DocumentLinks)):
            link = func.jsonb_path_query(links, literal_column("'$[*].link'")).column_valued("link")
            statements.append(_select_segments(known.table, [link.op("#>>")(literal_column("'{}'"))]))
    return statements


def _select_segments(table: FromClause, urls: Sequence[ColumnElement[Any]]) -> PreparedStatement:
    segments = [stored_files.select_last_segment(url) for url in urls]
    is_named = [segment == any_(bindparam("segments", type_=ARRAY(Text))) for segment in segments]
    return PreparedStatement(select(*segments).select_from(table).where(or_(*is_named)))


@stored_files.register_finder
def find_used_files(names: Collection[str]) -> Collection[str]:
    """Return those of these files that a URL of a row names, by their last segment."""
    public = [name for name in names if not name.startswith("jobs/")]
    if not public:  # at the end of every job of the resize API: all events are looked at otherwise
        return ()
    values = {"segments": [stored_files.get_segment(name) for name in public]}
    found = {
        segment for statement in _prepare_url_searches() for row in statement.fetch_rows(values) for segment in row
    }
    return stored_files.filter_by_segments(public, found)
