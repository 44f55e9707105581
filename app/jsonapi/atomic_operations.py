"""POST /v1/operations: several writes in one transaction (https://jsonapi.org/ext/atomic)."""

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
"""Members of a resource object that contain no linkage."""
HREF_RE = re.compile(r"/v1/([a-z-]+)(?:/([^/]+)(?:/relationships/([^/]+))?)?/?")


class OperationsView(MethodView):
    """The endpoint of the atomic operations extension."""

    methods: ClassVar[set[str]] = {"POST"}
    keyed_methods: ClassVar[frozenset[str]] = POST_ONLY

    @classmethod
    def permissions_by_method(cls) -> dict[str, str]:
        """Return the permission of the endpoint; each operation requires its own permissions too."""
        return {"POST": describe_predicate(any_user)}

    def post(self) -> Response:
        """Perform the operations in order; if one fails, none takes effect."""
        extensions = frozenset({EXTENSION})
        check_accept(request.headers, extensions)
        check_content_type(request.headers, extensions)
        parse_parameters(request.query_string, NO_FAMILIES)
        with open_transaction(is_read=True):
            viewer = require_current_user()
        if EXTENSION not in get_body_extensions(request.headers):
            raise BadRequest(f'The media type must have the parameter ext="{EXTENSION}".', header="Content-Type")
        operations = _parse_operations()
        if (replayed := _find_stored_response(viewer)) is not None:
            return replayed
        try:
            _do_slow_work(operations, viewer)
        except ApiError:
            # A concurrent request with the same key may have succeeded, and changed the password that this one sends.
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
        raise BadRequest("The document must have a non-empty array atomic:operations.", pointer="/atomic:operations")
    if len(operations) > MAX_OPERATIONS:
        raise Unprocessable(f"At most {MAX_OPERATIONS} operations are allowed.", pointer="/atomic:operations")
    return operations


def _do_slow_work(operations: list[Any], viewer: CurrentUser) -> None:
    """Run the slow work of the data layers for all resources sent, while no database connection is held."""
    sent: dict[str, list[SentResource]] = {}
    for type_, resource in _iterate_resources(operations):
        if DATA_LAYERS[type_.name].has_slow_work:
            sent.setdefault(type_.name, []).append(resource)
    for name, resources in sent.items():
        DATA_LAYERS[name].before_transaction(resources, viewer)
        g.pop("viewer", None)  # the session may have ended meanwhile: the transaction authenticates again


def _iterate_resources(operations: list[Any]) -> Iterator[tuple[ResourceType, SentResource]]:
    """Yield the resource objects in the operations, as far as their types are known."""
    for index, operation in enumerate(operations):
        data = operation.get("data") if isinstance(operation, dict) else None
        if isinstance(data, dict) and (type_ := find_type(str(data.get("type")))) is not None:
            yield type_, SentResource(data, f"/atomic:operations/{index}/data")


def _execute_operations(operations: list[Any], access: AccessContext) -> Response:
    executor = _OperationExecutor(access)
    began_at = monotonic()
    results = []
    for index, each in enumerate(operations):
        check_deadline(began_at)
        results.append(_with_error_index(index, lambda: executor.execute_operation(each)))  # noqa: B023  # called at once
    return json_response({"atomic:results": results, "jsonapi": {**JSONAPI, "ext": [EXTENSION]}}, extension=EXTENSION)


def _with_error_index(index: int, perform: Callable[[], Item]) -> Item:
    """Call `perform`, and add the index of the operation to the pointers of its errors."""
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
    """The target of an operation: a type, a resource, or a relationship of a resource."""

    type: ResourceType
    id: str | None = None
    relation: Relation | None = None


