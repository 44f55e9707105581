"""Collections and single resources: the library's classes, with reading, writing and rights of our own behind them."""

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, ClassVar

from flask import Response, current_app, request
from flask_rest_jsonapi_next import ResourceDetail as LibraryDetail
from flask_rest_jsonapi_next import ResourceList as LibraryList

from app.errors import Conflict, NotFound
from app.jsonapi.body import read_document
from app.jsonapi.documents import read_changed_resource, read_new_resource
from app.jsonapi.idempotency import TAKES_KEY, answered_once, find_answer, locate
from app.jsonapi.permissions import Predicate, anyone
from app.jsonapi.plan import Item
from app.jsonapi.query import DETAIL, LINKAGE, LIST, WRITE, Query
from app.jsonapi.reading import JSONAPI, Part, Reader
from app.jsonapi.view import View, answer, path, self_link
from app.jsonapi.viewer import Viewer, signed_in_viewer


class ResourceList(View, LibraryList):  # type: ignore[misc]  # the library carries no types
    """GET and POST of a collection."""

    families = {"GET": LIST, "POST": WRITE}
    keyed_methods = TAKES_KEY

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        permissions = cls._data_layer.type.permissions
        return {"GET": permissions.list, "POST": permissions.create}

    def is_list(self) -> bool:
        return request.method != "POST"

    part: ClassVar[Part] = Part()
    """Which rows of the type are in this collection: all, unless a package says otherwise."""

    def get(self) -> Response:
        self.allow(self.type.permissions.list)
        reader = self.reader()
        return self.collection(reader, lambda reader: reader.collection(self.type, path(), self.part))

    def post(self) -> Response:
        if self.type.permissions.create is not anyone:
            signed_in_viewer()
        reader = self.reader()
        return answered_once(reader.access.viewer, lambda: self.create(reader))

    def find_answer(self, viewer: Viewer) -> Response | None:
        return find_answer(viewer)

    def create(self, reader: Reader) -> Response:
        """The answer to a POST, nothing committed yet."""
        document = read_new_resource(read_document(), self.type)
        row = self.layer.create_object(document, reader.access)
        stored = self.stored(row, reader)
        if stored is None:
            raise NotFound("What it belongs to has just gone away.")  # somebody deleted it, or took our rights
        return located(stored, self.status(row))

    def status(self, row: Any) -> HTTPStatus:
        """What a POST has come to."""
        return HTTPStatus.CREATED


def located(document: Item, status: HTTPStatus) -> Response:
    """The answer that shows a new resource and says where it is."""
    link = document["data"]["links"]["self"]
    return locate(answer({**document, "links": {"self": link}}, status), current_app.config["PUBLIC_URL"] + link)


class Command(View, LibraryDetail):  # type: ignore[misc]  # same
    """A POST without a body that does something about one resource."""

    methods: ClassVar[set[str]] = {"POST"}  # subclasses say so again, or they would have those of the library
    families = {"POST": LINKAGE}
    body_methods = frozenset()
    keyed_methods = TAKES_KEY


class ResourceDetail(View, LibraryDetail):  # type: ignore[misc]  # same
    """GET, PATCH and DELETE of one resource."""

    families = {"GET": DETAIL, "PATCH": WRITE, "DELETE": LINKAGE}

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        permissions = cls._data_layer.type.permissions
        return {"GET": permissions.read, "PATCH": permissions.update, "DELETE": permissions.delete}

    def get(self, id: str) -> Response:
        self.allow(self.type.permissions.read)
        reader = self.reader(name=id)
        named = self.type.lookup(id)
        document = named and reader.resource(self.type, named[1], column=named[0])
        if not document:
            raise NotFound(f"There is no {self.type.name} {id[:80]!r} here.")
        return answer({**document, "links": {"self": self_link()}})

    def patch(self, id: str) -> Response:
        signed_in_viewer()
        reader = self.reader(name=id)
        document = read_changed_resource(read_document(), self.type)
        row = self.row(id, reader.access)
        if document.id != str(row.id):
            raise Conflict("The id is not the one in the URL.", pointer="/data/id", code="id-conflict")
        self.check_precondition(lambda: self.plain(row, reader))
        self.layer.update_object(row, document, reader.access)
        stored = self.stored(row, reader)
        printed = Response(status=204) if stored is None else answer({**stored, "links": {"self": self_link()}})
        return self.committed(printed)

    def delete(self, id: str) -> Response:
        signed_in_viewer()
        reader = self.reader(name=id)
        row = self.row(id, reader.access)
        self.check_precondition(lambda: self.plain(row, reader))
        self.layer.delete_object(row, reader.access)
        return self.committed(answer({"meta": {"message": "Object successfully deleted"}, "jsonapi": JSONAPI}))

    def plain(self, row: Any, reader: Reader) -> Item | None:
        """What a GET without parameters would say of the row now."""
        document = replace(reader, query=Query(reader.query.scope)).resource(self.type, row.id)
        link = f"{path()}?get_trashed=true" if reader.query.scope.trashed else path()
        return document and {**document, "links": {"self": link}}
