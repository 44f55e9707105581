"""The archive of an event: all that its team has written, as a zip that any program can read."""

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
"""Resources in memory at once; each may have more than 100 kB."""

ARCHIVE_SCOPE = VisibilityScope(Role.ADMIN)
"""The team sees all of its event; what is in the trash stays there."""

log = structlog.get_logger(__name__)


@job_kind("event-archive", parameters=EVENT_PARAMETERS, dedupe="single-flight", belongs_to_event=True)
def archive_event(running: JobContext) -> dict[str, Any]:
    """Put an event, its FAQs and their types, its calendar and its images into one zip."""
    running.report_progress(0.0, "reading the event")
    path = running.work_dir / "archive_event.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        written = _write_resources(running, file, running.parameters["event"])
        images = _write_images(running, file, written.images)
    running.report_progress(0.95, "storing the archive")
    name = f"{written.identifier}.zip"
    with path.open("rb") as content:
        running.publish_file(name, content, "application/zip")
    return {"artifact": name, "resources": written.counts, "images": images}


class ArchiveContents:
    """What went into an archive."""

    def __init__(self, identifier: str) -> None:
        self.identifier = identifier
        self.counts: dict[str, int] = {}
        """Resources by the name of their file."""
        self.images: dict[str, str] = {}
        """Files of ours that the event shows, by their name in the archive."""


def _write_resources(running: JobContext, file: zipfile.ZipFile, event_id: int) -> ArchiveContents:
    """All of them as they were at one moment."""
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
    # What only the owner reads is not in it: every member of the team may ask for an archive.
    plan = get_select_plan(type_, ARCHIVE_SCOPE, type_.public_fields)
    id_ = type_.table.c.id
    statement = plan.statement.where(condition).order_by(id_).limit(BATCH_SIZE)
    last = 0
    while rows := get_connection().execute(statement.where(id_ > last)).all():
        running.raise_if_ending()
        yield from (plan.serialize_row(row) for row in rows)
        last = rows[-1][0]


def _write_list(file: zipfile.ZipFile, written: ArchiveContents, name: str, items: Iterator[Item]) -> None:
    """One JSON:API document, resource by resource: however many there are, few are in memory."""
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
        shown = {name.removesuffix("-url"): attributes[name] for name in IMAGE_ATTRIBUTES if attributes[name]}
    else:
        shown = {f"gallery-{item['id']}": attributes["image-url"]} if "image-url" in attributes else {}
    for name, url in shown.items():
        if storage_key := current_storage().get_public_name(url):
            written.images[f"images/{name}.{storage_key.rpartition('.')[2]}"] = storage_key


def _write_images(running: JobContext, file: zipfile.ZipFile, images: Mapping[str, str]) -> int:
    """How many there were."""
    missing = 0
    for number, (name, storage_key) in enumerate(images.items()):
        running.report_progress(0.1 + 0.8 * number / len(images), f"image {number + 1} of {len(images)}")
        try:
            _write_image(file, name, current_storage().stat(storage_key))
        except FileNotFoundError:
            running.report_progress(message=f"{name} is not in storage any more", level="warning")
            missing += 1
    return len(images) - missing


def _write_image(file: zipfile.ZipFile, name: str, stored: FileInfo) -> None:
    with file.open(_create_entry(name, zipfile.ZIP_STORED), "w") as image:
        for part in current_storage().stream_file(stored):
            image.write(part)


def _create_entry(name: str, compression: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    """With the time that zips begin with: the same content makes the same file."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = compression
    entry.external_attr = 0o644 << 16
    return entry


class ArchiveEvent(ActionView):
    """The friendly way to an `event-archive`."""

    data_layer = {"class": EventData, "type": EVENT}
    methods = {"POST"}

    @classmethod
    def predicates_by_method(cls) -> Mapping[str, Predicate]:
        return {"POST": team_or_admin}

    def post(self, id: str) -> Response:
        """202 with the job, which may be one that is at it already."""
        viewer = require_current_user()
        reader = self.make_reader(name=id)

        def start() -> Response:
            event_id = reader.get_id(EVENT, id)
            job = submit_for("event-archive", {"event": event_id}, reader.access, pointer=None, trigger="api").job
            return build_accepted_response(job, reader.access)

        return run_idempotent(viewer, start)


def route(api: Api) -> None:
    """The URL below an event."""
    api.route(ArchiveEvent, "event_archive", "/events/<id>/archive")
