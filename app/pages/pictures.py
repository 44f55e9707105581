"""Where a browser finds the images of documents: below /files on this very host, whatever PUBLIC_URL says."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import null, select

from app.database import Prepared
from app.documents.expansion import NAMES_ITS_FILE, Document
from app.jsonapi.permissions import Access, Scope
from app.jsonapi.resource_type import TYPES
from app.jsonapi.statements import among
from app.storage import current_storage


class Picture(NamedTuple):
    """An image of ours; of the picture of an event nobody has written down how large it is."""

    url: str
    width: int | None = None
    height: int | None = None


def picture_of(stored_as: str, width: int | None = None, height: int | None = None) -> Picture:
    """The picture with this name in storage."""
    return Picture(f"/files/{stored_as}", width, height)


def pictures(documents: Iterable[Document], access: Access) -> dict[str, Picture]:
    """The images among the documents that the viewer sees now, by uid, in one statement for each type."""
    ids: dict[str, dict[int, str]] = {name: {} for name in NAMES_ITS_FILE}
    for each in documents:
        if each.type == "image" and each.resource_type in ids:
            ids[each.resource_type][each.resource_id] = each.uid
    found: dict[str, Picture] = {}
    for name, uids in ids.items():
        for id_, *stored in _rows(name, list(uids), access):
            if (picture := _picture(name, *stored)) is not None:
                found[uids[id_]] = picture
    return found


def _rows(resource_type: str, ids: list[int], access: Access) -> Sequence[Any]:
    return _files(resource_type, access.scope).rows({**access.parameters(), "ids": ids}) if ids else ()


def _picture(resource_type: str, named: str | None, width: int | None, height: int | None) -> Picture | None:
    """An event names its picture by URL, which may lead to somebody else's."""
    stored_as = current_storage().public_name(named or "") if resource_type == "event" else named
    return picture_of(stored_as, width, height) if stored_as else None


@cache
def _files(resource_type: str, scope: Scope) -> Prepared:
    type_ = TYPES[resource_type]
    table = type_.table
    size = (table.c.width, table.c.height) if "width" in table.c else (null(), null())
    visible = type_.permissions.criterion(scope, table, related=False)
    return Prepared(select(table.c.id, table.c[NAMES_ITS_FILE[resource_type]], *size).where(among(table.c.id), visible))
