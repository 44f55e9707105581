"""POST /v1/operations: several writes, all or nothing (https://jsonapi.org/ext/atomic)."""

import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from time import monotonic
from typing import Any, ClassVar

import orjson
from flask import Response, g, request
from flask.views import MethodView

from app.database import open_transaction
from app.errors import ApiError, ApiErrorGroup, BadRequest, Conflict, NotFound, Unprocessable
from app.jsonapi.base_view import json_response
from app.jsonapi.current_user import CurrentUser, require_current_user
from app.jsonapi.data_layer import DATA_LAYERS, DataLayer, Mode, SentResource
from app.jsonapi.document_parser import parse_create, parse_linkage_document, parse_update
from app.jsonapi.idempotency import POST_ONLY, find_stored_response, run_idempotent
from app.jsonapi.json_parsing import parse_request_body
from app.jsonapi.long_writes import check_deadline, is_long_write, long_write
from app.jsonapi.negotiation import check_accept, check_content_type, get_body_extensions
from app.jsonapi.permissions import AccessContext, VisibilityScope, any_user, describe_predicate
from app.jsonapi.query_params import NO_FAMILIES, Query, parse_parameters
from app.jsonapi.reader import JSONAPI, ResourceReader
from app.jsonapi.resource_type import Relation, ResourceType, find_type
from app.jsonapi.select_plan import Item
from app.jsonapi.size_limits import MAX_ANSWER_BYTES, make_size_error

EXTENSION = "https://jsonapi.org/ext/atomic"
MAX_OPERATIONS = 100
MODE_BY_OP: dict[str, Mode] = {"add": "add", "update": "replace", "remove": "remove"}
REF_MEMBERS = ("type", "id", "lid")
MEMBERS_WITHOUT_LINKAGE = frozenset({"attributes", "meta", "links"})
"""Members in which nothing is linkage."""
HREF_RE = re.compile(r"/v1/([a-z-]+)(?:/([^/]+)(?:/relationships/([^/]+))?)?/?")


class OperationsView(MethodView):
    """The endpoint of the extension."""

    methods: ClassVar[set[str]] = {"POST"}
    keyed_methods: ClassVar[frozenset[str]] = POST_ONLY

    @classmethod
    def permissions_by_method(cls) -> dict[str, str]:
        """Every operation asks for its own rights besides."""
        return {"POST": describe_predicate(any_user)}

    def post(self) -> Response:
        """Perform the operations in order; the first that fails undoes all before it."""
        known = frozenset({EXTENSION})
        check_accept(request.headers, known)
        check_content_type(request.headers, known)
        parse_parameters(request.query_string, NO_FAMILIES)
        with open_transaction(is_read=True):
            viewer = require_current_user()
        if EXTENSION not in get_body_extensions(request.headers):
            raise BadRequest(f'The media type must say ext="{EXTENSION}".', header="Content-Type")
        operations = _parse_operations()
        if (replayed := _find_stored_response(viewer)) is not None:
            return replayed
        try:
            _do_slow_work(operations, viewer)
        except ApiError:
            # The same request may have been answered meanwhile, and have changed the password that this one sends.
            if (replayed := _find_stored_response(viewer)) is not None:
                return replayed
            raise
        is_long = is_long_write(len(operations))
        with (
            long_write(viewer, _iterate_resources(operations)) if is_long else nullcontext(),
            open_transaction(is_read=False),
        ):
            viewer = require_current_user()
            access = AccessContext(viewer, VisibilityScope(viewer.role))
            return run_idempotent(viewer, lambda: _execute_operations(operations, access))


def _find_stored_response(viewer: CurrentUser) -> Response | None:
    with open_transaction(is_read=True):
        return find_stored_response(viewer)


def _parse_operations() -> list[Any]:
    document = parse_request_body()
    operations = document.get("atomic:operations") if isinstance(document, dict) else None
    if not isinstance(operations, list) or not operations:
        raise BadRequest("The document must have a list atomic:operations.", pointer="/atomic:operations")
    if len(operations) > MAX_OPERATIONS:
        raise Unprocessable(f"More than {MAX_OPERATIONS} operations.", pointer="/atomic:operations")
    return operations


