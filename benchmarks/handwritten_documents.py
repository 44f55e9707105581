"""Hand-written documents of the system `limit`."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from benchmarks.handwritten_statements import EVENT_NAMES, FAQ_NAMES, MAX_EXACT_COUNT, PAYMENT_NAMES, PROFILE_NAMES

JSONAPI = {"version": "1.1"}

EVENT_KEYS = tuple(name.replace("_", "-") for name in EVENT_NAMES)
PAYMENT_KEYS = tuple(name.replace("_", "-") for name in PAYMENT_NAMES)
OWN_EVENT_KEYS = (*EVENT_KEYS, *PAYMENT_KEYS)
FAQ_KEYS = tuple(name.replace("_", "-") for name in FAQ_NAMES)
PROFILE_KEYS = tuple(name.replace("_", "-") for name in PROFILE_NAMES)


def build_event_item(row: Any, keys: tuple[str, ...] = EVENT_KEYS) -> dict[str, Any]:
    """Return an event; `row` has id, owner_id, EVENT_NAMES and, with OWN_EVENT_KEYS, PAYMENT_NAMES."""
    base = f"/v1/events/{row.identifier if row.privacy == 'private' else row[0]}"
    return {
        "type": "event",
        "id": str(row[0]),
        "attributes": dict(zip(keys, row[2:], strict=True)),
        "relationships": {
            "owner": {
                "links": {"self": f"{base}/relationships/owner", "related": f"{base}/owner"},
                "data": {"type": "user", "id": str(row[1])},
            },
            "pending-owner": {
                "links": {"self": f"{base}/relationships/pending-owner", "related": f"{base}/pending-owner"},
                "data": None,
            },
            "organizers": {
                "links": {"self": f"{base}/relationships/organizers", "related": f"{base}/organizers"},
            },
            "coorganizers": {
                "links": {"self": f"{base}/relationships/coorganizers", "related": f"{base}/coorganizers"},
            },
            "faqs": {"links": {"self": f"{base}/relationships/faqs", "related": f"{base}/faqs"}},
            "faq-types": {"links": {"self": f"{base}/relationships/faq-types", "related": f"{base}/faq-types"}},
            "images": {"links": {"self": f"{base}/relationships/images", "related": f"{base}/images"}},
        },
        "links": {"self": base},
    }


def build_faq_item(row: Any) -> dict[str, Any]:
    """Return a FAQ; `row` has id, event_id, faq_type_id and FAQ_NAMES."""
    base = f"/v1/faqs/{row[0]}"
    return {
        "type": "faq",
        "id": str(row[0]),
        "attributes": dict(zip(FAQ_KEYS, row[3:], strict=True)),
        "relationships": {
            "event": {
                "links": {"self": f"{base}/relationships/event", "related": f"{base}/event"},
                "data": {"type": "event", "id": str(row[1])},
            },
            "faq-type": {
                "links": {"self": f"{base}/relationships/faq-type", "related": f"{base}/faq-type"},
                "data": None if row[2] is None else {"type": "faq-type", "id": str(row[2])},
            },
        },
        "links": {"self": base},
    }


def build_owner_item(row: Any) -> dict[str, Any]:
    """Return the public profile of a user; `row` has id and PROFILE_NAMES."""
    return {"type": "user", "id": str(row[0]), "attributes": dict(zip(PROFILE_KEYS, row[1:], strict=True))}


def build_pagination(arguments: Mapping[str, str], count: int, number: int, size: int) -> dict[str, Any]:
    """Return links and meta of a page of events."""
    base = f"/v1/events?{urlencode({name: text for name, text in arguments.items() if name != 'page[number]'})}"
    is_exact = count <= MAX_EXACT_COUNT
    last = -(-count // size) if is_exact else None
    has_next = last is None or number < last

    def link(page: int) -> str:
        return f"{base}&page%5Bnumber%5D={page}"

    return {
        "links": {
            "self": link(number) if "page[number]" in arguments else base,
            "first": link(1),
            "last": None if last is None else link(last),
            "prev": link(number - 1) if number > 1 else None,
            "next": link(number + 1) if has_next else None,
        },
        "meta": {"count": count} if is_exact else {"count": MAX_EXACT_COUNT, "count-is-exact": False},
    }
