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

from app.database import connection, transaction
from app.events.calendar import to_icalendar
from app.events.permissions import coorganizer, list_types_of_events
from app.events.resources import EVENT, EventData
from app.jobs.context import JobFailed, Running
from app.jobs.kinds import EVENT_ALONE, job_kind
from app.jobs.resources import accepted, submitted
from app.jsonapi.idempotency import answered_once
from app.jsonapi.permissions import Predicate, Scope
from app.jsonapi.plan import Item, plan_for
from app.jsonapi.reading import JSONAPI
from app.jsonapi.resource_type import ResourceType
from app.jsonapi.resources import Command
from app.jsonapi.viewer import Role, signed_in_viewer
from app.storage import Stored, current_storage

IMAGES = ("original-image-url", "logo-url", "large-image-url", "thumbnail-image-url", "icon-image-url")

BATCH = 100
"""Resources in memory at once; each may have more than 100 kB."""

WHOLE = Scope(Role.ADMIN)
"""The team sees all of its event; what is in the trash stays there."""

log = structlog.get_logger(__name__)


@job_kind("event-archive", parameters=EVENT_ALONE, dedupe="single-flight", about_event=True)
def archive(running: Running) -> dict[str, Any]:
    """Put an event, its FAQs and their types, its calendar and its images into one zip."""
    running.progress(0.0, "reading the event")
    path = running.work_dir / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        written = _write_resources(running, file, running.parameters["event"])
        images = _write_images(running, file, written.images)
    running.progress(0.95, "storing the archive")
    name = f"{written.identifier}.zip"
    with path.open("rb") as content:
        running.publish(name, content, "application/zip")
    return {"artifact": name, "resources": written.counts, "images": images}


class Written:
    """What went into an archive."""

    def __init__(self, identifier: str) -> None:
        self.identifier = identifier
        self.counts: dict[str, int] = {}
        """Resources by the name of their file."""
        self.images: dict[str, str] = {}
        """Files of ours that the event shows, by their name in the archive."""


def _write_resources(running: Running, file: zipfile.ZipFile, event_id: int) -> Written:
    """All of them as they were at one moment."""
    with transaction(is_read=False):
        connection().execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        row = connection().execute(select(EVENT.table).where(EVENT.table.c.id == event_id)).one_or_none()
        if row is None or row.deleted_at is not None:
            raise JobFailed("gone", "The event has been deleted.")
        written = Written(row.identifier)
        (event,) = _items(running, EVENT, EVENT.table.c.id == event_id)
        _note_images(written, event)
        file.writestr(_entry("event.json"), orjson.dumps({"jsonapi": JSONAPI, "data": event}))
        for type_ in list_types_of_events():
            _write_list(file, written, type_.plural, _items(running, type_, type_.table.c.event_id == event_id))
    if row.starts_at is not None:
        host = urlsplit(current_app.config["PUBLIC_URL"]).hostname or "localhost"
        file.writestr(_entry("calendar.ics"), to_icalendar(EVENT.row(*row), row.created_at, host))
    return written


def _items(running: Running, type_: ResourceType, condition: ColumnElement[bool]) -> Iterator[Item]:
    # What only the owner reads is not in it: every member of the team may ask for an archive.
    plan = plan_for(type_, WHOLE, type_.public_fields)
    id_ = type_.table.c.id
    statement = plan.statement.where(condition).order_by(id_).limit(BATCH)
    last = 0
    while rows := connection().execute(statement.where(id_ > last)).all():
        running.check()
        yield from (plan.print(row) for row in rows)
        last = rows[-1][0]


def _write_list(file: zipfile.ZipFile, written: Written, name: str, items: Iterator[Item]) -> None:
    """One JSON:API document, resource by resource: however many there are, few are in memory."""
    count = 0
    with file.open(_entry(f"{name}.json"), "w") as document:
        document.write(b'{"jsonapi":%s,"data":[\n' % orjson.dumps(JSONAPI))
        for item in items:
            document.write((b",\n" if count else b"") + orjson.dumps(item))
            count += 1
            _note_images(written, item)
        document.write(b"\n]}\n")
    written.counts[name] = count


def _note_images(written: Written, item: Mapping[str, Any]) -> None:
    attributes = item["attributes"]
    if item["type"] == EVENT.name:
        shown = {name.removesuffix("-url"): attributes[name] for name in IMAGES if attributes[name]}
    else:
        shown = {f"gallery-{item['id']}": attributes["image-url"]} if "image-url" in attributes else {}
    for name, url in shown.items():
        if stored_as := current_storage().public_name(url):
            written.images[f"images/{name}.{stored_as.rpartition('.')[2]}"] = stored_as


def _write_images(running: Running, file: zipfile.ZipFile, images: Mapping[str, str]) -> int:
    """How many there were."""
    missing = 0
    for number, (name, stored_as) in enumerate(images.items()):
        running.progress(0.1 + 0.8 * number / len(images), f"image {number + 1} of {len(images)}")
        try:
            _write_image(file, name, current_storage().stat(stored_as))
        except FileNotFoundError:
            running.progress(message=f"{name} is not in storage any more", level="warning")
            missing += 1
    return len(images) - missing


def _write_image(file: zipfile.ZipFile, name: str, stored: Stored) -> None:
    with file.open(_entry(name, zipfile.ZIP_STORED), "w") as image:
        for part in current_storage().stream(stored):
            image.write(part)


def _entry(name: str, compression: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    """With the time that zips begin with: the same content makes the same file."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = compression
    entry.external_attr = 0o644 << 16
    return entry


class ArchiveEvent(Command):
    """The friendly way to an `event-archive`."""

    data_layer = {"class": EventData, "type": EVENT}
    methods = {"POST"}

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        return {"POST": coorganizer}

    def post(self, id: str) -> Response:
        """202 with the job, which may be one that is at it already."""
        viewer = signed_in_viewer()
        reader = self.reader(name=id)

        def start() -> Response:
            event_id = reader.find(EVENT, id)
            job = submitted("event-archive", {"event": event_id}, reader.access, pointer=None, trigger="api").job
            return accepted(job, reader.access)

        return answered_once(viewer, start)


def route(api: Api) -> None:
    """The URL below an event."""
    api.route(ArchiveEvent, "event_archive", "/events/<id>/archive")
