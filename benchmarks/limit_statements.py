"""The statements of the limit, each made once."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Uuid,
    and_,
    any_,
    bindparam,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from app.events.models import Event, EventRole
from app.events.permissions import PAYMENT_DETAILS
from app.faqs.models import Faq
from app.users.models import SignIn, User
from app.users.permissions import PUBLIC_PROFILE

VIEWER = bindparam("viewer_id", type_=BigInteger())
IDS = bindparam("ids", type_=ARRAY(BigInteger))
MOST_COUNTED = 10_000

events, faqs, roles, users = Event.__table__, Faq.__table__, EventRole.__table__, User.__table__

EVENT_NAMES = tuple(
    column.name for column in events.c if column.name not in {"id", "owner_id", "pending_owner_id", *PAYMENT_DETAILS}
)
PAYMENT_NAMES = tuple(sorted(PAYMENT_DETAILS))
"""Shown to the owner; empty here, so that nothing has to be decrypted."""
FAQ_NAMES = ("question", "answer", "position", "created_at", "deleted_at")
PROFILE_NAMES = tuple(column.name for column in users.c if column.name in PUBLIC_PROFILE)

CALLER = (
    select(
        User.id,
        User.is_admin,
        User.is_super_admin,
        User.is_verified,
        or_(User.last_accessed_at.is_(None), User.last_accessed_at < func.now() - func.make_interval(0, 0, 0, 0, 1)),
    )
    .join(SignIn, SignIn.user_id == User.id)
    .where(
        User.id == bindparam("user_id"),
        User.deleted_at.is_(None),
        User.is_blocked.is_(False),
        SignIn.id == bindparam("sign_in_id", type_=Uuid()),
        SignIn.revoked_at.is_(None),
    )
)

_in_team = exists().where(roles.c.event_id == events.c.id, roles.c.user_id == VIEWER)
_visible = and_(
    events.c.deleted_at.is_(None),
    or_(and_(events.c.state == "published", events.c.privacy == "public"), _in_team),
)
_event = (events.c.id, events.c.owner_id, *(events.c[name] for name in EVENT_NAMES))
_faq = (faqs.c.id, faqs.c.event_id, faqs.c.faq_type_id, *(faqs.c[name] for name in FAQ_NAMES))

ONE_EVENT = select(*_event).where(events.c.id == bindparam("id"), _visible)
EVENTS = (
    select(*_event)
    .where(_visible)
    .order_by(events.c.id)
    .limit(bindparam("size", type_=BigInteger()))
    .offset(bindparam("offset", type_=BigInteger()))
)
COUNT_EVENTS = select(func.count()).select_from(
    select(literal_column("1")).select_from(events).where(_visible).limit(MOST_COUNTED + 1).subquery()
)

_theirs, _mine = roles.alias(), roles.alias()
_in_one_team = exists().where(
    _theirs.c.user_id == users.c.id, _mine.c.event_id == _theirs.c.event_id, _mine.c.user_id == VIEWER
)
OWNERS = select(users.c.id, *(users.c[name] for name in PROFILE_NAMES)).where(
    users.c.id == any_(IDS), users.c.deleted_at.is_(None), or_(users.c.is_profile_public, _in_one_team)
)
FAQS = (
    select(*_faq).where(faqs.c.event_id == any_(IDS), faqs.c.deleted_at.is_(None)).order_by(faqs.c.position, faqs.c.id)
)

CREATE_FAQ = insert(Faq).returning(*_faq)
UPDATE_EVENT = (
    update(Event)
    .where(events.c.id == bindparam("key"))
    .values(name=bindparam("name"), location_name=bindparam("location_name"))
    .returning(*_event, *(events.c[name] for name in PAYMENT_NAMES))
)
