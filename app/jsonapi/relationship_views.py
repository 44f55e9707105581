"""Views of related resources and of relationships, generated for each relationship of a resource type."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from flask import Response
from flask_rest_jsonapi_next import Api
from flask_rest_jsonapi_next import ResourceDetail as LibraryDetail
from flask_rest_jsonapi_next import ResourceList as LibraryList
from flask_rest_jsonapi_next import ResourceRelationship as LibraryRelationship

from app.errors import NotFound
from app.jsonapi.base_view import View, json_response, request_path, self_link
from app.jsonapi.current_user import require_current_user
from app.jsonapi.data_layer import DATA_LAYERS, DataLayer, Mode
from app.jsonapi.document_parser import parse_linkage_document
from app.jsonapi.idempotency import POST_ONLY, run_idempotent
from app.jsonapi.json_parsing import parse_request_body
from app.jsonapi.permissions import Predicate, no_one
from app.jsonapi.query_params import DETAIL_FAMILIES, LINKAGE_FAMILIES, LINKAGE_LIST_FAMILIES, LIST_FAMILIES
from app.jsonapi.reader import JSONAPI, CollectionScope, ResourceReader
from app.jsonapi.resource_type import Relation, ResourceType
from app.jsonapi.select_plan import Item
from app.jsonapi.select_statements import narrow_to_parent


class RelationView(View):
    """Base of the views of one relationship of a resource."""

    relation: ClassVar[Relation]


class RelatedList(RelationView, LibraryList):  # type: ignore[misc]  # same
    """GET of the related resources of a to-many relationship."""

    families = {"GET": LIST_FAMILIES}

    @classmethod
    def predicates_by_method(cls) -> Mapping[str, Predicate]:
        return {"GET": cls.relation.target.permissions.read}

    def is_list(self) -> bool:
        return True

    def get(self, id: str) -> Response:
        self.authorize(self.relation.target.permissions.read)
        reader = self.make_reader(self.relation.target, id)
        part = CollectionScope(narrow_to_parent(self.relation), reader.get_id(self.type, id))
        target = self.relation.target
        return self.respond_with_list(
            reader, lambda reader: reader.list_document(target, request_path(), part, related=True)
        )


class RelatedOne(RelationView, LibraryDetail):  # type: ignore[misc]  # same
    """GET of the related resource of a to-one relationship: null if there is none, 404 if it is not visible."""

    families = {"GET": DETAIL_FAMILIES}

    @classmethod
    def predicates_by_method(cls) -> Mapping[str, Predicate]:
        return {"GET": cls.relation.target.permissions.read}

    def get(self, id: str) -> Response:
        target = self.relation.target
        self.authorize(target.permissions.read)
        reader = self.make_reader(target, id)
        linked = reader.get_linkage_document(self.type, reader.get_id(self.type, id), self.relation, request_path())[
            "data"
        ]
        if linked is None:
            included: Item = {"included": []} if reader.query.includes_asked else {}
            return json_response({"data": None, **included, "links": {"self": self_link()}, "jsonapi": JSONAPI})
        document = reader.get_document(target, target.parse_id(linked["id"]), related=True)
        if document is None:
            raise NotFound(f"You do not have access to this {target.name}.")
        return json_response({**document, "links": {"self": self_link()}})


class RelationshipOne(RelationView, LibraryRelationship):  # type: ignore[misc]  # same
    """GET and PATCH of the linkage of a to-one relationship."""

    families = {"GET": LINKAGE_FAMILIES, "PATCH": LINKAGE_FAMILIES}

    @classmethod
    def predicates_by_method(cls) -> Mapping[str, Predicate]:
        return {"GET": cls._data_layer.type.permissions.read, "PATCH": cls.change_predicate()}

    @classmethod
    def change_predicate(cls) -> Predicate:
        """Return the predicate for changes of the relationship; a read-only one permits no one."""
        permissions = cls._data_layer.type.permissions
        return no_one if cls.relation.field.dump_only else permissions.relationship_predicate(cls.relation.name)

    def get(self, id: str) -> Response:
        self.authorize(self.type.permissions.read)
        reader = self.make_reader(name=id)
        id_ = reader.get_id(self.type, id)

        def read(reader: ResourceReader) -> Item:
            return reader.get_linkage_document(self.type, id_, self.relation, request_path())

        return self.respond_with_list(reader, read) if self.relation.many else json_response(read(reader))

    def patch(self, id: str) -> Response:
        return self.commit_and_return(self.update_linkage(id, "replace"))

    def update_linkage(self, id: str, mode: Mode) -> Response:
        """Change the linkage and return the response, without a commit."""
        require_current_user()
        reader = replace(self.make_reader(name=id), with_cursors=False)
        linkage = parse_linkage_document(parse_request_body(), self.relation)
        row = self.lock_row(id, reader.access)
        self.check_precondition(lambda: reader.get_linkage_document(self.type, row.id, self.relation, request_path()))
        self.layer.update_relationship(row, self.relation, linkage, mode, reader.access)
        return json_response(reader.get_linkage_document(self.type, row.id, self.relation, request_path()))


class RelationshipMany(RelationshipOne):
    """GET, PATCH, POST and DELETE of the linkage of a to-many relationship."""

    families = {
        "GET": LINKAGE_LIST_FAMILIES,
        "PATCH": LINKAGE_FAMILIES,
        "POST": LINKAGE_FAMILIES,
        "DELETE": LINKAGE_FAMILIES,
    }
    keyed_methods = POST_ONLY

    @classmethod
    def predicates_by_method(cls) -> Mapping[str, Predicate]:
        change = cls.change_predicate()
        return {"GET": cls._data_layer.type.permissions.read, "PATCH": change, "POST": change, "DELETE": change}

    def is_list(self) -> bool:
        return True

    def post(self, id: str) -> Response:
        def check_rights(_linkage: Any) -> None:
            access = self.make_reader(name=id).access.with_trash()
            access.require_permission(
                self.type.permissions.relationship_predicate(self.relation.name), self.lock_row(id, access)
            )

        return run_idempotent(require_current_user(), lambda: self.update_linkage(id, "add"), check_rights=check_rights)

    def delete(self, id: str) -> Response:
        return self.commit_and_return(self.update_linkage(id, "remove"))


def register_relationship_routes(api: Api, type_: ResourceType, layer: type[DataLayer]) -> None:
    """Register the data layer of a type, and the related and relationship URLs of its relationships."""
    DATA_LAYERS[type_.name] = layer({"type": type_})
    for relation in type_.relations.values():
        related, relationship = (RelatedList, RelationshipMany) if relation.many else (RelatedOne, RelationshipOne)
        for base, prefix, url in (
            (related, "related", f"/{type_.plural}/<id>/{relation.key}"),
            (relationship, "relationship", f"/{type_.plural}/<id>/relationships/{relation.key}"),
        ):
            name = f"{type_.name}_{prefix}_{relation.name}"
            methods = _http_methods(base)
            members = {"data_layer": {"class": layer, "type": type_}, "relation": relation, "methods": methods}
            api.route(type(name, (base,), members), name, url)


def _http_methods(base: type[RelationView]) -> set[str]:
    if issubclass(base, RelationshipMany):
        return {"GET", "PATCH", "POST", "DELETE"}
    return {"GET", "PATCH"} if issubclass(base, RelationshipOne) else {"GET"}
