"""Views of collections and single resources, based on the classes of flask-rest-jsonapi-next."""

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, ClassVar

from flask import Response, current_app, request
from flask_rest_jsonapi_next import ResourceDetail as LibraryDetail
from flask_rest_jsonapi_next import ResourceList as LibraryList

from app.errors import Conflict, NotFound
from app.jsonapi.base_view import View, json_response, request_path, self_link
from app.jsonapi.current_user import CurrentUser, require_current_user
from app.jsonapi.document_parser import parse_create, parse_update
from app.jsonapi.idempotency import POST_ONLY, find_stored_response, run_idempotent, set_location
from app.jsonapi.json_parsing import parse_request_body
from app.jsonapi.permissions import Predicate, anyone
from app.jsonapi.query_params import DETAIL_FAMILIES, LINKAGE_FAMILIES, LIST_FAMILIES, WRITE_FAMILIES, Query
from app.jsonapi.reader import JSONAPI, CollectionScope, ResourceReader
from app.jsonapi.select_plan import Item


class ResourceList(View, LibraryList):  # type: ignore[misc]  # the library carries no types
    """GET and POST of a collection."""

    families = {"GET": LIST_FAMILIES, "POST": WRITE_FAMILIES}
    keyed_methods = POST_ONLY

    @classmethod
    def predicates_by_method(cls) -> Mapping[str, Predicate]:
        permissions = cls._data_layer.type.permissions
        return {"GET": permissions.list, "POST": permissions.create}

    def is_list(self) -> bool:
        return request.method != "POST"

    collection_scope: ClassVar[CollectionScope] = CollectionScope()
    """Rows of the type that the collection contains; the default is all rows."""

    def get(self) -> Response:
        self.authorize(self.type.permissions.list)
        reader = self.make_reader()
        return self.respond_with_list(
            reader, lambda reader: reader.list_document(self.type, request_path(), self.collection_scope)
        )

    def post(self) -> Response:
        if self.type.permissions.create is not anyone:
            require_current_user()
        reader = self.make_reader()
        return run_idempotent(reader.access.viewer, lambda: self.create_resource(reader))

    def find_stored_response(self, viewer: CurrentUser) -> Response | None:
        return find_stored_response(viewer)

    def create_resource(self, reader: ResourceReader) -> Response:
        """Create a resource and return the response, without a commit."""
        document = parse_create(parse_request_body(), self.type)
        row = self.layer.create_object(document, reader.access)
        stored = self.read_back(row, reader)
        if stored is None:
            # A concurrent request has deleted a related row, or changed the permissions of the user.
            raise NotFound("The new resource is not accessible any more.")
        return build_creation_response(stored, self.get_creation_status(row))

    def get_creation_status(self, row: Any) -> HTTPStatus:
        """Return the status of the response to a POST."""
        return HTTPStatus.CREATED


def build_creation_response(document: Item, status: HTTPStatus) -> Response:
    """Return the response with a new resource and its Location."""
    link = document["data"]["links"]["self"]
    return set_location(
        json_response({**document, "links": {"self": link}}, status), current_app.config["PUBLIC_URL"] + link
    )


class ActionView(View, LibraryDetail):  # type: ignore[misc]  # same
    """Base of views for a POST without a body that performs an action on one resource."""

    methods: ClassVar[set[str]] = {"POST"}  # subclasses repeat this, or they would have the methods of the library
    families = {"POST": LINKAGE_FAMILIES}
    body_methods = frozenset()
    keyed_methods = POST_ONLY


class ResourceDetail(View, LibraryDetail):  # type: ignore[misc]  # same
    """GET, PATCH and DELETE of one resource."""

    families = {"GET": DETAIL_FAMILIES, "PATCH": WRITE_FAMILIES, "DELETE": LINKAGE_FAMILIES}

    @classmethod
    def predicates_by_method(cls) -> Mapping[str, Predicate]:
        permissions = cls._data_layer.type.permissions
        return {"GET": permissions.read, "PATCH": permissions.update, "DELETE": permissions.delete}

    def get(self, id: str) -> Response:
        self.authorize(self.type.permissions.read)
        reader = self.make_reader(name=id)
        named = self.type.lookup(id)
        document = named and reader.get_document(self.type, named[1], column=named[0])
        if not document:
            raise NotFound(f"There is no {self.type.name} {id[:80]!r} here.")
        return json_response({**document, "links": {"self": self_link()}})

    def patch(self, id: str) -> Response:
        require_current_user()
        reader = self.make_reader(name=id)
        document = parse_update(parse_request_body(), self.type)
        row = self.lock_row(id, reader.access)
        if document.id != str(row.id):
            raise Conflict("The id must be the one in the URL.", pointer="/data/id", code="id-conflict")
        self.check_precondition(lambda: self.current_document(row, reader))
        self.layer.update_object(row, document, reader.access)
        stored = self.read_back(row, reader)
        printed = Response(status=204) if stored is None else json_response({**stored, "links": {"self": self_link()}})
        return self.commit_and_return(printed)

    def delete(self, id: str) -> Response:
        require_current_user()
        reader = self.make_reader(name=id)
        row = self.lock_row(id, reader.access)
        self.check_precondition(lambda: self.current_document(row, reader))
        self.layer.delete_object(row, reader.access)
        return self.commit_and_return(
            json_response({"meta": {"message": "Object successfully deleted"}, "jsonapi": JSONAPI})
        )

    def current_document(self, row: Any, reader: ResourceReader) -> Item | None:
        """Return the current document of the row, as a GET without parameters returns it."""
        document = replace(reader, query=Query(reader.query.scope)).get_document(self.type, row.id)
        link = f"{request_path()}?get_trashed=true" if reader.query.scope.trashed else request_path()
        return document and {**document, "links": {"self": link}}
