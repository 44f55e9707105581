"""The operations of JSON:API views: what a view class and a method come to."""

from collections.abc import Mapping
from http import HTTPStatus

from app.errors import MEDIA_TYPE
from app.jsonapi.relations import RelatedList, RelatedOne, RelationshipMany, RelationshipOne, RelationView
from app.jsonapi.resources import ResourceDetail, ResourceList
from app.jsonapi.view import View
from app.openapi import hooks, jobs, treatments
from app.openapi.bodies import linkage_taken
from app.openapi.json_schema import Json, component, reference
from app.openapi.parameters import parameters_of
from app.openapi.responses import (
    ALWAYS,
    CREATING,
    EXTENDED,
    WRITING,
    answered,
    content,
    empty,
    headers_of,
    refusals,
)

TAGGED = ("ETag", "Vary")
POSTED = (*TAGGED, "Idempotent-Replayed")
FAILURES = {"GET": ALWAYS, "POST": CREATING, "PATCH": WRITING, "DELETE": WRITING}
BODY_TYPES = (MEDIA_TYPE, "application/json")

SUMMARIES: Mapping[type, Mapping[str, str]] = {
    ResourceList: {"GET": "List {plural}", "POST": "Create one {type}"},
    ResourceDetail: {
        "GET": "Read one {type}",
        "PATCH": "Change one {type}",
        "DELETE": "Put one {type} into the trash",
    },
    RelatedList: {"GET": "List the {relation} of one {type}"},
    RelatedOne: {"GET": "Read the {relation} of one {type}"},
    RelationshipMany: {
        "GET": "List the ids of the {relation} of one {type}",
        "PATCH": "Replace the {relation} of one {type}",
        "POST": "Add {relation} to one {type}",
        "DELETE": "Take {relation} from one {type}",
    },
    **jobs.SUMMARIES,
    **hooks.SUMMARIES,
    **treatments.SUMMARIES,
    RelationshipOne: {
        "GET": "Read the id of the {relation} of one {type}",
        "PATCH": "Set the {relation} of one {type}",
    },
}


def described(view: type[View], method: str) -> Json:
    """One method of a view of resources: words, parameters, body, answers."""
    type_ = view._data_layer.type
    relation = view.relation if issubclass(view, RelationView) else None
    words = next(words for kind, words in SUMMARIES.items() if issubclass(view, kind))
    described: Json = {
        "summary": words[method].format(
            type=type_.name, plural=type_.plural, relation=relation.key if relation else ""
        ),
        "tags": [type_.plural],
        "parameters": [*_queries(view, method), *_headers(view, method)],
        "responses": {**_success(view, method), **refusals(FAILURES[method])},
    }
    body = _body(view, method)
    return (
        {**described, "requestBody": {"required": True, "content": content(body, *BODY_TYPES)}} if body else described
    )


def described_operations() -> Json:
    """The endpoint of atomic operations."""
    results = answered(HTTPStatus.OK, "What became of each.", reference("Results"), *POSTED, media_type=EXTENDED)
    return {
        "summary": "Several writes, all or nothing",
        "tags": ["operations"],
        "parameters": [reference("IdempotencyKey", "parameters")],
        "requestBody": {"required": True, "content": content(reference("Operations"), EXTENDED)},
        "responses": {**results, **refusals(CREATING)},
    }


def _queries(view: type[View], method: str) -> list[Json]:
    about = view.relation.target if issubclass(view, RelatedList | RelatedOne) else view._data_layer.type
    families = sorted(view.families[method])
    return [parameter for family in families for parameter in parameters_of(family, about)]


def _headers(view: type[View], method: str) -> list[Json]:
    if method == "POST":
        return [reference("IdempotencyKey", "parameters")]
    return [reference("IfNoneMatch" if method == "GET" else "IfMatch", "parameters")]


def _body(view: type[View], method: str) -> Json | None:
    if method not in view.body_methods | {"DELETE"}:
        return None
    if issubclass(view, RelationView):
        return linkage_taken(view.relation)
    name = component(view._data_layer.type)
    return {"POST": reference(f"{name}Create"), "PATCH": reference(f"{name}Update")}.get(method)


def _success(view: type[View], method: str) -> Json:
    name = component(view._data_layer.type)
    if own := jobs.success(view, method) or hooks.success(view):
        return own
    if issubclass(view, RelationView):
        return {**_ok(_related(view), *TAGGED), **(_unchanged() if method == "GET" else {})}
    if method == "GET":
        return {**_ok(f"{name}{'List' if issubclass(view, ResourceList) else 'Document'}", *TAGGED), **_unchanged()}
    if method == "POST":
        made = reference(f"{name}Document")
        return answered(HTTPStatus.CREATED, "It was created.", made, *POSTED, "Location")
    if method == "PATCH":
        return {**_ok(f"{name}Document", *TAGGED), **empty(HTTPStatus.NO_CONTENT, "The caller does not see it now.")}
    return _ok("MetaDocument", *TAGGED)


def _related(view: type[RelationView]) -> str:
    name = component(view.relation.target)
    kinds: dict[type, str] = {
        RelatedList: f"{name}List",
        RelatedOne: f"{name}OrNothing",
        RelationshipMany: f"{name}LinkageList",
        RelationshipOne: f"{name}Linkage",
    }
    return next(schema for kind, schema in kinds.items() if issubclass(view, kind))


def _ok(schema: str, *headers: str) -> Json:
    return answered(HTTPStatus.OK, "The answer.", reference(schema), *headers)


def _unchanged() -> Json:
    not_modified = {"description": "It is as it was.", "headers": headers_of("ETag")}
    return {str(HTTPStatus.NOT_MODIFIED.value): not_modified}
