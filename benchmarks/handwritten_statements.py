"""Statements of the system `limit`, each built once."""

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
from app.users.models import LoginSession, User
from app.users.permissions import PUBLIC_PROFILE

VIEWER_ID = bindparam("viewer_id", type_=BigInteger())
IDS = bindparam("ids", type_=ARRAY(BigInteger))
MAX_EXACT_COUNT = 10_000

events, faqs, roles, users = Event.__table__, Faq.__table__, EventRole.__table__, User.__table__

EVENT_NAMES = tuple(
    column.name for column in events.c if column.name not in {"id", "owner_id", "pending_owner_id", *PAYMENT_DETAILS}
)
PAYMENT_NAMES = tuple(sorted(PAYMENT_DETAILS))
"""Columns that only the owner sees; empty in the data, so that nothing is decrypted."""
FAQ_NAMES = ("question", "answer", "position", "created_at", "deleted_at")
PROFILE_NAMES = tuple(column.name for column in users.c if column.name in PUBLIC_PROFILE)

SELECT_CURRENT_USER = (
    select(
        User.id,
        User.is_admin,
        User.is_super_admin,
        User.is_verified,
        or_(User.last_accessed_at.is_(None), User.last_accessed_at < func.now() - func.make_interval(0, 0, 0, 0, 1)),
    )
    .join(LoginSession, LoginSession.user_id == User.id)
    .where(
        User.id == bindparam("user_id"),
        User.deleted_at.is_(None),
        User.is_blocked.is_(False),
        LoginSession.id == bindparam("sign_in_id", type_=Uuid()),
        LoginSession.revoked_at.is_(None),
    )
)

_in_team = exists().where(roles.c.event_id == events.c.id, roles.c.user_id == VIEWER_ID)
_visible = and_(
    events.c.deleted_at.is_(None),
    or_(and_(events.c.state == "published", events.c.privacy == "public"), _in_team),
)
_event_columns = (events.c.id, events.c.owner_id, *(events.c[name] for name in EVENT_NAMES))
_faq_columns = (faqs.c.id, faqs.c.event_id, faqs.c.faq_type_id, *(faqs.c[name] for name in FAQ_NAMES))

ONE_EVENT = select(*_event_columns).where(events.c.id == bindparam("id"), _visible)
EVENTS = (
    select(*_event_columns)
    .where(_visible)
    .order_by(events.c.id)
    .limit(bindparam("size", type_=BigInteger()))
    .offset(bindparam("offset", type_=BigInteger()))
)
COUNT_EVENTS = select(func.count()).select_from(
    select(literal_column("1")).select_from(events).where(_visible).limit(MAX_EXACT_COUNT + 1).subquery()
)

_theirs, _mine = roles.alias(), roles.alias()
_in_one_team = exists().where(
    _theirs.c.user_id == users.c.id, _mine.c.event_id == _theirs.c.event_id, _mine.c.user_id == VIEWER_ID
)
OWNERS = select(users.c.id, *(users.c[name] for name in PROFILE_NAMES)).where(
    users.c.id == any_(IDS), users.c.deleted_at.is_(None), or_(users.c.is_profile_public, _in_one_team)
)
FAQS = (
    select(*_faq_columns)
    .where(faqs.c.event_id == any_(IDS), faqs.c.deleted_at.is_(None))
    .order_by(faqs.c.position, faqs.c.id)
)

CREATE_FAQ = insert(Faq).returning(*_faq_columns)
UPDATE_EVENT = (
    update(Event)
    .where(events.c.id == bindparam("key"))
    .values(name=bindparam("name"), location_name=bindparam("location_name"))
    .returning(*_event_columns, *(events.c[name] for name in PAYMENT_NAMES))
)
