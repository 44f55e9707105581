"""Answers of every kind, as samples for what must hold of all of them."""

from collections.abc import Callable, Iterator
from typing import Any

from werkzeug.test import TestResponse

from app.events.permissions import list_types_of_events
from app.jsonapi.cursors import PROFILE
from app.jsonapi.resource_type import TYPES
from tests.world import JSONAPI, Caller, World

INCLUDES = {
    "events": "owner,organizers,coorganizers,faqs.faq-type,faq-types,images",
    "faqs": "event.owner,faq-type",
    "faq-types": "event,faqs",
    "event-images": "event",
    "jobs": "owner,event,retry-of,events,artifacts",
    "hooks": "owner,event",
    "uploads": "owner",
    "document-sets": "owner,events.faqs,faqs,uploads",
    "treatments": "document-set,job,requested-by,retry-of,regions,similarities",
    "users": "events.faqs",
}
for type_ in list_types_of_events():
    INCLUDES.setdefault(type_.plural, ",".join(each.key for each in type_.relations.values()))

KEPT: dict[str, list[TestResponse]] = {}


def rows(world: World) -> dict[str, int | str]:
    """A row of every type with a list that the owner sees, by the plural of its type."""
    background = world.background()
    return {
        "events": world.events["draft"],
        **{TYPES[name].plural: ids["draft"] for name, ids in world.belongings.items()},
        "jobs": background["job"],
        "hooks": background["hook"],
        "uploads": background["upload"],
        "document-sets": background["document-set"],
        "treatments": background["treatment"],
        "users": world.owner.id,
    }


def successes(world: World) -> list[TestResponse]:
    """Answers of every kind that succeed."""
    return _once(_ask, world)


def failures(world: World) -> list[TestResponse]:
    """Refusals of every status that a client can cause."""
    return _once(_provoke, world)


def answers(world: World) -> list[TestResponse]:
    """All of them."""
    return [*successes(world), *failures(world)]


def _once(gather: Callable[[World], Iterator[TestResponse]], world: World) -> list[TestResponse]:
    """Worlds are alike: what one answered is kept for all tests that only read it."""
    if gather.__name__ not in KEPT:
        KEPT[gather.__name__] = [*gather(world)]
    return KEPT[gather.__name__]


def _ask(world: World) -> Iterator[TestResponse]:
    """Lists, resources, related resources and relationships, plain and with everything included."""
    for kind, id_ in rows(world).items():
        caller = world.admin if kind == "users" else world.owner
        yield caller.get(f"/v1/{kind}")
        yield caller.get(f"/v1/{kind}?page[size]=2", Accept=f'{JSONAPI}; profile="{PROFILE}"')
        for path in (f"/v1/{kind}", f"/v1/{kind}/{id_}"):
            yield caller.get(f"{path}?include={INCLUDES[kind]}")
        for relationship in data_of(caller, f"/v1/{kind}/{id_}")["relationships"].values():
            for link in relationship["links"].values():
                yield caller.get(link)


def _provoke(world: World) -> Iterator[TestResponse]:
    yield world.owner.get("/v1/events?include=nobody")
    yield world.anonymous.get("/v1/users")
    yield world.owner.get("/v1/users")
    yield world.owner.get("/v1/events/0")
    yield world.owner.get("/v1/nothing")
    yield world.owner.send("PUT", "/v1/events")
    yield world.owner.get("/v1/events", Accept=f"{JSONAPI}; charset=utf-8")
    yield world.owner.create("/v1/events", "faq")
    yield world.owner.send("PATCH", f"/v1/events/{world.events['draft']}", b"{", If_Match='"other"')
    yield world.owner.send("POST", "/v1/events", b"{}", Content_Type="text/plain")
    yield world.owner.create("/v1/events", "event", {"name": "", "latitude": 100})


def documents(world: World) -> list[dict[str, Any]]:
    """What they say."""
    return [answer.get_json(force=True) for answer in answers(world)]


def resources(world: World, *, live: bool = False) -> list[dict[str, Any]]:
    """Every resource object in them, included ones too; `live` ones are those of this very world."""
    found = []
    for answer in _ask(world) if live else successes(world):
        if "/relationships/" not in answer.request.path:  # these answer identifiers
            document = answer.get_json(force=True)
            found += [*as_list(document["data"]), *document.get("included", [])]
    return found


def as_list(data: Any) -> list[Any]:
    """Primary data or linkage of any kind as a list."""
    if data is None:
        return []
    return data if isinstance(data, list) else [data]


def data_of(caller: Caller, path: str) -> Any:
    """The primary data of a GET that succeeds."""
    answer = caller.get(path)
    assert answer.status_code == 200, (path, answer.text)
    return answer.get_json(force=True)["data"]


def members(value: Any) -> Iterator[tuple[str, Any]]:
    """Every member of every object in a document, at any depth."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield name, member
            yield from members(member)
    elif isinstance(value, list):
        for item in value:
            yield from members(item)
