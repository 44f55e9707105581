"""Sample data: a published and a draft event with FAQ types and FAQs, and their organizer."""

import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from app.events.models import Event
from app.events.team import make_owner
from app.extensions import db
from app.faqs.models import Faq, FaqType
from app.users.accounts import has_email
from app.users.models import User
from app.users.passwords import hash_password

DEMO_EMAIL = "organizer@example.com"

SAMPLE_FAQS = {
    "Getting there": {
        "Where is the venue?": "Opposite the central station, platform side.",
        "Is there parking?": "For bicycles. Please leave the car at home.",
    },
    "Tickets": {
        "Can I give my ticket to a friend?": "Yes, until the day before.",
        "Is there a discount for students?": "Half price with a student ID.",
    },
}


def is_database_empty() -> bool:
    """Return whether the database has no users."""
    return db.session.scalar(select(User.id).limit(1)) is None


def create_sample_data() -> str | None:
    """Store the sample data and return the password of DEMO_EMAIL; None if that user already exists."""
    if db.session.scalar(select(User.id).where(User.deleted_at.is_(None), has_email(DEMO_EMAIL))) is not None:
        return None
    password = secrets.token_urlsafe(9)
    organizer = User(
        email=DEMO_EMAIL,
        password_hash=hash_password(password),
        first_name="Demo",
        last_name="Organizer",
        is_verified=True,
        email_verified_at=datetime.now(UTC),
    )
    db.session.add(organizer)
    db.session.flush()
    _add_event(organizer, "Open Source Summer", "published", datetime.now(UTC) + timedelta(days=90))
    _add_event(organizer, "Winter Workshop", "draft", datetime.now(UTC) + timedelta(days=270))
    db.session.commit()
    return password


def _add_event(owner: User, name: str, state: str, day: datetime) -> None:
    starts_at = day.replace(hour=9, minute=0, second=0, microsecond=0)
    event = Event(
        name=name,
        state=state,
        timezone="Europe/Berlin",
        starts_at=starts_at,
        ends_at=starts_at + timedelta(hours=8),
        location_name="Kulturbrauerei, Berlin",
        description="Talks, workshops and people.",
        owner_id=owner.id,
    )
    db.session.add(event)
    db.session.flush()
    make_owner(event, owner.id)
    for type_name, faqs in SAMPLE_FAQS.items():
        faq_type = FaqType(name=type_name, event_id=event.id)
        db.session.add(faq_type)
        db.session.flush()
        for position, (question, answer) in enumerate(faqs.items()):
            faq = Faq(question=question, answer=answer, position=position, event_id=event.id, faq_type_id=faq_type.id)
            db.session.add(faq)
