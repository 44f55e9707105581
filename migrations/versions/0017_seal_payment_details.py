"""Payment details of events are sealed; links to streams that are no web addresses are removed.

On a live system: rows are changed in batches, each in a transaction of its own. Running it again goes on where it
stopped. Servers of the version before show what is sealed as it is stored, until they are replaced.
"""

from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError

from app.jsonapi.fields import is_web_url
from app.encryption import DecryptionError, decrypt_text, is_encrypted_text, build_associated_data, encrypt_text

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

BATCH = 500
DETAILS = ("paypal_email", "cheque_details", "bank_details", "onsite_details", "invoice_details")


def upgrade() -> None:
    _change_all(_sealed)


def downgrade() -> None:
    """Open the payment details; stop at the first that does not open. Removed links stay removed: they are not kept."""
    _change_all(_opened)


def _sealed(row: Any) -> dict[str, str | None]:
    found = {name: getattr(row, name) for name in DETAILS}
    new: dict[str, str | None] = {
        name: encrypt_text(text, build_associated_data("events", name, row.id))
        for name, text in found.items()
        if text is not None and not is_encrypted_text(text)
    }
    if row.public_stream_link is not None and not is_web_url(row.public_stream_link):
        new["public_stream_link"] = None
    return new


def _opened(row: Any) -> dict[str, str | None]:
    found = {name: getattr(row, name) for name in DETAILS}
    return {
        name: _open(text, name, row.id) for name, text in found.items() if text is not None and is_encrypted_text(text)
    }


def _open(text: str, name: str, event_id: int) -> str:
    try:
        return decrypt_text(text, build_associated_data("events", name, event_id))
    except DecryptionError:
        raise CommandError(
            f"{name} of event {event_id} cannot be opened: it was sealed with another SECRET_KEY. Set that one and "
            "run the downgrade again; this event was not changed."
        ) from None


def _change_all(values: Callable[[Any], dict[str, str | None]]) -> None:
    if context.is_offline_mode():
        context.get_context().impl.static_output("-- Rows are changed by `manage.py db upgrade` alone.")
        return
    events = sa.table("events", sa.column("id"), *map(sa.column, DETAILS), sa.column("public_stream_link"))
    with op.get_context().autocommit_block():
        for batch in _batches(events):
            for row in batch:
                if new := values(row):
                    op.get_bind().execute(sa.update(events).where(events.c.id == row.id, _same(events, row)).values(new))


def _same(events: Any, row: Any) -> Any:
    """The row is as it was read: what a server has written meanwhile stays."""
    names = (*DETAILS, "public_stream_link")
    return sa.and_(*(events.c[name].is_not_distinct_from(getattr(row, name)) for name in names))


def _batches(events: Any) -> Iterator[list[Any]]:
    last = 0
    filled = sa.or_(*(events.c[name].is_not(None) for name in (*DETAILS, "public_stream_link")))
    while True:
        statement = sa.select(events).where(events.c.id > last, filled).order_by(events.c.id).limit(BATCH)
        rows = list(op.get_bind().execute(statement))
        if not rows:
            return
        yield rows
        last = rows[-1].id
