"""Dataset of the blueprint's examples, and the tokens of its users."""

import email
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import redis
from flask import Flask
from sqlalchemy import delete, func, insert, select, text

from app.database import commit, get_connection, open_transaction
from app.events.models import Event, EventRole
from app.events.permissions import list_types_of_events
from app.extensions import db
from app.faqs.models import Faq, FaqType
from app.gallery.models import EventImage
from app.outbox import OutboxEntry
from app.relay import RelayHeartbeat
from app.storage import current_storage
from app.users import login_sessions
from app.users.models import User
from app.users.passwords import hash_password
from tests.docs import hooks, jobs, overview, treatments
from tests.samples import sample_columns

PASSWORD = "a long pass phrase"
PEOPLE = ("admin", "owner", "organizer", "coorganizer", "user", "newcomer", "super admin")
"""Their ids count from 1, in this order."""

DATASET_TIME = datetime(2026, 1, 2, 9, 30, tzinfo=UTC)
ICAL_URL = "https://api.example.org/files/calendars/0197a1c2-6d0e-7c4b-9a55-3f1f0f2b7c11.ics"

password_hash = cache(hash_password)


def replace_dataset(app: Flask) -> None:
    """Empty the tables and fill them again, with the same ids each time and without outbox entries."""
    with app.app_context(), db.session.begin():
        _empty_tables()
        # Core statements send no change signals, so no worker changes a row while an example is sent.
        db.session.execute(insert(User), [_build_user(name) for name in PEOPLE])
        db.session.execute(insert(Event), _build_events())
        db.session.execute(insert(EventRole), _build_team())
        db.session.execute(insert(FaqType), _build_faq_types())
        db.session.execute(insert(Faq), _build_faqs())
        db.session.execute(insert(EventImage), _build_event_images())
        for type_ in list_types_of_events():
            if type_.model not in (FaqType, Faq, EventImage):
                db.session.execute(
                    insert(type_.model), [{**sample_columns(type_), "event_id": 1, "created_at": DATASET_TIME}]
                )
        # Only of a file that is there an image is taken out of the trash.
        current_storage().put(_build_image_url("blurred.jpg")["storage_key"], treatments.PICTURE, "image/jpeg")
        hooks.add_hooks(DATASET_TIME)
        treatments.add_document_sets(DATASET_TIME)
    with app.app_context(), open_transaction(is_read=False):
        for made in (jobs.JOBS, treatments.JOBS, overview.JOBS):
            jobs.add_jobs(DATASET_TIME, made)
        treatments.add_treatments(DATASET_TIME)
        get_connection().execute(delete(OutboxEntry))  # no worker is told of any of them
        commit()


def remove_dataset(app: Flask) -> None:
    """Leave nothing in the database and in Redis."""
    with app.app_context(), db.session.begin():
        _empty_tables()
    with redis.Redis.from_url(app.config["REDIS_URL"]) as client:
        client.flushall()


def is_outbox_empty(app: Flask) -> bool:
    """Return whether all outbox entries that are due have been handled."""
    is_open = (OutboxEntry.done_at.is_(None), OutboxEntry.dead_at.is_(None))
    is_due = OutboxEntry.due_at <= func.now()  # not next_at: a worker may be at an entry that the relay has published
    unfinished = select(func.count()).where(*is_open, is_due)
    ours = jobs.count_unfinished_jobs((*jobs.JOBS, *treatments.JOBS, *overview.JOBS))
    with app.app_context():
        return not any(db.session.scalar(statement) for statement in (unfinished, ours))


class TokenProvider:
    """Values for placeholders of the blueprint in angle brackets with `token` in their name, created when needed."""

    def __init__(self, app: Flask, wait_until: Callable[..., Any]) -> None:
        self.app = app
        self.wait_until = wait_until

    def __getitem__(self, name: str) -> str:
        kind, _, person = name.rpartition(" of the ")
        if kind in ("access token", "refresh token"):
            with self.app.app_context(), db.session.begin():
                tokens = login_sessions.create_session(PEOPLE.index(person) + 1)
            return tokens.access_token if kind == "access token" else tokens.refresh_token
        path, address = {
            "verification mail": ("/v1/auth/resend-verification-email", "newcomer@example.org"),
            "reset mail": ("/v1/auth/reset-password", "owner@example.org"),
        }[person]
        self.app.test_client().post(path, json={"email": address})
        return str(self.wait_until(self._get_mailed_token, what=f"no {person} came"))

    def _get_mailed_token(self) -> str | None:
        """Return the token in the mail of the last outbox entry."""
        with self.app.app_context():
            last = db.session.scalar(select(OutboxEntry.id).order_by(OutboxEntry.id.desc()).limit(1))
        for path in Path(self.app.config["VAR_DIR"], "mail").glob(f"{last}@*.eml"):
            words = str(email.message_from_bytes(path.read_bytes()).get_payload()).split()
            return next(word for word in words if word.count(".") == 2 and len(word) > 100)
        return None


