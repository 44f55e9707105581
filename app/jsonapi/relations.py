"""The URLs below a resource: related resources and relationships, made for every relationship of a type."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from flask import Response
from flask_rest_jsonapi_next import Api
from flask_rest_jsonapi_next import ResourceDetail as LibraryDetail
from flask_rest_jsonapi_next import ResourceList as LibraryList
from flask_rest_jsonapi_next import ResourceRelationship as LibraryRelationship

from app.errors import NotFound
from app.jsonapi.body import read_document
from app.jsonapi.documents import read_linkage
from app.jsonapi.idempotency import TAKES_KEY, answered_once
from app.jsonapi.permissions import Predicate, nobody
from app.jsonapi.plan import Item
from app.jsonapi.query import DETAIL, LINKAGE, LIST, PAGED_LINKAGE
from app.jsonapi.reading import JSONAPI, Part, Reader
from app.jsonapi.resource_type import Relation, ResourceType
from app.jsonapi.statements import of_parent
from app.jsonapi.view import View, answer, path, self_link
from app.jsonapi.viewer import signed_in_viewer
from app.jsonapi.writing import LAYERS, DataLayer, Mode


class RelationView(View):
    """A URL below a resource that names one of its relationships."""

    relation: ClassVar[Relation]


class RelatedList(RelationView, LibraryList):  # type: ignore[misc]  # same
    """GET of the resources a to-many relationship holds."""

    families = {"GET": LIST}

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        return {"GET": cls.relation.target.permissions.read}

    def is_list(self) -> bool:
        return True

    def get(self, id: str) -> Response:
        self.allow(self.relation.target.permissions.read)
        reader = self.reader(self.relation.target, id)
        part = Part(of_parent(self.relation), reader.find(self.type, id))
        target = self.relation.target
        return self.collection(reader, lambda reader: reader.collection(target, path(), part, related=True))


class RelatedOne(RelationView, LibraryDetail):  # type: ignore[misc]  # same
    """GET of the resource a to-one relationship names: null where it names none, 404 where it is not shown."""

    families = {"GET": DETAIL}

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        return {"GET": cls.relation.target.permissions.read}

    def get(self, id: str) -> Response:
        target = self.relation.target
        self.allow(target.permissions.read)
        reader = self.reader(target, id)
        linked = reader.linkage(self.type, reader.find(self.type, id), self.relation, path())["data"]
        if linked is None:
            nothing: Item = {"included": []} if reader.query.includes_asked else {}
            return answer({"data": None, **nothing, "links": {"self": self_link()}, "jsonapi": JSONAPI})
        document = reader.resource(target, target.parse_id(linked["id"]), related=True)
        if document is None:
            raise NotFound(f"This {target.name} is not shown.")
        return answer({**document, "links": {"self": self_link()}})


class RelationshipOne(RelationView, LibraryRelationship):  # type: ignore[misc]  # same
    """GET and PATCH of the linkage of a to-one relationship."""

    families = {"GET": LINKAGE, "PATCH": LINKAGE}

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        return {"GET": cls._data_layer.type.permissions.read, "PATCH": cls.change_rule()}

    @classmethod
    def change_rule(cls) -> Predicate:
        """Who may change the relationship: nobody, where it is only ever changed from the other side."""
        permissions = cls._data_layer.type.permissions
        return nobody if cls.relation.field.dump_only else permissions.may_relate(cls.relation.name)

    def get(self, id: str) -> Response:
        self.allow(self.type.permissions.read)
        reader = self.reader(name=id)
        id_ = reader.find(self.type, id)

        def read(reader: Reader) -> Item:
            return reader.linkage(self.type, id_, self.relation, path())

        return self.collection(reader, read) if self.relation.many else answer(read(reader))

    def patch(self, id: str) -> Response:
        return self.committed(self.write(id, "replace"))

    def write(self, id: str, mode: Mode) -> Response:
        """The answer to a change of the linkage, nothing committed yet."""
        signed_in_viewer()
        reader = replace(self.reader(name=id), with_cursors=False)
        linkage = read_linkage(read_document(), self.relation)
        row = self.row(id, reader.access)
        self.check_precondition(lambda: reader.linkage(self.type, row.id, self.relation, path()))
        self.layer.update_relationship(row, self.relation, linkage, mode, reader.access)
        return answer(reader.linkage(self.type, row.id, self.relation, path()))


class RelationshipMany(RelationshipOne):
    """GET, PATCH, POST and DELETE of the linkage of a to-many relationship."""

    families = {"GET": PAGED_LINKAGE, "PATCH": LINKAGE, "POST": LINKAGE, "DELETE": LINKAGE}
    keyed_methods = TAKES_KEY

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        change = cls.change_rule()
        return {"GET": cls._data_layer.type.permissions.read, "PATCH": change, "POST": change, "DELETE": change}

    def is_list(self) -> bool:
        return True

    def post(self, id: str) -> Response:
        def check_rights(_linkage: Any) -> None:
            access = self.reader(name=id).access.with_trash()
            access.require(self.type.permissions.may_relate(self.relation.name), self.row(id, access))

        return answered_once(signed_in_viewer(), lambda: self.write(id, "add"), check_rights=check_rights)

    def delete(self, id: str) -> Response:
        return self.committed(self.write(id, "remove"))


def route_relations(api: Api, type_: ResourceType, layer: type[DataLayer]) -> None:
    """The related and the relationship URL of every relationship of a type; from now on its data layer is known."""
    LAYERS[type_.name] = layer({"type": type_})
    for relation in type_.relations.values():
        related, relationship = (RelatedList, RelationshipMany) if relation.many else (RelatedOne, RelationshipOne)
        for base, prefix, url in (
            (related, "related", f"/{type_.plural}/<id>/{relation.key}"),
            (relationship, "relationship", f"/{type_.plural}/<id>/relationships/{relation.key}"),
        ):
            name = f"{type_.name}_{prefix}_{relation.name}"
            methods = _methods(base)
            members = {"data_layer": {"class": layer, "type": type_}, "relation": relation, "methods": methods}
            api.route(type(name, (base,), members), name, url)


def _methods(base: type[RelationView]) -> set[str]:
    if issubclass(base, RelationshipMany):
        return {"GET", "PATCH", "POST", "DELETE"}
    return {"GET", "PATCH"} if issubclass(base, RelationshipOne) else {"GET"}
