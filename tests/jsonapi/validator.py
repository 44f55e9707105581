"""Validator of JSON:API 1.1 documents, by the text of the specification; it checks all responses in the tests."""

import re
from collections.abc import Iterator
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

TOP_LEVEL = {"data", "errors", "meta", "jsonapi", "links", "included"}
RESOURCE = {"id", "type", "lid", "attributes", "relationships", "links", "meta"}
IDENTIFIER = {"id", "type", "lid", "meta"}
ERROR = {"id", "links", "status", "code", "title", "detail", "source", "meta"}
SOURCE = {"pointer", "parameter", "header"}
LINK_OBJECT = {"href", "rel", "describedby", "title", "type", "hreflang", "meta"}
NAME = re.compile(r"[a-zA-Z0-9\u0080-\U0010ffff](?:[a-zA-Z0-9_ \u0080-\U0010ffff-]*[a-zA-Z0-9\u0080-\U0010ffff])?")


class CheckedClient(FlaskClient):
    """Test client that fails if a response with the JSON:API media type is not a valid document."""

    def open(self, *arguments: Any, **options: Any) -> TestResponse:
        """Send a request and check its response."""
        response: TestResponse = super().open(*arguments, **options)
        if response.mimetype == "application/vnd.api+json" and response.data:
            query = response.request.query_string.decode("ascii", "replace")
            problems = [*find_faults(response.get_json(force=True), response.status_code, "fields" in query)]
            problems += check_headers(response)
            assert not problems, (response.request.path, problems)
        return response


def check_headers(response: TestResponse) -> Iterator[str]:
    """Yield the faults of the headers ("Server Responsibilities", "201 Created")."""
    if set(response.mimetype_params) - {"ext", "profile"}:
        yield "the media type has a parameter that is neither ext nor profile"
    if response.status_code == 201 and not response.headers["Location"].endswith(
        response.get_json(force=True)["data"]["links"]["self"]
    ):
        yield "Location is not the self link"


def find_faults(document: Any, status: int, sparse: bool) -> Iterator[str]:
    """Yield the faults of a document; with `sparse`, included resources may be linked by omitted relationships."""
    if not isinstance(document, dict):
        yield "the document is no object"
        return
    members = {name for name in document if ":" not in name}
    if members - TOP_LEVEL:
        yield f"unknown top-level members {members - TOP_LEVEL}"
    if not members & {"data", "errors", "meta"} and members == set(document):
        yield "none of data, errors, meta"
    if {"data", "errors"} <= members:
        yield "both data and errors"
    if "included" in members and "data" not in members:
        yield "included without data"
    yield from check_links(document.get("links"), "/links")
    if document.get("jsonapi", {}).get("version") != "1.1":
        yield "the jsonapi object does not say 1.1"
    if "errors" in document:
        yield from check_errors(document["errors"], status)
    else:
        yield from check_data(document, sparse)


def check_data(document: dict[str, Any], sparse: bool) -> Iterator[str]:
    """Yield the faults of primary data, included resources, and full linkage."""
    data, included = document.get("data"), document.get("included", [])
    if not isinstance(data, dict | list | None):
        yield "data is no object, list or null"
        return
    primary = [] if data is None else data if isinstance(data, list) else [data]
    for index, item in enumerate([*primary, *included]):
        yield from check_resource(item, f"#{index}")
    keys = [(item["type"], item["id"]) for item in (*primary, *included)]
    if len(keys) != len(set(keys)):
        yield "a resource is there twice"
    if not sparse and (unlinked := {*keys[len(primary) :]} - find_reachable(primary, included)):
        yield f"included without full linkage: {unlinked}"


def find_reachable(primary: list[dict[str, Any]], included: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Return the included resources that are linked from the primary data, directly or not ("Compound Documents")."""
    reached: set[tuple[str, str]] = set()
    known = {(item["type"], item["id"]): item for item in included}
    found = [*primary]
    while found:
        for key in list_linkage(found.pop()):
            if key in known and key not in reached:
                reached.add(key)
                found.append(known[key])
    return reached


def list_linkage(item: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Return the identifiers in the relationships of a resource."""
    for relationship in item.get("relationships", {}).values():
        data = relationship.get("data")
        for identifier in data if isinstance(data, list) else [data] if data else []:
            yield identifier["type"], identifier["id"]


def check_resource(item: Any, at: str) -> Iterator[str]:
    """Yield the faults of a resource object, or of an identifier in its place."""
    if not isinstance(item, dict) or not all(isinstance(item.get(name), str) and item[name] for name in ("type", "id")):
        yield f"{at}: type and id are not texts"
        return
    if set(item) - RESOURCE:
        yield f"{at}: unknown members {set(item) - RESOURCE}"
    attributes, relationships = item.get("attributes", {}), item.get("relationships", {})
    if set(attributes) & set(relationships) or {"id", "type"} & (set(attributes) | set(relationships)):
        yield f"{at}: fields share a name"
    for name in (*attributes, *relationships, item["type"]):
        if not NAME.fullmatch(name):
            yield f"{at}: {name!r} is no member name"
    for name, relationship in relationships.items():
        yield from check_relationship(relationship, f"{at}/{name}")
    yield from check_links(item.get("links"), at)


def check_relationship(relationship: Any, at: str) -> Iterator[str]:
    """Yield the faults of a relationship object."""
    if not isinstance(relationship, dict) or not relationship.keys() & {"links", "data", "meta"}:
        yield f"{at}: none of links, data, meta"
        return
    if set(relationship) - {"links", "data", "meta"}:
        yield f"{at}: unknown members"
    yield from check_links(relationship.get("links"), at)
    if "links" in relationship and not relationship["links"].keys() & {"self", "related"}:
        yield f"{at}: links without self and related"
    data = relationship.get("data")
    for identifier in data if isinstance(data, list) else [data] if data is not None else []:
        if set(identifier) - IDENTIFIER or not all(isinstance(identifier.get(name), str) for name in ("type", "id")):
            yield f"{at}: {identifier} is no resource identifier"


def check_links(links: Any, at: str) -> Iterator[str]:
    """Yield the faults of a links object."""
    if links is None:
        return
    for name, link in links.items():
        if isinstance(link, dict):
            if set(link) - LINK_OBJECT or not isinstance(link.get("href"), str):
                yield f"{at}: link {name} is no link object"
        elif not isinstance(link, str | None):
            yield f"{at}: link {name} is not a string"


def check_errors(errors: Any, status: int) -> Iterator[str]:
    """Yield the faults of a list of error objects."""
    if not isinstance(errors, list) or not errors:
        yield "errors is no list of errors"
        return
    for index, error in enumerate(errors):
        at = f"error {index}"
        if not isinstance(error, dict) or not error or set(error) - ERROR:
            yield f"{at}: no error object"
            continue
        for name in ("id", "status", "code", "title", "detail"):
            if not isinstance(error.get(name), str) or not error[name]:
                yield f"{at}: {name} is not a string"
        if len(errors) == 1 and error["status"] != str(status):
            yield f"{at}: status {error['status']} in an answer with {status}"
        source = error.get("source", {})
        # RFC 6901: an empty pointer is the whole document, and a name may hold a newline.
        if set(source) - SOURCE or not re.fullmatch("(?s:/.*)?", source.get("pointer", "")):
            yield f"{at}: no error source"
