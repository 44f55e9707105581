"""URLs of the images of documents: paths below /files on the host of the page, independent of PUBLIC_URL."""

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
    """URL of an image in the storage; the size of the image of an event is not known."""

    url: str
    width: int | None = None
    height: int | None = None


def build_image_link(storage_key: str, width: int | None = None, height: int | None = None) -> ImageLink:
    """Return the link to a stored file."""
    return ImageLink(f"/files/{storage_key}", width, height)


def find_image_links(documents: Iterable[Document], access: AccessContext) -> dict[str, ImageLink]:
    """Return the images among the documents that the viewer may see, by uid, with one statement for each type."""
    ids: dict[str, dict[int, str]] = {name: {} for name in FILE_COLUMNS}
    for each in documents:
        if each.type == "image" and each.resource_type in ids:
            ids[each.resource_type][each.resource_id] = each.uid
    links: dict[str, ImageLink] = {}
    for name, uids in ids.items():
        for id_, *columns in _fetch_rows(name, list(uids), access):
            if (link := _resolve_image_link(name, *columns)) is not None:
                links[uids[id_]] = link
    return links


def _fetch_rows(resource_type: str, ids: list[int], access: AccessContext) -> Sequence[Any]:
    return _select_files(resource_type, access.scope).fetch_rows({**access.sql_parameters(), "ids": ids}) if ids else ()


def _resolve_image_link(
    resource_type: str, reference: str | None, width: int | None, height: int | None
) -> ImageLink | None:
    """Return the link for a stored name, or for the URL of an event; None if the URL is not one of this storage."""
    storage_key = current_storage().get_public_name(reference or "") if resource_type == "event" else reference
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
