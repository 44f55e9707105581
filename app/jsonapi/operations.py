"""POST /v1/operations: several writes, all or nothing (https://jsonapi.org/ext/atomic)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson
from flask import Response, g, request
from flask.views import MethodView

from app.database import transaction
from app.errors import ApiError, BadRequest, Conflict, Errors, NotFound, Unprocessable
from app.jsonapi.body import read_document
from app.jsonapi.documents import read_changed_resource, read_linkage, read_new_resource
from app.jsonapi.idempotency import TAKES_KEY, answered_once, find_answer
from app.jsonapi.negotiation import check_accept, check_content_type, extensions_of_body
from app.jsonapi.permissions import Access, Scope, signed_in, words
from app.jsonapi.plan import Item
from app.jsonapi.query import NOTHING, Query, check_names
from app.jsonapi.reading import JSONAPI, Reader
from app.jsonapi.resource_type import Relation, ResourceType, type_spelled
from app.jsonapi.sizes import MAX_ANSWER_BYTES, refuse_answer
from app.jsonapi.view import answer
from app.jsonapi.viewer import Viewer, signed_in_viewer
from app.jsonapi.writing import LAYERS, DataLayer, Mode, SentResource

EXTENSION = "https://jsonapi.org/ext/atomic"
MOST_OPERATIONS = 100
MODES: dict[str, Mode] = {"add": "add", "update": "replace", "remove": "remove"}
REFERENCE = ("type", "id", "lid")
OPAQUE = frozenset({"attributes", "meta", "links"})
"""Members in which nothing is linkage."""
HREF = re.compile(r"/v1/([a-z-]+)(?:/([^/]+)(?:/relationships/([^/]+))?)?/?")


class OperationsView(MethodView):
    """The endpoint of the extension."""

    methods: ClassVar[set[str]] = {"POST"}
    keyed_methods: ClassVar[frozenset[str]] = TAKES_KEY

    @classmethod
    def permissions_by_method(cls) -> dict[str, str]:
        """Every operation asks for its own rights besides."""
        return {"POST": words(signed_in)}

    def post(self) -> Response:
        """Perform the operations in order; the first that fails undoes all before it."""
        known = frozenset({EXTENSION})
        check_accept(request.headers, known)
        check_content_type(request.headers, known)
        check_names(request.query_string, NOTHING)
        with transaction(is_read=True):
            viewer = signed_in_viewer()
        if EXTENSION not in extensions_of_body(request.headers):
            raise BadRequest(f'The media type must say ext="{EXTENSION}".', header="Content-Type")
        operations = _read_operations()
        if (replayed := _find_answer(viewer)) is not None:
            return replayed
        try:
            _do_slow_work(operations, viewer)
        except ApiError:
            # The same request may have been answered meanwhile, and have changed the password that this one sends.
            if (replayed := _find_answer(viewer)) is not None:
                return replayed
            raise
        with transaction(is_read=False):
            viewer = signed_in_viewer()
            access = Access(viewer, Scope(viewer.role))
            return answered_once(viewer, lambda: _perform(operations, access))


def _find_answer(viewer: Viewer) -> Response | None:
    with transaction(is_read=True):
        return find_answer(viewer)


def _read_operations() -> list[Any]:
    document = read_document()
    operations = document.get("atomic:operations") if isinstance(document, dict) else None
    if not isinstance(operations, list) or not operations:
        raise BadRequest("The document must have a list atomic:operations.", pointer="/atomic:operations")
    if len(operations) > MOST_OPERATIONS:
        raise Unprocessable(f"More than {MOST_OPERATIONS} operations.", pointer="/atomic:operations")
    return operations


def _do_slow_work(operations: list[Any], viewer: Viewer) -> None:
    """Let the data layers do the slow work for all resources of their types, before a connection is held."""
    sent: dict[str, list[SentResource]] = {}
    for index, operation in enumerate(operations):
        data = operation.get("data") if isinstance(operation, dict) else None
        if not isinstance(data, dict):
            continue
        type_ = type_spelled(str(data.get("type")))
        if type_ is not None and LAYERS[type_.name].has_slow_work:
            sent.setdefault(type_.name, []).append(SentResource(data, f"/atomic:operations/{index}/data"))
    for name, resources in sent.items():
        LAYERS[name].before_transaction(resources, viewer)
        g.pop("viewer", None)  # it took its time: the transaction looks again whether the sign-in has ended


def _perform(operations: list[Any], access: Access) -> Response:
    performer = _Performer(access)
    results = [_located(index, lambda: performer.perform(each)) for index, each in enumerate(operations)]  # noqa: B023  # called at once
    return answer({"atomic:results": results, "jsonapi": {**JSONAPI, "ext": [EXTENSION]}}, extension=EXTENSION)


def _located(index: int, perform: Callable[[], Item]) -> Item:
    """Errors say which operation they belong to."""
    try:
        return perform()
    except ApiError as error:
        raise _moved(error, index) from None
    except Errors as errors:
        raise Errors(_moved(error, index) for error in errors.errors) from None


def _moved(error: ApiError, index: int) -> ApiError:
    error.source = {"pointer": f"/atomic:operations/{index}{(error.source or {}).get('pointer', '')}"}
    return error


@dataclass(frozen=True)
class Target:
    """What an operation is about: a type, perhaps a resource of it, perhaps a relationship of that."""

    type: ResourceType
    id: str | None = None
    relation: Relation | None = None


class _Performer:
    """Performs operations one after the other and remembers what their local ids became."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.ids: dict[tuple[str, str], str] = {}
        self.bytes = 0
        """Of the results so far."""

    def perform(self, operation: Any) -> Item:
        if not isinstance(operation, dict) or str(operation.get("op")) not in MODES:
            raise BadRequest("An operation has an op: add, update or remove.", pointer="/op")
        op, target = operation["op"], self._target(operation)
        layer = LAYERS[target.type.name]
        if target.relation is not None:
            return self._relate(op, target, target.relation, operation.get("data"))
        if op == "add":
            if target.id is not None:
                raise BadRequest("A resource is added to a type, not where there is one.", pointer="/ref")
            return self._add(layer, operation.get("data"))
        row = self._row(layer, target)
        if op == "remove":
            layer.delete_object(row, self.access)
            return {}
        document = read_changed_resource({"data": self._resolved(operation.get("data"), "/data")}, target.type)
        if document.id != str(row.id):
            raise Conflict("The id is not the one of the reference.", pointer="/data/id", code="id-conflict")
        layer.update_object(row, document, self.access)
        return self._result(layer, row)

    def _add(self, layer: DataLayer, data: Any) -> Item:
        lid = data.get("lid") if isinstance(data, dict) else None
        if lid is not None and (not isinstance(lid, str) or (layer.type.name, lid) in self.ids):
            raise Unprocessable("A lid is a text that no other new resource here has.", pointer="/data/lid")
        sent = {name: value for name, value in data.items() if name != "lid"} if lid is not None else data
        document = read_new_resource({"data": self._resolved(sent, "/data")}, layer.type)
        row = layer.create_object(document, self.access)
        if lid is not None:
            self.ids[layer.type.name, lid] = str(row.id)
        return self._result(layer, row)

    def _relate(self, op: str, target: Target, relation: Relation, data: Any) -> Item:
        if not relation.many and op != "update":
            raise BadRequest("A to-one relationship is updated.", pointer="/op")
        layer = LAYERS[target.type.name]
        linkage = read_linkage({"data": self._resolved(data, "/data")}, relation)
        layer.update_relationship(self._row(layer, target), relation, linkage, MODES[op], self.access)
        return {}

    def _target(self, operation: dict[str, Any]) -> Target:
        if "ref" in operation and "href" in operation:
            raise BadRequest("An operation has a ref or a href, not both.", pointer="/href")
        if "href" in operation:
            return _followed(operation["href"])
        pointer = "/ref" if "ref" in operation else "/data"
        named = operation.get(pointer[1:])
        if not isinstance(named, dict) or not isinstance(named.get("type"), str):
            raise Unprocessable("The type is missing.", pointer=f"{pointer}/type")
        type_ = type_spelled(named["type"])
        if type_ is None:
            raise Unprocessable("There is no such type.", pointer=f"{pointer}/type")
        if pointer == "/data" and operation["op"] == "add":
            return Target(type_)
        found = self._resolved({name: value for name, value in named.items() if name in REFERENCE}, pointer)
        return Target(
            type_, found.get("id"), _relation(type_, named.get("relationship") if pointer == "/ref" else None)
        )

    def _row(self, layer: DataLayer, target: Target) -> Any:
        if not isinstance(target.id, str):
            raise Unprocessable("The id is missing or no text.", pointer="/ref/id")
        row = layer.get_object(layer.type.lookup(target.id), self.access)
        if row is None:
            raise NotFound(f"There is no such {layer.type.name} here.", pointer="/ref")
        return row

    def _resolved(self, value: Any, pointer: str) -> Any:
        """The value with the ids that local ids have become; 422 for one that no earlier operation made."""
        if isinstance(value, list):
            return [self._resolved(item, f"{pointer}/{at}") for at, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        found = {
            name: member if name in OPAQUE or name[:1] == "@" else self._resolved(member, f"{pointer}/{name}")
            for name, member in value.items()
        }
        if "lid" not in found or "type" not in found:
            return found
        type_, lid = type_spelled(str(found["type"])), found.pop("lid")
        known = self.ids.get((type_.name, lid)) if type_ is not None and isinstance(lid, str) else None
        if known is None:
            raise Unprocessable("No operation before this one made that lid.", pointer=f"{pointer}/lid")
        return {**found, "id": known}

    def _result(self, layer: DataLayer, row: Any) -> Item:
        reader = Reader(layer.answer_access(row, self.access), Query(self.access.scope))
        document = reader.resource(layer.type, row.id)
        if document is None:
            return {}
        self.bytes += len(orjson.dumps(document["data"]))
        if self.bytes > MAX_ANSWER_BYTES:
            detail = f"The results up to here have more than {MAX_ANSWER_BYTES} bytes: send fewer operations at once."
            raise refuse_answer(detail)
        return {"data": document["data"]}


def _followed(href: Any) -> Target:
    """What a href like /v1/faqs/1/relationships/faq-type leads to."""
    match = HREF.fullmatch(href) if isinstance(href, str) else None
    type_ = type_spelled(match[1]) if match else None
    if match is None or type_ is None:
        raise Unprocessable("This leads to no resource.", pointer="/href")
    return Target(type_, match[2], _relation(type_, match[3]))


def _relation(type_: ResourceType, named: Any) -> Relation | None:
    if named is None:
        return None
    relation = type_.relation(named) if isinstance(named, str) else None
    if relation is None:
        raise Unprocessable("There is no such relationship.", pointer="/ref/relationship")
    return relation
