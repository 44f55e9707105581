"""What happens in the background because an event changed."""

import hmac
from hashlib import sha256
from urllib.parse import urlsplit

from flask import current_app
from sqlalchemy import select, update

from app import mail
from app.events.calendar import MEDIA_TYPE, to_icalendar
from app.events.models import Event
from app.events.team import MAIL_OWNERSHIP_OFFER
from app.extensions import db
from app.outbox import OutboxEntry, consumer
from app.processes.nodes import MAILS_QUEUE
from app.storage import current_storage
from app.users.emails import ascii_email
from app.users.models import User

# Without the name of the event: its owner must not be able to write to other people.
OWNERSHIP_OFFER = """\
The owner of an event at {site} asks you to become its owner:

{url}

Look at it with your account there, then send POST to {url}/accept-ownership or {url}/decline-ownership.
As long as you do nothing, nothing changes.
"""

IN_CALENDAR = (
    "name,starts_at,ends_at,location_name,searchable_location_name,latitude,longitude,timezone,external_event_url,"
    "state,privacy"
)
"""The columns that show in the file, or decide whether there is one."""


@consumer("events.rewrite_calendar")  # for the entries of migration 0011
@consumer(
    "events.write_calendar",
    on=("event.created", f"event.updated:{IN_CALENDAR}", "event.deleted", "event.restored"),
    merge_by="id",
)
def write_calendar(entry: OutboxEntry) -> None:
    """Make the event's calendar file be what the event is now: written, moved or gone."""
    # Not FOR UPDATE: that would keep FAQs of the event waiting while the file is written.
    event = db.session.scalar(select(Event).where(Event.id == entry.payload["id"]).with_for_update(key_share=True))
    if event is None:
        return
    storage = current_storage()
    old_name = storage.name(event.ical_url) if event.ical_url else None
    name = _name(entry, old_name) if _is_public(event) else None
    if name:
        host = urlsplit(current_app.config["PUBLIC_URL"]).hostname or "localhost"
        storage.put(name, to_icalendar(event, entry.created_at, host), MEDIA_TYPE)
    for stale in _earlier_names(entry, old_name) - {name}:
        storage.delete(stale)
    if name != old_name:
        _set_url(event.id, storage.url(name) if name else None)


@consumer(MAIL_OWNERSHIP_OFFER, queue=MAILS_QUEUE)
def mail_ownership_offer(entry: OutboxEntry) -> None:
    """Mail the user who is asked to take an event over, if the address is verified and the question is still open."""
    event = db.session.get(Event, entry.payload["id"])
    user = db.session.get(User, entry.payload["user_id"])
    if event is None or user is None or user.deleted_at is not None or user.is_blocked or not user.is_verified:
        return
    if event.deleted_at is not None or event.pending_owner_id != user.id:
        return
    site = current_app.config["PUBLIC_URL"]
    message = mail.compose(
        id=entry.id,
        created_at=entry.created_at,
        to=ascii_email(user.email),
        subject="You are asked to take over an event",
        body=OWNERSHIP_OFFER.format(site=site, url=f"{site}/v1/events/{event.id}"),
        resource_type="event",
        resource_id=event.id,
    )
    mail.send(message, kind=entry.consumer)


def _is_public(event: Event) -> bool:
    return event.state == "published" and event.deleted_at is None and event.starts_at is not None


def _name(entry: OutboxEntry, old_name: str | None) -> str:
    """The name stays while the event stays published; who knew it from before is not told of what comes after."""
    is_another = entry.topic != "event.updated" or not {"state", "privacy"}.isdisjoint(entry.payload["changed"])
    return old_name if old_name and not is_another else _new_name(entry)


def _earlier_names(entry: OutboxEntry, old_name: str | None) -> set[str]:
    """The file there was, and one that an earlier try may have written before it failed."""
    names = {old_name} if old_name else set()
    return names | ({_new_name(entry)} if entry.tries > 1 else set())


def _new_name(entry: OutboxEntry) -> str:
    """Not to be guessed, and the same for every try of one entry, so that a try that failed leaves no file behind."""
    key = current_app.config["SECRET_KEY"].encode()
    return f"calendars/{hmac.new(key, b'calendar:' + entry.id.bytes, sha256).hexdigest()[:40]}.ics"


def _set_url(event_id: int, url: str | None) -> None:
    """In bulk: a flush would announce the change, and the change wake this consumer."""
    db.session.execute(
        update(Event).where(Event.id == event_id).values(ical_url=url), execution_options={"synchronize_session": False}
    )
