"""Columns of events and users with the URLs of their image and of its variants."""

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
    """Image columns of a table: those with the URL of the original (the first that is set counts), and sizes."""

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
        """Return the URLs of the original; None if the row does not exist or is in the trash."""
        with open_transaction(is_read=True):
            rows = self._select_originals.fetch_rows({"id": id_})
        return tuple(rows[0]) if rows else None

    def write_variants(self, id_: int, originals: OriginalUrls, urls: Mapping[str, str | None]) -> bool:
        """Write the URLs of the variants, without a change signal; return False if the original has changed."""
        read = {f"read_{name}": url for name, url in zip(self.originals, originals, strict=True)}
        new = {f"new_{size.name}": urls.get(size.name) for size in self.sizes}
        with open_transaction(is_read=False):
            updated = self._update_variants.fetch_rows({"id": id_, **read, **new})
            commit()
        return bool(updated)


def _get_column_name(size: VariantSpec) -> str:
    return f"{size.name}_image_url"


EVENT_VARIANT_COLUMNS = VariantColumns(Event, ("original_image_url",), EVENT_SIZES)
USER_VARIANT_COLUMNS = VariantColumns(User, ("original_image_url", "avatar_url"), USER_SIZES)


@cache
def _prepare_url_searches() -> list[PreparedStatement]:
    """Return statements that select file names in URL attributes of all rows, as those in the trash can be restored."""
    statements = []
    for type_ in TYPES.values():
        attributes = [each for each in type_.attributes.values() if each.is_column]
        urls = [type_.table.c[each.name] for each in attributes if isinstance(each.field, Url)]
        if urls:
            statements.append(_select_segments(type_.table, urls))
        for links in (type_.table.c[each.name] for each in attributes if isinstance(each.field, DocumentLinks)):
            link = func.jsonb_path_query(links, literal_column("'$[*].link'")).column_valued("link")
            statements.append(_select_segments(type_.table, [link.op("#>>")(literal_column("'{}'"))]))
    return statements


def _select_segments(table: FromClause, urls: Sequence[ColumnElement[Any]]) -> PreparedStatement:
    segments = [stored_files.select_last_segment(url) for url in urls]
    is_named = [segment == any_(bindparam("segments", type_=ARRAY(Text))) for segment in segments]
    return PreparedStatement(select(*segments).select_from(table).where(or_(*is_named)))


@stored_files.register_finder
def find_used_files(names: Collection[str]) -> Collection[str]:
    """Return those of the given files that a URL in a row refers to, by their last segment."""
    public = [name for name in names if not name.startswith("jobs/")]
    if not public:  # avoids a scan of all events at the end of each job of the resize API
        return ()
    values = {"segments": [stored_files.get_segment(name) for name in public]}
    used = {segment for statement in _prepare_url_searches() for row in statement.fetch_rows(values) for segment in row}
    return stored_files.filter_by_segments(public, used)
