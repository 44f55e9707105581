"""Sample responses of every kind, for tests of rules that hold for all of them."""

from collections.abc import Callable, Iterator
from typing import Any

from werkzeug.test import TestResponse

from app.events.permissions import list_types_of_events
from app.jsonapi.cursors import PROFILE
from app.jsonapi.resource_type import TYPES
from tests.dataset import JSONAPI, ApiClient, Dataset

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

RESPONSE_CACHE: dict[str, list[TestResponse]] = {}


def get_row_ids(dataset: Dataset) -> dict[str, int | str]:
    """Return the id of a row that the owner sees, by the plural of each type with a list."""
    background = dataset.get_background_ids()
    return {
        "events": dataset.events["draft"],
        **{TYPES[name].plural: ids["draft"] for name, ids in dataset.belongings.items()},
        "jobs": background["job"],
        "hooks": background["hook"],
        "uploads": background["upload"],
        "document-sets": background["document-set"],
        "treatments": background["treatment"],
        "users": dataset.owner.id,
    }


def get_successes(dataset: Dataset) -> list[TestResponse]:
    """Return successful responses of every kind."""
    return _cache_once(_request_reads, dataset)


def get_failures(dataset: Dataset) -> list[TestResponse]:
    """Return error responses of every status that a client can cause."""
    return _cache_once(_request_failures, dataset)


def get_responses(dataset: Dataset) -> list[TestResponse]:
    """Return all sample responses."""
    return [*get_successes(dataset), *get_failures(dataset)]


def _cache_once(gather: Callable[[Dataset], Iterator[TestResponse]], dataset: Dataset) -> list[TestResponse]:
    """Return the sample responses, requested once: all datasets are alike, and the tests only read."""
    if gather.__name__ not in RESPONSE_CACHE:
        RESPONSE_CACHE[gather.__name__] = [*gather(dataset)]
    return RESPONSE_CACHE[gather.__name__]


def _request_reads(dataset: Dataset) -> Iterator[TestResponse]:
    """Yield responses of lists, resources and relationships, with and without included resources."""
    for kind, id_ in get_row_ids(dataset).items():
        caller = dataset.admin if kind == "users" else dataset.owner
        yield caller.get(f"/v1/{kind}")
        yield caller.get(f"/v1/{kind}?page[size]=2", Accept=f'{JSONAPI}; profile="{PROFILE}"')
        for path in (f"/v1/{kind}", f"/v1/{kind}/{id_}"):
            yield caller.get(f"{path}?include={INCLUDES[kind]}")
        for relationship in get_data_at(caller, f"/v1/{kind}/{id_}")["relationships"].values():
            for link in relationship["links"].values():
                yield caller.get(link)


def _request_failures(dataset: Dataset) -> Iterator[TestResponse]:
    yield dataset.owner.get("/v1/events?include=unknown")
    yield dataset.anonymous.get("/v1/users")
    yield dataset.owner.get("/v1/users")
    yield dataset.owner.get("/v1/events/0")
    yield dataset.owner.get("/v1/nothing")
    yield dataset.owner.send("PUT", "/v1/events")
    yield dataset.owner.get("/v1/events", Accept=f"{JSONAPI}; charset=utf-8")
    yield dataset.owner.create("/v1/events", "faq")
    yield dataset.owner.send("PATCH", f"/v1/events/{dataset.events['draft']}", b"{", If_Match='"other"')
    yield dataset.owner.send("POST", "/v1/events", b"{}", Content_Type="text/plain")
    yield dataset.owner.create("/v1/events", "event", {"name": "", "latitude": 100})


def get_documents(dataset: Dataset) -> list[dict[str, Any]]:
    """Return the documents of all sample responses."""
    return [answer.get_json(force=True) for answer in get_responses(dataset)]


def list_resources(dataset: Dataset, *, live: bool = False) -> list[dict[str, Any]]:
    """Return all resource objects of successful responses; `live` sends the requests to this dataset again."""
    found = []
    for answer in _request_reads(dataset) if live else get_successes(dataset):
        if "/relationships/" not in answer.request.path:  # these answer identifiers
            document = answer.get_json(force=True)
            found += [*to_list(document["data"]), *document.get("included", [])]
    return found


def to_list(data: Any) -> list[Any]:
    """Return primary data or linkage of any kind as a list."""
    if data is None:
        return []
    return data if isinstance(data, list) else [data]


def get_data_at(caller: ApiClient, path: str) -> Any:
    """Return the primary data of a GET that succeeds."""
    answer = caller.get(path)
    assert answer.status_code == 200, (path, answer.text)
    return answer.get_json(force=True)["data"]


def iterate_members(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every member of every object in a document, at any depth."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield name, member
            yield from iterate_members(member)
    elif isinstance(value, list):
        for item in value:
            yield from iterate_members(item)
