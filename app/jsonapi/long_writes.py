"""Long writes: requests with many operations or a long document.

They take processor time and hold the locks of many rows. Few of them run at once in a web process, so that writer slots
are left for all other requests, and their HTML is cleaned before a database connection is held.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic

from flask import current_app, g, request

from app.errors import Unavailable
from app.jsonapi.current_user import CurrentUser
from app.jsonapi.data_layer import SentResource
from app.jsonapi.fields import Html
from app.jsonapi.resource_type import ResourceType
from app.slots import SlotPool, caller_holders, take_slot

MAX_SHORT_BODY_BYTES = 4096
"""Bytes of the body of a write that is not long."""

MAX_SHORT_OPERATIONS = 10
"""Operations of a request that is not long."""

SLOT_TIMEOUT_SECONDS = 5.0
"""Seconds a long write waits for its slot."""

MAX_TRANSACTION_SECONDS = 5.0
"""Seconds after which a transaction of several operations begins no further one."""

RETRY_AFTER_SECONDS = 2


def is_long_write(operations: int = 1) -> bool:
    """Return whether this request, with so many operations, is a long write."""
    return operations > MAX_SHORT_OPERATIONS or len(request.get_data()) > MAX_SHORT_BODY_BYTES


@contextmanager
def long_write(viewer: CurrentUser, resources: Iterable[tuple[ResourceType, SentResource]]) -> Iterator[None]:
    """Wait for a slot, clean the HTML of the resources, then run the transaction.

    Raise 429 where the caller has its share, 503 where the process has no slot left in time.
    """
    slots: SlotPool = current_app.extensions["long_writes"]
    slot = take_slot(
        slots,
        caller_holders(request.remote_addr, viewer.id),
        full="Too many long writes are in progress at this moment. Try again.",
        share=(
            f"A long write of {{holder}} is in progress, and others wait: an address and a user have one at a time. "
            f"Send them one after the other, or requests of at most {MAX_SHORT_BODY_BYTES} bytes and "
            f"{MAX_SHORT_OPERATIONS} operations."
        ),
        retry_after=RETRY_AFTER_SECONDS,
        timeout_seconds=SLOT_TIMEOUT_SECONDS,
    )
    try:
        for resource_type, sent in resources:
            _clean_attributes(resource_type, sent)
        g.pop("viewer", None)  # it took its time: the transaction looks again whether the sign-in has ended
        yield
    finally:
        slots.release(slot)


def check_deadline(began_at: float) -> None:
    """Raise 503 where a transaction that began then (monotonic) takes too long; what it wrote is rolled back."""
    if monotonic() - began_at > MAX_TRANSACTION_SECONDS:
        raise Unavailable(
            f"The operations took more than {MAX_TRANSACTION_SECONDS:.0f} s, and none was performed: "
            "try again, or send fewer at once.",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )


def _clean_attributes(resource_type: ResourceType, sent: SentResource) -> None:
    """Replace the HTML in a resource object by the form in which it is stored."""
    attributes = sent.data.get("attributes")
    if not isinstance(attributes, dict):
        return
    for spelled, value in attributes.items():
        attribute = resource_type.find_attribute(spelled)
        if attribute is not None and isinstance(attribute.field, Html):
            attributes[spelled] = attribute.field.clean_ahead(value)
