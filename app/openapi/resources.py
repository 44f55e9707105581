"""The operations of JSON:API views: what a view class and a method come to."""

from collections.abc import Mapping
from http import HTTPStatus

from app.errors import MEDIA_TYPE
from app.events.resources import UpcomingEvents
from app.jsonapi.relations import RelatedList, RelatedOne, RelationshipMany, RelationshipOne, RelationView
from app.jsonapi.resources import ResourceDetail, ResourceList
from app.jsonapi.view import View
from app.openapi import events, hooks, jobs, treatments
from app.openapi.bodies import linkage_taken
from app.openapi.json_schema import Json, capitalize, component, reference
from app.openapi.parameters import parameters_of
from app.openapi.responses import (
    ALWAYS,
    CREATING,
    EXTENDED,
    UNCHANGED,
    WRITING,
    answered,
    content,
    empty,
    headers_of,
    refusals,
)
from app.openapi.tags import to_words

TAGGED = ("ETag", "Vary")
POSTED = (*TAGGED, "Idempotent-Replayed")
FAILURES = {"GET": ALWAYS, "POST": CREATING, "PATCH": WRITING, "DELETE": WRITING}
TRASH = "The resource stays in the trash: admins see it with `get_trashed=true`, and can restore it."
BODY_TYPES = (MEDIA_TYPE, "application/json")

WORDS: Mapping[type, Mapping[str, tuple[str, str]]] = {
    UpcomingEvents: {"GET": ("List upcoming events", "listUpcomingEvents")},
    **events.WORDS,
    **jobs.WORDS,
    **hooks.WORDS,
    **treatments.WORDS,
    ResourceList: {"GET": ("List {plural}", "list{Plural}"), "POST": ("Create {a_type}", "create{Type}")},
    ResourceDetail: {
        "GET": ("Get {a_type}", "get{Type}"),
        "PATCH": ("Update {a_type}", "update{Type}"),
        "DELETE": ("Delete {a_type}", "delete{Type}"),
    },
    RelatedList: {"GET": ("List the {relation} of {a_type}", "list{Relation}Of{Type}")},
    RelatedOne: {"GET": ("Get the {relation} of {a_type}", "get{Relation}Of{Type}")},
    RelationshipMany: {
        "GET": ("List the ids of the {relation} of {a_type}", "listIdsOf{Relation}Of{Type}"),
        "PATCH": ("Replace the {relation} of {a_type}", "replace{Relation}Of{Type}"),
        "POST": ("Add {relation} to {a_type}", "add{Relation}To{Type}"),
        "DELETE": ("Remove {relation} from {a_type}", "remove{Relation}From{Type}"),
    },
    RelationshipOne: {
        "GET": ("Get the id of the {relation} of {a_type}", "get{Relation}IdOf{Type}"),
        "PATCH": ("Set the {relation} of {a_type}", "set{Relation}Of{Type}"),
    },
}
"""The summary and the operationId of each method of a kind of view; the first kind that fits counts."""


def described(view: type[View], method: str) -> Json:
    """Return the operation of one method of a view of resources."""
    type_ = view._data_layer.type
    described: Json = {
        **_words(view, method),
        **({"description": TRASH} if method == "DELETE" and issubclass(view, ResourceDetail) else {}),
        "tags": [type_.plural],
        "parameters": [*_queries(view, method), *_headers(view, method)],
        "responses": {**_success(view, method), **refusals(FAILURES[method])},
    }
    body = _body(view, method)
    return (
        {**described, "requestBody": {"required": True, "content": content(body, *BODY_TYPES)}} if body else described
    )


def _words(view: type[View], method: str) -> Json:
    type_ = view._data_layer.type
    relation = view.relation.key if issubclass(view, RelationView) else ""
    summary, operation_id = next(words for kind, words in WORDS.items() if issubclass(view, kind))[method]
    names = {"Type": capitalize(type_.name), "Plural": capitalize(type_.plural), "Relation": capitalize(relation)}
    return {
        "operationId": operation_id.format(**names),
        "summary": summary.format(a_type=type_.noun, plural=to_words(type_.plural), relation=to_words(relation)),
    }


def described_operations() -> Json:
    """Return the endpoint of atomic operations."""
    results = answered(HTTPStatus.OK, "The results, in order.", reference("Results"), *POSTED, media_type=EXTENDED)
    return {
        "operationId": "performOperations",
        "summary": "Perform several writes, all or none of them",
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
    part = {"POST": "create", "PATCH": "update"}.get(method)
    return reference(component(view._data_layer.type, part)) if part else None


def _success(view: type[View], method: str) -> Json:
    type_ = view._data_layer.type
    if own := jobs.success(view, method) or hooks.success(view) or events.success(view):
        return own
    if issubclass(view, RelationView):
        return {**_ok(_related(view), *TAGGED), **(_unchanged() if method == "GET" else {})}
    if method == "GET":
        kind = "list" if issubclass(view, ResourceList) else "document"
        return {**_ok(component(type_, kind), *TAGGED), **_unchanged()}
    made = component(type_, "document")
    if method == "POST":
        return answered(HTTPStatus.CREATED, "The resource was created.", reference(made), *POSTED, "Location")
    if method == "PATCH":
        hidden = "The resource was changed, and the caller may not see it any more."
        return {**_ok(made, *TAGGED), **empty(HTTPStatus.NO_CONTENT, hidden)}
    return _ok("MetaDocument", *TAGGED)


def _related(view: type[RelationView]) -> str:
    kinds: dict[type, str] = {
        RelatedList: "list",
        RelatedOne: "or-null-document",
        RelationshipMany: "linkage-list",
        RelationshipOne: "linkage",
    }
    return component(view.relation.target, next(part for kind, part in kinds.items() if issubclass(view, kind)))


def _ok(schema: str, *headers: str) -> Json:
    return answered(HTTPStatus.OK, "Success.", reference(schema), *headers)


def _unchanged() -> Json:
    not_modified = {"description": UNCHANGED, "headers": headers_of("ETag")}
    return {str(HTTPStatus.NOT_MODIFIED.value): not_modified}
