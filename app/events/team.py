"""Team of an event: one owner, organizers and coorganizers."""

from collections.abc import Iterable

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from app import outbox
from app.change_signals import emit_change
from app.database import PreparedStatement, get_connection
from app.errors import Conflict
from app.events.models import Event, EventRole
from app.jsonapi.current_user import CurrentUser
from app.jsonapi.data_layer import ToManyChange

MAIL_OWNERSHIP_OFFER = "events.mail_ownership_offer"

OWNER, ORGANIZER, COORGANIZER = "owner", "organizer", "coorganizer"
TEAM = (OWNER, ORGANIZER, COORGANIZER)


_roles = EventRole.__table__
_select_role = PreparedStatement(
    select(_roles.c.role).where(_roles.c.event_id == bindparam("event_id"), _roles.c.user_id == bindparam("user_id"))
)


def has_role(viewer: CurrentUser, event_id: int, *roles: str) -> bool:
    """Return whether the current user is an admin or has one of these roles in the event."""
    return viewer.is_admin or is_member(viewer, event_id, *roles)


def is_member(viewer: CurrentUser, event_id: int, *roles: str) -> bool:
    """Return whether the current user has one of these roles in the team of the event."""
    return not viewer.is_anonymous and any(
        role in roles for (role,) in _select_role.fetch_rows({"event_id": event_id, "user_id": viewer.id})
    )


def make_owner(event: Event, user_id: int) -> None:
    """Make a user the owner of the event; the former owner becomes an organizer."""
    former_owner = (EventRole.event_id == event.id, EventRole.role == OWNER, EventRole.user_id != user_id)
    get_connection().execute(update(EventRole).where(*former_owner).values(role=ORGANIZER))
    _set_role(event, [user_id], OWNER)


def offer_ownership(event: Event) -> None:
    """Enqueue the mail to the pending owner, if there is one."""
    if event.pending_owner_id is not None:
        payload = {"id": event.id, "user_id": event.pending_owner_id}
        outbox.enqueue_entry(MAIL_OWNERSHIP_OFFER, "event.ownership-offered", payload)


def change_members(event: Event, change: ToManyChange) -> None:
    """Add, remove or replace organizers or coorganizers; the new role of a user replaces an earlier one."""
    role = change.relation.name.removesuffix("s")
    if change.mode != "remove" and event.owner_id in change.ids:
        raise Conflict("The owner is in the team already.", pointer=change.pointer)
    removal = delete(EventRole).where(EventRole.event_id == event.id, EventRole.role == role)
    if change.mode == "remove":
        get_connection().execute(removal.where(EventRole.user_id.in_(change.ids)))
    elif change.mode == "replace":
        get_connection().execute(removal.where(EventRole.user_id.not_in(change.ids)))
    if change.mode != "remove" and change.ids:
        _set_role(event, change.ids, role)
    emit_change(Event.__signal__, verb="updated", id=event.id, event_id=event.id, changed={change.relation.name})


def _set_role(event: Event, user_ids: Iterable[int], role: str) -> None:
    rows = [{"event_id": event.id, "user_id": user_id, "role": role} for user_id in user_ids]
    statement = insert(EventRole).values(rows)
    get_connection().execute(
        statement.on_conflict_do_update(index_elements=["event_id", "user_id"], set_={"role": statement.excluded.role})
    )
