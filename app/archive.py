"""Archive of an event: a zip file with its JSON:API documents, calendar and images."""

import zipfile
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson
import structlog
from flask import Response, current_app
from flask_rest_jsonapi_next import Api
from sqlalchemy import ColumnElement, select, text

from app.database import get_connection, open_transaction
from app.events.calendar import to_icalendar
from app.events.permissions import list_types_of_events, team_or_admin
from app.events.resources import EVENT, EventData
from app.jobs.context import JobContext, JobFailed
from app.jobs.kinds import EVENT_PARAMETERS, job_kind
from app.jobs.resources import build_accepted_response, submit_for
from app.jsonapi.current_user import Role, require_current_user
from app.jsonapi.idempotency import run_idempotent
from app.jsonapi.permissions import Predicate, VisibilityScope
from app.jsonapi.reader import JSONAPI
from app.jsonapi.resource_type import ResourceType
from app.jsonapi.resources import ActionView
from app.jsonapi.select_plan import Item, get_select_plan
from app.storage import FileInfo, current_storage

IMAGE_ATTRIBUTES = ("original-image-url", "logo-url", "large-image-url", "thumbnail-image-url", "icon-image-url")

BATCH_SIZE = 100
"""Resources in memory at once; one may have more than 100 kB."""

ARCHIVE_SCOPE = VisibilityScope(Role.ADMIN)
"""Scope of the team: all resources of the event without trash."""

log = structlog.get_logger(__name__)


@job_kind("event-archive", parameters=EVENT_PARAMETERS, dedupe="single-flight", belongs_to_event=True)
def archive_event(running: JobContext) -> dict[str, Any]:
    """Store an event, its FAQs and their types, its calendar and its images in one zip file."""
    running.report_progress(0.0, "reading the event")
    path = running.work_dir / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        written = _write_resources(running, file, running.parameters["event"])
        images = _write_images(running, file, written.images)
    running.report_progress(0.95, "storing the archive")
    name = f"{written.identifier}.zip"
    with path.open("rb") as content:
        running.publish_file(name, content, "application/zip")
    return {"artifact": name, "resources": written.counts, "images": images}


class ArchiveContents:
    """Contents of an archive."""

    def __init__(self, identifier: str) -> None:
        self.identifier = identifier
        self.counts: dict[str, int] = {}
        """Number of resources by file."""
        self.images: dict[str, str] = {}
        """Storage names of images by name in the archive."""


def _write_resources(running: JobContext, file: zipfile.ZipFile, event_id: int) -> ArchiveContents:
    """Write the event, its resources and its calendar, all read from one snapshot."""
    with open_transaction(is_read=False):
        get_connection().execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        row = get_connection().execute(select(EVENT.table).where(EVENT.table.c.id == event_id)).one_or_none()
        if row is None or row.deleted_at is not None:
            raise JobFailed("gone", "The event has been deleted.")
        written = ArchiveContents(row.identifier)
        (event,) = _iterate_resources(running, EVENT, EVENT.table.c.id == event_id)
        _collect_images(written, event)
        file.writestr(_create_entry("event.json"), orjson.dumps({"jsonapi": JSONAPI, "data": event}))
        for type_ in list_types_of_events():
            _write_list(
                file, written, type_.plural, _iterate_resources(running, type_, type_.table.c.event_id == event_id)
            )
    if row.starts_at is not None:
        host = urlsplit(current_app.config["PUBLIC_URL"]).hostname or "localhost"
        file.writestr(_create_entry("calendar.ics"), to_icalendar(EVENT.row(*row), row.created_at, host))
    return written


def _iterate_resources(running: JobContext, type_: ResourceType, condition: ColumnElement[bool]) -> Iterator[Item]:
    # Without attributes that only the owner may read: every member of the team may request an archive.
    plan = get_select_plan(type_, ARCHIVE_SCOPE, type_.public_fields)
    id_ = type_.table.c.id
    statement = plan.statement.where(condition).order_by(id_).limit(BATCH_SIZE)
    last = 0
    while rows := get_connection().execute(statement.where(id_ > last)).all():
        running.raise_if_ending()
        yield from (plan.serialize_row(row) for row in rows)
        last = rows[-1][0]


def _write_list(file: zipfile.ZipFile, written: ArchiveContents, name: str, items: Iterator[Item]) -> None:
    """Write one JSON:API document from an iterator, so that BATCH_SIZE resources at most are in memory."""
    count = 0
    with file.open(_create_entry(f"{name}.json"), "w") as document:
        document.write(b'{"jsonapi":%s,"data":[\n' % orjson.dumps(JSONAPI))
        for item in items:
            document.write((b",\n" if count else b"") + orjson.dumps(item))
            count += 1
            _collect_images(written, item)
        document.write(b"\n]}\n")
    written.counts[name] = count


def _collect_images(written: ArchiveContents, item: Mapping[str, Any]) -> None:
    attributes = item["attributes"]
    if item["type"] == EVENT.name:
        urls = {name.removesuffix("-url"): attributes[name] for name in IMAGE_ATTRIBUTES if attributes[name]}
    else:
        urls = {f"gallery-{item['id']}": attributes["image-url"]} if "image-url" in attributes else {}
    for name, url in urls.items():
        if storage_key := current_storage().get_public_name(url):
            written.images[f"images/{name}.{storage_key.rpartition('.')[2]}"] = storage_key


def _write_images(running: JobContext, file: zipfile.ZipFile, images: Mapping[str, str]) -> int:
    """Write the images that are in storage; return their number."""
    missing = 0
    for number, (name, storage_key) in enumerate(images.items()):
        running.report_progress(0.1 + 0.8 * number / len(images), f"image {number + 1} of {len(images)}")
        try:
            _write_image(file, name, current_storage().stat(storage_key))
        except FileNotFoundError:
            running.report_progress(message=f"{name} is missing in storage", level="warning")
            missing += 1
    return len(images) - missing


def _write_image(file: zipfile.ZipFile, name: str, stored: FileInfo) -> None:
    with file.open(_create_entry(name, zipfile.ZIP_STORED), "w") as image:
        for part in current_storage().stream_file(stored):
            image.write(part)


def _create_entry(name: str, compression: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    """Return a zip entry with the earliest possible time, so that the same content gives the same file."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = compression
    entry.external_attr = 0o644 << 16
    return entry


class ArchiveEvent(ActionView):
    """Start a job of the kind `event-archive` for an event."""

    data_layer = {"class": EventData, "type": EVENT}
    methods = {"POST"}

    @classmethod
    def predicates_by_method(cls) -> Mapping[str, Predicate]:
        return {"POST": team_or_admin}

    def post(self, id: str) -> Response:
        """Return 202 with a new job or with the unfinished one of the same event."""
        viewer = require_current_user()
        reader = self.make_reader(name=id)

        def start() -> Response:
            event_id = reader.get_id(EVENT, id)
            job = submit_for("event-archive", {"event": event_id}, reader.access, pointer=None, trigger="api").job
            return build_accepted_response(job, reader.access)

        return run_idempotent(viewer, start)


def route(api: Api) -> None:
    """Register the route of archives."""
    api.route(ArchiveEvent, "event_archive", "/events/<id>/archive")