def _do_slow_work(operations: list[Any], viewer: CurrentUser) -> None:
    """Let the data layers do the slow work for all resources of their types, before a connection is held."""
    sent: dict[str, list[SentResource]] = {}
    for type_, resource in _iterate_resources(operations):
        if DATA_LAYERS[type_.name].has_slow_work:
            sent.setdefault(type_.name, []).append(resource)
    for name, resources in sent.items():
        DATA_LAYERS[name].before_transaction(resources, viewer)
        g.pop("viewer", None)  # it took its time: the transaction looks again whether the sign-in has ended


def _iterate_resources(operations: list[Any]) -> Iterator[tuple[ResourceType, SentResource]]:
    """Yield the resource objects in the operations, as far as their types are known."""
    for index, operation in enumerate(operations):
        data = operation.get("data") if isinstance(operation, dict) else None
        if isinstance(data, dict) and (type_ := find_type(str(data.get("type")))) is not None:
            yield type_, SentResource(data, f"/atomic:operations/{index}/data")


def _execute_operations(operations: list[Any], access: AccessContext) -> Response:
    performer = _OperationExecutor(access)
    began_at = monotonic()
    results = []
    for index, each in enumerate(operations):
        check_deadline(began_at)
        results.append(_with_error_index(index, lambda: performer.execute_operation(each)))  # noqa: B023  # called at once
    return json_response({"atomic:results": results, "jsonapi": {**JSONAPI, "ext": [EXTENSION]}}, extension=EXTENSION)


def _with_error_index(index: int, perform: Callable[[], Item]) -> Item:
    """Errors say which operation they belong to."""
    try:
        return perform()
    except ApiError as error:
        raise _prefix_pointer(error, index) from None
    except ApiErrorGroup as errors:
        raise ApiErrorGroup(_prefix_pointer(error, index) for error in errors.errors) from None


def _prefix_pointer(error: ApiError, index: int) -> ApiError:
    error.source = {"pointer": f"/atomic:operations/{index}{(error.source or {}).get('pointer', '')}"}
    return error


@dataclass(frozen=True)
class OperationTarget:
    """What an operation is about: a type, perhaps a resource of it, perhaps a relationship of that."""

    type: ResourceType
    id: str | None = None
    relation: Relation | None = None


