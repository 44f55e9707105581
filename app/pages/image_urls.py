"""Where a browser finds the images of documents: below /files on this very host, whatever PUBLIC_URL says."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import null, select

from app.database import PreparedStatement
from app.documents.resolver import FILE_COLUMNS, Document
from app.jsonapi.permissions import AccessContext, VisibilityScope
from app.jsonapi.resource_type import TYPES
from app.jsonapi.select_statements import id_in
from app.storage import current_storage


class ImageLink(NamedTuple):
    """An image of ours; of the picture of an event nobody has written down how large it is."""

    url: str
    width: int | None = None
    height: int | None = None


def build_image_link(storage_key: str, width: int | None = None, height: int | None = None) -> ImageLink:
    """The picture with this name in storage."""
    return ImageLink(f"/files/{storage_key}", width, height)


def find_image_links(documents: Iterable[Document], access: AccessContext) -> dict[str, ImageLink]:
    """The images among the documents that the viewer sees now, by uid, in one statement for each type."""
    ids: dict[str, dict[int, str]] = {name: {} for name in FILE_COLUMNS}
    for each in documents:
        if each.type == "image" and each.resource_type in ids:
            ids[each.resource_type][each.resource_id] = each.uid
    found: dict[str, ImageLink] = {}
    for name, uids in ids.items():
        for id_, *stored in _fetch_rows(name, list(uids), access):
            if (picture := _resolve_image_link(name, *stored)) is not None:
                found[uids[id_]] = picture
    return found


def _fetch_rows(resource_type: str, ids: list[int], access: AccessContext) -> Sequence[Any]:
    return _select_files(resource_type, access.scope).fetch_rows({**access.sql_parameters(), "ids": ids}) if ids else ()


def _resolve_image_link(
    resource_type: str, named: str | None, width: int | None, height: int | None
) -> ImageLink | None:
    """An event names its picture by URL, which may lead to somebody else's."""
    storage_key = current_storage().get_public_name(named or "") if resource_type == "event" else named
    return build_image_link(storage_key, width, height) if storage_key else None


@cache
def _select_files(resource_type: str, scope: VisibilityScope) -> PreparedStatement:
    type_ = TYPES[resource_type]
    table = type_.table
    size = (table.c.width, table.c.height) if "width" in table.c else (null(), null())
    visible = type_.permissions.visibility_criterion(scope, table, related=False)
    return PreparedStatement(
        select(table.c.id, table.c[FILE_COLUMNS[resource_type]], *size).where(id_in(table.c.id), visible)
    )
