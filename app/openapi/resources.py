"""Operations of JSON:API views, by view class and method."""

from collections.abc import Mapping
from http import HTTPStatus

from app.errors import MEDIA_TYPE
from app.events.resources import UpcomingEvents
from app.jsonapi.base_view import View
from app.jsonapi.relationship_views import RelatedList, RelatedOne, RelationshipMany, RelationshipOne, RelationView
from app.jsonapi.resources import ResourceDetail, ResourceList
from app.openapi import events, hooks, jobs, treatments
from app.openapi.json_schema import Json, component_name, component_ref, to_pascal_case
from app.openapi.parameters import list_parameter_refs
from app.openapi.request_schemas import linkage_request_schema
from app.openapi.responses import (
    ATOMIC_MEDIA_TYPE,
    CREATE_ERRORS,
    NOT_MODIFIED_DESCRIPTION,
    READ_ERRORS,
    WRITE_ERRORS,
    empty_response,
    error_responses,
    header_refs,
    media_type_content,
    success_response,
)
from app.openapi.tags import humanize_name

ETAG_HEADERS = ("ETag", "Vary")
POST_HEADERS = (*ETAG_HEADERS, "Idempotent-Replayed")
ERRORS_BY_METHOD = {"GET": READ_ERRORS, "POST": CREATE_ERRORS, "PATCH": WRITE_ERRORS, "DELETE": WRITE_ERRORS}
TRASH_DESCRIPTION = "The resource stays in the trash: admins see it with `get_trashed=true`, and can restore it."
BODY_TYPES = (MEDIA_TYPE, "application/json")

OPERATION_NAMES: Mapping[type, Mapping[str, tuple[str, str]]] = {
    UpcomingEvents: {"GET": ("List upcoming events", "listUpcomingEvents")},
    **events.OPERATION_NAMES,
    **jobs.OPERATION_NAMES,
    **hooks.OPERATION_NAMES,
    **treatments.OPERATION_NAMES,
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
"""Summary and operationId of each method of a view class; the first matching class counts."""


def build_operation(view: type[View], method: str) -> Json:
    """Return the operation of one method of a view of resources."""
    type_ = view._data_layer.type
    described: Json = {
        **_summarize_operation(view, method),
        **({"description": TRASH_DESCRIPTION} if method == "DELETE" and issubclass(view, ResourceDetail) else {}),
        "tags": [type_.plural],
        "parameters": [*_query_parameters(view, method), *_header_parameters(view, method)],
        "responses": {**_success_responses(view, method), **error_responses(ERRORS_BY_METHOD[method])},
    }
    body = _request_body(view, method)
    return (
        {**described, "requestBody": {"required": True, "content": media_type_content(body, *BODY_TYPES)}}
        if body
        else described
    )


def _summarize_operation(view: type[View], method: str) -> Json:
    type_ = view._data_layer.type
    relation = view.relation.key if issubclass(view, RelationView) else ""
    summary, operation_id = next(words for kind, words in OPERATION_NAMES.items() if issubclass(view, kind))[method]
    names = {
        "Type": to_pascal_case(type_.name),
        "Plural": to_pascal_case(type_.plural),
        "Relation": to_pascal_case(relation),
    }
    return {
        "operationId": operation_id.format(**names),
        "summary": summary.format(
            a_type=type_.noun, plural=humanize_name(type_.plural), relation=humanize_name(relation)
        ),
    }


def build_atomic_operation() -> Json:
    """Return the operation of the atomic operations endpoint."""
    results = success_response(
        HTTPStatus.OK, "The results, in order.", component_ref("Results"), *POST_HEADERS, media_type=ATOMIC_MEDIA_TYPE
    )
    return {
        "operationId": "performOperations",
        "summary": "Perform several writes, all or none of them",
        "tags": ["operations"],
        "parameters": [component_ref("IdempotencyKey", "parameters")],
        "requestBody": {
            "required": True,
            "content": media_type_content(component_ref("Operations"), ATOMIC_MEDIA_TYPE),
        },
        "responses": {**results, **error_responses(CREATE_ERRORS)},
    }


def _query_parameters(view: type[View], method: str) -> list[Json]:
    about = view.relation.target if issubclass(view, RelatedList | RelatedOne) else view._data_layer.type
    families = sorted(view.families[method])
    return [parameter for family in families for parameter in list_parameter_refs(family, about)]


def _header_parameters(view: type[View], method: str) -> list[Json]:
    if method == "POST":
        return [component_ref("IdempotencyKey", "parameters")]
    return [component_ref("IfNoneMatch" if method == "GET" else "IfMatch", "parameters")]


def _request_body(view: type[View], method: str) -> Json | None:
    if method not in view.body_methods | {"DELETE"}:
        return None
    if issubclass(view, RelationView):
        return linkage_request_schema(view.relation)
    part = {"POST": "create", "PATCH": "update"}.get(method)
    return component_ref(component_name(view._data_layer.type, part)) if part else None


def _success_responses(view: type[View], method: str) -> Json:
    type_ = view._data_layer.type
    if (
        own := jobs.find_success_responses(view, method)
        or hooks.find_success_responses(view)
        or events.find_success_responses(view)
    ):
        return own
    if issubclass(view, RelationView):
        return {
            **_ok_response(_relationship_component(view), *ETAG_HEADERS),
            **(_not_modified_response() if method == "GET" else {}),
        }
    if method == "GET":
        kind = "list" if issubclass(view, ResourceList) else "document"
        return {**_ok_response(component_name(type_, kind), *ETAG_HEADERS), **_not_modified_response()}
    made = component_name(type_, "document")
    if method == "POST":
        return success_response(
            HTTPStatus.CREATED, "The resource was created.", component_ref(made), *POST_HEADERS, "Location"
        )
    if method == "PATCH":
        hidden = "The resource was changed, and the user may not see it any more."
        return {**_ok_response(made, *ETAG_HEADERS), **empty_response(HTTPStatus.NO_CONTENT, hidden)}
    return _ok_response("MetaDocument", *ETAG_HEADERS)


def _relationship_component(view: type[RelationView]) -> str:
    kinds: dict[type, str] = {
        RelatedList: "list",
        RelatedOne: "or-null-document",
        RelationshipMany: "linkage-list",
        RelationshipOne: "linkage",
    }
    return component_name(view.relation.target, next(part for kind, part in kinds.items() if issubclass(view, kind)))


def _ok_response(schema: str, *headers: str) -> Json:
    return success_response(HTTPStatus.OK, "Success.", component_ref(schema), *headers)


def _not_modified_response() -> Json:
    not_modified = {"description": NOT_MODIFIED_DESCRIPTION, "headers": header_refs("ETag")}
    return {str(HTTPStatus.NOT_MODIFIED.value): not_modified}
