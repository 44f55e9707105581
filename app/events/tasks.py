"""Outbox consumers of events: calendar files and mails about offers of ownership."""

from urllib.parse import urlsplit

from flask import current_app
from sqlalchemy import select, update

from app import mail
from app.derived_keys import derive_key
from app.events.calendar import MEDIA_TYPE, to_icalendar
from app.events.models import Event
from app.events.team import MAIL_OWNERSHIP_OFFER
from app.extensions import db
from app.outbox import OutboxEntry, consumer_task
from app.processes.worker_nodes import MAILS_QUEUE
from app.storage import current_storage
from app.users.emails import to_ascii_email
from app.users.models import User

# Without the name of the event: its owner must not be able to write to other people.
OWNERSHIP_OFFER_BODY = """\
The owner of an event at {site} asks you to become its owner:

{url}

Look at it with your account there, then send POST to {url}/accept-ownership or {url}/decline-ownership.
As long as you do nothing, nothing changes.
"""

CALENDAR_COLUMNS = (
    "name,starts_at,ends_at,location_name,searchable_location_name,latitude,longitude,timezone,external_event_url,"
    "state,privacy"
)
"""Columns that the calendar file contains or depends on."""


@consumer_task("events.rewrite_calendar")  # for the entries of migration 0011
@consumer_task(
    "events.write_calendar",
    on=("event.created", f"event.updated:{CALENDAR_COLUMNS}", "event.deleted", "event.restored"),
    merge_by="id",
)
def write_calendar(entry: OutboxEntry) -> None:
    """Write, move or delete the calendar file of an event so that it matches the event."""
    # FOR NO KEY UPDATE: it does not block inserts of FAQs of the event while the file is written.
    event = db.session.scalar(select(Event).where(Event.id == entry.payload["id"]).with_for_update(key_share=True))
    if event is None:
        return
    storage = current_storage()
    old_name = storage.get_name_from_url(event.ical_url) if event.ical_url else None
    name = _choose_name(entry, old_name) if _is_public(event) else None
    if name:
        host = urlsplit(current_app.config["PUBLIC_URL"]).hostname or "localhost"
        storage.put(name, to_icalendar(event, entry.created_at, host), MEDIA_TYPE)
    for stale in _list_earlier_names(entry, old_name) - {name}:
        storage.delete(stale)
    if name != old_name:
        _set_url(event.id, storage.get_url(name) if name else None)


@consumer_task(MAIL_OWNERSHIP_OFFER, queue=MAILS_QUEUE)
def mail_ownership_offer(entry: OutboxEntry) -> None:
    """Mail an offer of ownership to the pending owner, if their address is verified and the offer is still open."""
    event = db.session.get(Event, entry.payload["id"])
    user = db.session.get(User, entry.payload["user_id"])
    if event is None or user is None or user.deleted_at is not None or user.is_blocked or not user.is_verified:
        return
    if event.deleted_at is not None or event.pending_owner_id != user.id:
        return
    site = current_app.config["PUBLIC_URL"]
    message = mail.build_message(
        id=entry.id,
        created_at=entry.created_at,
        to=to_ascii_email(user.email),
        subject="You are asked to become the owner of an event",
        body=OWNERSHIP_OFFER_BODY.format(site=site, url=f"{site}/v1/events/{event.id}"),
        resource_type="event",
        resource_id=event.id,
    )
    mail.send_message(message, kind=entry.consumer)


def _is_public(event: Event) -> bool:
    return event.state == "published" and event.deleted_at is None and event.starts_at is not None


def _choose_name(entry: OutboxEntry, old_name: str | None) -> str:
    """Return the name of the file: a new one when state or privacy has changed, so that the old URL stops working."""
    needs_new_name = entry.topic != "event.updated" or not {"state", "privacy"}.isdisjoint(entry.payload["changed"])
    return old_name if old_name and not needs_new_name else _derive_name(entry)


def _list_earlier_names(entry: OutboxEntry, old_name: str | None) -> set[str]:
    """Return the names of the old file and of the file that an earlier, failed try may have written."""
    names = {old_name} if old_name else set()
    return names | ({_derive_name(entry)} if entry.tries > 1 else set())


def _derive_name(entry: OutboxEntry) -> str:
    """Return a name that cannot be guessed and is the same for every try of an entry: no try leaves a file behind."""
    return f"calendars/{derive_key(b'calendar:' + entry.id.bytes).hex()[:40]}.ics"


def _set_url(event_id: int, url: str | None) -> None:
    """Set the URL by a bulk update: an ORM flush would emit a change signal, which would trigger this consumer."""
    db.session.execute(
        update(Event).where(Event.id == event_id).values(ical_url=url), execution_options={"synchronize_session": False}
    )