class _OperationExecutor:
    """Performs operations one after the other and remembers what their local ids became."""

    def __init__(self, access: AccessContext) -> None:
        self.access = access
        self.ids: dict[tuple[str, str], str] = {}
        self.bytes = 0
        """Of the results so far."""

    def execute_operation(self, operation: Any) -> Item:
        if not isinstance(operation, dict) or str(operation.get("op")) not in MODE_BY_OP:
            raise BadRequest("An operation has an op: add, update or remove.", pointer="/op")
        op, target = operation["op"], self._parse_target(operation)
        layer = DATA_LAYERS[target.type.name]
        if target.relation is not None:
            return self._update_relationship(op, target, target.relation, operation.get("data"))
        if op == "add":
            if target.id is not None:
                raise BadRequest("A resource is added to a type, not where there is one.", pointer="/ref")
            return self._add_resource(layer, operation.get("data"))
        row = self._lock_row(layer, target)
        if op == "remove":
            layer.delete_object(row, self.access)
            return {}
        document = parse_update({"data": self._resolve_lids(operation.get("data"), "/data")}, target.type)
        if document.id != str(row.id):
            raise Conflict("The id is not the one of the reference.", pointer="/data/id", code="id-conflict")
        layer.update_object(row, document, self.access)
        return self._build_result(layer, row)

    def _add_resource(self, layer: DataLayer, data: Any) -> Item:
        lid = data.get("lid") if isinstance(data, dict) else None
        if lid is not None and (not isinstance(lid, str) or (layer.type.name, lid) in self.ids):
            raise Unprocessable("A lid is a text that no other new resource here has.", pointer="/data/lid")
        sent = {name: value for name, value in data.items() if name != "lid"} if lid is not None else data
        document = parse_create({"data": self._resolve_lids(sent, "/data")}, layer.type)
        row = layer.create_object(document, self.access)
        if lid is not None:
            self.ids[layer.type.name, lid] = str(row.id)
        return self._build_result(layer, row)

    def _update_relationship(self, op: str, target: OperationTarget, relation: Relation, data: Any) -> Item:
        if not relation.many and op != "update":
            raise BadRequest("A to-one relationship is updated.", pointer="/op")
        layer = DATA_LAYERS[target.type.name]
        linkage = parse_linkage_document({"data": self._resolve_lids(data, "/data")}, relation)
        layer.update_relationship(self._lock_row(layer, target), relation, linkage, MODE_BY_OP[op], self.access)
        return {}

    def _parse_target(self, operation: dict[str, Any]) -> OperationTarget:
        if "ref" in operation and "href" in operation:
            raise BadRequest("An operation has a ref or a href, not both.", pointer="/href")
        if "href" in operation:
            return _parse_href(operation["href"])
        pointer = "/ref" if "ref" in operation else "/data"
        named = operation.get(pointer[1:])
        if not isinstance(named, dict) or not isinstance(named.get("type"), str):
            raise Unprocessable("The type is missing.", pointer=f"{pointer}/type")
        type_ = find_type(named["type"])
        if type_ is None:
            raise Unprocessable("There is no such type.", pointer=f"{pointer}/type")
        if pointer == "/data" and operation["op"] == "add":
            return OperationTarget(type_)
        found = self._resolve_lids({name: value for name, value in named.items() if name in REF_MEMBERS}, pointer)
        return OperationTarget(
            type_, found.get("id"), _find_relation(type_, named.get("relationship") if pointer == "/ref" else None)
        )

    def _lock_row(self, layer: DataLayer, target: OperationTarget) -> Any:
        if not isinstance(target.id, str):
            raise Unprocessable("The id is missing or no text.", pointer="/ref/id")
        row = layer.get_object(layer.type.lookup(target.id), self.access)
        if row is None:
            raise NotFound(f"There is no such {layer.type.name} here.", pointer="/ref")
        return row

    def _resolve_lids(self, value: Any, pointer: str) -> Any:
        """The value with the ids that local ids have become; 422 for one that no earlier operation made."""
        if isinstance(value, list):
            return [self._resolve_lids(item, f"{pointer}/{at}") for at, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        found = {
            name: member
            if name in MEMBERS_WITHOUT_LINKAGE or name[:1] == "@"
            else self._resolve_lids(member, f"{pointer}/{name}")
            for name, member in value.items()
        }
        if "lid" not in found or "type" not in found:
            return found
        type_, lid = find_type(str(found["type"])), found.pop("lid")
        known = self.ids.get((type_.name, lid)) if type_ is not None and isinstance(lid, str) else None
        if known is None:
            raise Unprocessable("No operation before this one made that lid.", pointer=f"{pointer}/lid")
        return {**found, "id": known}

    def _build_result(self, layer: DataLayer, row: Any) -> Item:
        reader = ResourceReader(layer.get_answer_access(row, self.access), Query(self.access.scope))
        document = reader.get_document(layer.type, row.id)
        if document is None:
            return {}
        self.bytes += len(orjson.dumps(document["data"]))
        if self.bytes > MAX_ANSWER_BYTES:
            detail = f"The results up to here have more than {MAX_ANSWER_BYTES} bytes: send fewer operations at once."
            raise make_size_error(detail)
        return {"data": document["data"]}


def _parse_href(href: Any) -> OperationTarget:
    """What a href like /v1/faqs/1/relationships/faq-type leads to."""
    match = HREF_RE.fullmatch(href) if isinstance(href, str) else None
    type_ = find_type(match[1]) if match else None
    if match is None or type_ is None:
        raise Unprocessable("This leads to no resource.", pointer="/href")
    return OperationTarget(type_, match[2], _find_relation(type_, match[3]))


def _find_relation(type_: ResourceType, named: Any) -> Relation | None:
    if named is None:
        return None
    relation = type_.find_relation(named) if isinstance(named, str) else None
    if relation is None:
        raise Unprocessable("There is no such relationship.", pointer="/ref/relationship")
    return relation