def _empty_tables() -> None:
    # Not the relay's own row: a relay that beats is part of the machinery, not of the dataset.
    tables = [table.name for table in db.metadata.sorted_tables if table is not RelayHeartbeat.__table__]
    db.session.execute(text(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY"))


def _build_user(name: str) -> dict[str, Any]:
    return {
        "email": f"{name.replace(' ', '-')}@example.org",
        "password_hash": password_hash(PASSWORD),
        "first_name": name.title(),
        "public_name": f"The {name}",
        "is_profile_public": name in ("owner", "organizer", "coorganizer"),
        "is_admin": name == "admin",
        "is_super_admin": name == "super admin",
        "is_verified": name != "newcomer",
        "created_at": DATASET_TIME,
        # The current time, so that no request updates it.
        "last_accessed_at": datetime.now(UTC),
    }


def _build_events() -> list[dict[str, Any]]:
    shared = {"timezone": "Europe/Berlin", "owner_id": PEOPLE.index("owner") + 1, "created_at": DATASET_TIME}
    may = {"starts_at": datetime(2099, 5, 1, 8, tzinfo=UTC), "ends_at": datetime(2099, 5, 3, 16, tzinfo=UTC)}
    summit = {
        "name": "Open Tech Summit",
        "identifier": "a1b2c3d4",
        "state": "published",
        "privacy": "public",
        "description": "<p>Three days of free software</p>",
        "location_name": "Kalkscheune, Berlin",
        "latitude": 52.5251,
        "longitude": 13.3889,
        "logo_url": "https://example.org/logo.png",
        "ical_url": ICAL_URL,
    }
    draft = {"name": "Winter Camp", "identifier": "b2c3d4e5", "state": "draft", "privacy": "public"}
    private: dict[str, Any] = {
        "name": "Garden Party",
        "identifier": "c3d4e5f6",
        "state": "published",
        "privacy": "private",
    }
    private["pending_owner_id"] = PEOPLE.index("newcomer") + 1
    trashed = {"name": "Old Fair", "identifier": "d4e5f6a7", "state": "published", "privacy": "public"}
    every: list[dict[str, Any]] = [summit | may, draft, private | may, trashed | may | {"deleted_at": DATASET_TIME}]
    columns = {name for event in every for name in event}
    return [dict.fromkeys(columns) | shared | event for event in every]


def _build_team() -> list[dict[str, Any]]:
    return [
        {"event_id": event_id, "user_id": PEOPLE.index(role) + 1, "role": role}
        for event_id in (1, 2, 3, 4)
        for role in ("owner", "organizer", "coorganizer")
    ]


def _build_faq_types() -> list[dict[str, Any]]:
    named = [("Venue", 1), ("Tickets", 1), ("Travel", 2)]
    return [{"name": name, "event_id": event_id, "created_at": DATASET_TIME} for name, event_id in named]


def _build_faqs() -> list[dict[str, Any]]:
    asked = [
        ("Where is it?", "In the Kalkscheune, near Friedrichstrasse.", 1, 1, 0),
        ("Where can I park?", "<b>Not</b> at the venue: come by train.", 1, 1, 1),
        ("Who may come?", "Everybody.", 1, None, 2),
        ("How do I get there?", "By train.", 2, 3, 0),
    ]
    names = ("question", "answer", "event_id", "faq_type_id", "position")
    return [dict(zip(names, faq, strict=True)) | {"created_at": DATASET_TIME} for faq in asked]


def _build_event_images() -> list[dict[str, Any]]:
    taken = [
        ("opening.jpg", 3000, 2000, 1, None),
        ("day 2/hall.jpg", 1600, 1200, 1, None),
        ("blurred.jpg", 800, 600, 1, DATASET_TIME),
        ("rehearsal.jpg", 640, 480, 2, None),
    ]
    names = ("name", "width", "height", "event_id", "deleted_at")
    return [dict(zip(names, image, strict=True)) | _build_image_url(image[0]) for image in taken]


def _build_image_url(name: str) -> dict[str, Any]:
    digest = sha256(name.encode()).hexdigest()
    file = {"storage_key": f"images/{digest}.jpg", "media_type": "image/jpeg", "size": 412_803, "sha256": digest}
    return {**file, "source_sha256": digest, "created_at": DATASET_TIME}