class _OperationExecutor:
    """Executes operations in order, and maps local ids to the ids of new resources."""

    def __init__(self, access: AccessContext) -> None:
        self.access = access
        self.ids: dict[tuple[str, str], str] = {}
        self.bytes = 0
        """Bytes of the results so far."""

    def execute_operation(self, operation: Any) -> Item:
        if not isinstance(operation, dict) or str(operation.get("op")) not in MODE_BY_OP:
            raise BadRequest("The op of an operation must be add, update or remove.", pointer="/op")
        op, target = operation["op"], self._parse_target(operation)
        layer = DATA_LAYERS[target.type.name]
        if target.relation is not None:
            return self._update_relationship(op, target, target.relation, operation.get("data"))
        if op == "add":
            if target.id is not None:
                raise BadRequest("To add a resource, name its type only, without an id.", pointer="/ref")
            return self._add_resource(layer, operation.get("data"))
        row = self._lock_row(layer, target)
        if op == "remove":
            layer.delete_object(row, self.access)
            return {}
        document = parse_update({"data": self._resolve_lids(operation.get("data"), "/data")}, target.type)
        if document.id != str(row.id):
            raise Conflict("The id must be the one of the reference.", pointer="/data/id", code="id-conflict")
        layer.update_object(row, document, self.access)
        return self._build_result(layer, row)

    def _add_resource(self, layer: DataLayer, data: Any) -> Item:
        lid = data.get("lid") if isinstance(data, dict) else None
        if lid is not None and (not isinstance(lid, str) or (layer.type.name, lid) in self.ids):
            raise Unprocessable(
                "The lid must be a string that no other new resource of this type has.", pointer="/data/lid"
            )
        sent = {name: value for name, value in data.items() if name != "lid"} if lid is not None else data
        document = parse_create({"data": self._resolve_lids(sent, "/data")}, layer.type)
        row = layer.create_object(document, self.access)
        if lid is not None:
            self.ids[layer.type.name, lid] = str(row.id)
        return self._build_result(layer, row)

    def _update_relationship(self, op: str, target: OperationTarget, relation: Relation, data: Any) -> Item:
        if not relation.many and op != "update":
            raise BadRequest("The op for a to-one relationship must be update.", pointer="/op")
        layer = DATA_LAYERS[target.type.name]
        linkage = parse_linkage_document({"data": self._resolve_lids(data, "/data")}, relation)
        layer.update_relationship(self._lock_row(layer, target), relation, linkage, MODE_BY_OP[op], self.access)
        return {}

    def _parse_target(self, operation: dict[str, Any]) -> OperationTarget:
        if "ref" in operation and "href" in operation:
            raise BadRequest("An operation must not have both ref and href.", pointer="/href")
        if "href" in operation:
            return _parse_href(operation["href"])
        pointer = "/ref" if "ref" in operation else "/data"
        named = operation.get(pointer[1:])
        if not isinstance(named, dict) or not isinstance(named.get("type"), str):
            raise Unprocessable("The type is missing.", pointer=f"{pointer}/type")
        type_ = find_type(named["type"])
        if type_ is None:
            raise Unprocessable("There is no such resource type.", pointer=f"{pointer}/type")
        if pointer == "/data" and operation["op"] == "add":
            return OperationTarget(type_)
        found = self._resolve_lids({name: value for name, value in named.items() if name in REF_MEMBERS}, pointer)
        return OperationTarget(
            type_, found.get("id"), _find_relation(type_, named.get("relationship") if pointer == "/ref" else None)
        )

    def _lock_row(self, layer: DataLayer, target: OperationTarget) -> Any:
        if not isinstance(target.id, str):
            raise Unprocessable("The id is missing or is not a string.", pointer="/ref/id")
        row = layer.get_object(layer.type.lookup(target.id), self.access)
        if row is None:
            raise NotFound(f"There is no such {layer.type.name} here.", pointer="/ref")
        return row

    def _resolve_lids(self, value: Any, pointer: str) -> Any:
        """Replace local ids by the ids of their resources; raise Unprocessable for an undefined one."""
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
        id_ = self.ids.get((type_.name, lid)) if type_ is not None and isinstance(lid, str) else None
        if id_ is None:
            raise Unprocessable("No earlier operation has added a resource with this lid.", pointer=f"{pointer}/lid")
        return {**found, "id": id_}

    def _build_result(self, layer: DataLayer, row: Any) -> Item:
        reader = ResourceReader(layer.get_answer_access(row, self.access), Query(self.access.scope))
        document = reader.get_document(layer.type, row.id)
        if document is None:
            return {}
        self.bytes += len(orjson.dumps(document["data"]))
        if self.bytes > MAX_ANSWER_BYTES:
            detail = f"The results would have more than {MAX_ANSWER_BYTES} bytes: send fewer operations at once."
            raise make_size_error(detail)
        return {"data": document["data"]}


def _parse_href(href: Any) -> OperationTarget:
    """Return the target of a href such as /v1/faqs/1/relationships/faq-type; raise Unprocessable for any other URL."""
    match = HREF_RE.fullmatch(href) if isinstance(href, str) else None
    type_ = find_type(match[1]) if match else None
    if match is None or type_ is None:
        raise Unprocessable("The href must be the URL of a collection, a resource or a relationship.", pointer="/href")
    return OperationTarget(type_, match[2], _find_relation(type_, match[3]))


def _find_relation(type_: ResourceType, named: Any) -> Relation | None:
    if named is None:
        return None
    relation = type_.find_relation(named) if isinstance(named, str) else None
    if relation is None:
        raise Unprocessable("There is no such relationship.", pointer="/ref/relationship")
    return relation
