"""Views: the library's resource classes, with reading, writing and rights of our own behind them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any, ClassVar

import orjson
from flask import Response, current_app, request
from flask_rest_jsonapi_next import Api
from flask_rest_jsonapi_next import ResourceDetail as LibraryDetail
from flask_rest_jsonapi_next import ResourceList as LibraryList
from flask_rest_jsonapi_next import ResourceRelationship as LibraryRelationship

from app.errors import MEDIA_TYPE, Conflict, NotFound, PreconditionFailed
from app.extensions import db
from app.jsonapi.body import read_json
from app.jsonapi.cursors import PROFILE
from app.jsonapi.documents import read_changed_resource, read_linkage, read_new_resource
from app.jsonapi.filters import Build
from app.jsonapi.idempotency import answered_once
from app.jsonapi.negotiation import asks_for_profile, check_accept, check_content_type
from app.jsonapi.permissions import Access, Predicate, anyone, nobody, words
from app.jsonapi.plan import Item
from app.jsonapi.query import DETAIL, LINKAGE, LIST, PAGED_LINKAGE, WRITE, Query, read_query
from app.jsonapi.reading import JSONAPI, Reader, of_parent
from app.jsonapi.resource_type import Relation, ResourceType, parse_id
from app.jsonapi.viewer import current_viewer, signed_in_viewer
from app.jsonapi.writing import LAYERS, DataLayer, Mode

BODY_METHODS = frozenset({"POST", "PATCH"})


class View:
    """What all views share; `data_layer` is declared as the library wants it: `{"class": ..., "type": ...}`."""

    _data_layer: ClassVar[DataLayer]
    decorators: ClassVar[tuple[Any, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.decorators = ()  # the library's header check refuses `profile` and `q`; ours is in dispatch_request

    @property
    def layer(self) -> DataLayer:
        """The data layer of the resource."""
        return self._data_layer

    @property
    def type(self) -> ResourceType:
        """The type of the resource, or of the parent where the URL names a relationship."""
        return self._data_layer.type

    @classmethod
    def permissions_by_method(cls) -> dict[str, str]:
        """The rule of every method, in words."""
        return {method: words(predicate) for method, predicate in cls.rules().items()}

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        """The predicate behind every method of this view."""
        raise NotImplementedError

    def dispatch_request(self, **names: str) -> Response:
        """Negotiate, open the right kind of transaction, answer; what fails leaves nothing behind."""
        check_accept(request.headers)
        if request.method in BODY_METHODS or request.content_length:
            check_content_type(request.headers)
        if request.method in ("GET", "HEAD"):
            # A read needs no BEGIN and no ROLLBACK around it: two round trips less.
            db.session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        handler = getattr(self, "get" if request.method == "HEAD" else request.method.lower())
        try:
            answer: Response = handler(**names)
        except BaseException:
            db.session.rollback()
            raise
        return answer

    def reader(self, allowed: frozenset[str], of: ResourceType | None = None, name: str | None = None) -> Reader:
        """Reads what this request asks of a type; `name` is the URL segment that may name a private event."""
        query = self.query(allowed, of or self.type)
        viewer = current_viewer()
        with_cursors = asks_for_profile(request.headers, PROFILE)
        return Reader(Access(viewer, query.scope, _capability(name)), query, with_cursors)

    def query(self, allowed: frozenset[str], of: ResourceType) -> Query:
        """The query string, read."""
        return read_query(request.query_string, of, current_viewer(), allowed)

    def committed(self, response: Response) -> Response:
        """Commit once the answer is printed, so that no 500 can follow a stored row."""
        db.session.commit()
        return response

    def collection(self, reader: Reader, document: Item) -> Response:
        """A list as a response; it names the profile that shaped it."""
        return answer(document, profile=PROFILE if reader.by_cursor else None)

    def check_precondition(self, current: Callable[[], Item | None]) -> None:
        """412 when If-Match names another state than the current one; the row is locked (RFC 9110, 13.1.1)."""
        if not request.if_match:
            return
        document = current()
        if document is None or not request.if_match.contains(_tag(orjson.dumps(document))):
            raise PreconditionFailed("It has changed since you read it.", header="If-Match")

    def row(self, name: str, access: Access) -> Any:
        """The row a URL segment names, locked; 404 where there is none for this caller."""
        where = self.type.lookup(self.type.table, name)
        row = None if where is None else self.layer.get_object(where, access)
        if row is None:
            raise NotFound(f"There is no {self.type.name} {name[:80]!r} here.")
        return row

    def stored(self, row: Any, reader: Reader) -> Item | None:
        """The document of a row just written, as its author sees it; None when he no longer does."""
        access = self.layer.answer_access(row, reader.access)
        return Reader(access, reader.query).resource(self.type, self.type.table.c.id == row.id)


class ResourceList(View, LibraryList):  # type: ignore[misc]  # the library carries no types
    """GET and POST of a collection."""

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        permissions = cls._data_layer.type.permissions
        return {"GET": permissions.list, "POST": permissions.create}

    order: ClassVar[tuple[str, ...] | None] = None

    def narrowing(self) -> Build | None:
        """Which rows of the type are in this collection: all, unless a package says otherwise."""
        return None

    def get(self) -> Response:
        reader = self.reader(LIST)
        reader.access.require(self.type.permissions.list, None)
        return self.collection(reader, reader.collection(self.type, _path(), self.narrowing(), order=self.order))

    def post(self) -> Response:
        if self.type.permissions.create is not anyone:
            signed_in_viewer()
        reader = self.reader(WRITE)
        return answered_once(reader.access.viewer, lambda: self.create(reader))

    def create(self, reader: Reader) -> Response:
        """The answer to a POST, nothing committed yet."""
        document = read_new_resource(read_json(request.get_data()), self.type)
        row = self.layer.create_object(document, reader.access)
        stored = self.stored(row, reader)
        if stored is None:
            raise RuntimeError("the author of a new resource cannot see it")
        link = stored["data"]["links"]["self"]
        response = answer({**stored, "links": {"self": link}}, 201)
        response.headers["Location"] = current_app.config["PUBLIC_URL"] + link
        return response


class ResourceDetail(View, LibraryDetail):  # type: ignore[misc]  # same
    """GET, PATCH and DELETE of one resource."""

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        permissions = cls._data_layer.type.permissions
        return {"GET": permissions.read, "PATCH": permissions.update, "DELETE": permissions.delete}

    def get(self, id: str) -> Response:
        reader = self.reader(DETAIL, name=id)
        reader.access.require(self.type.permissions.read, None)
        where = self.type.lookup(self.type.table, id)
        document = None if where is None else reader.resource(self.type, where)
        if document is None:
            raise NotFound(f"There is no {self.type.name} {id[:80]!r} here.")
        return answer({**document, "links": {"self": _self()}})

    def patch(self, id: str) -> Response:
        signed_in_viewer()
        reader = self.reader(WRITE, name=id)
        document = read_changed_resource(read_json(request.get_data()), self.type)
        row = self.row(id, reader.access)
        if document.id != str(row.id):
            raise Conflict("The id is not the one in the URL.", pointer="/data/id", code="id-conflict")
        self.check_precondition(lambda: self.plain(row, reader))
        self.layer.update_object(row, document, reader.access)
        stored = self.stored(row, reader)
        return self.committed(
            Response(status=204) if stored is None else answer({**stored, "links": {"self": _path()}})
        )

    def delete(self, id: str) -> Response:
        signed_in_viewer()
        reader = self.reader(LINKAGE, name=id)
        row = self.row(id, reader.access)
        self.check_precondition(lambda: self.plain(row, reader))
        self.layer.delete_object(row, reader.access)
        return self.committed(answer({"meta": {"message": "Object successfully deleted"}, "jsonapi": JSONAPI}))

    def plain(self, row: Any, reader: Reader) -> Item | None:
        """What a GET without parameters would say of the row now."""
        document = replace(reader, query=Query(reader.query.scope)).resource(self.type, self.type.table.c.id == row.id)
        return document and {**document, "links": {"self": _path()}}


class RelationView(View):
    """A URL below a resource that names one of its relationships."""

    relation: ClassVar[Relation]


class RelatedList(RelationView, LibraryList):  # type: ignore[misc]  # same
    """GET of the resources a to-many relationship holds."""

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        return {"GET": cls.relation.target.permissions.read}

    def get(self, id: str) -> Response:
        reader = self.reader(LIST, self.relation.target, id)
        reader.access.require(self.relation.target.permissions.read, None)
        parent = reader.find(self.type, id)
        narrowing = of_parent(self.relation, parent)
        found = reader.collection(self.relation.target, _path(), narrowing, related=True, exact=True)
        return self.collection(reader, found)


class RelatedOne(RelationView, LibraryDetail):  # type: ignore[misc]  # same
    """GET of the resource a to-one relationship names: null where it names none, 404 where it is not shown."""

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        return {"GET": cls.relation.target.permissions.read}

    def get(self, id: str) -> Response:
        target = self.relation.target
        reader = self.reader(DETAIL, target, id)
        reader.access.require(target.permissions.read, None)
        linked = reader.linkage(self.type, reader.find(self.type, id), self.relation, _path())["data"]
        if linked is None:
            return answer({"data": None, "links": {"self": _self()}, "jsonapi": JSONAPI})
        document = reader.resource(target, target.table.c.id == int(linked["id"]), related=True)
        if document is None:
            raise NotFound(f"This {target.name} is not shown.")
        return answer({**document, "links": {"self": _self()}})


class RelationshipOne(RelationView, LibraryRelationship):  # type: ignore[misc]  # same
    """GET and PATCH of the linkage of a to-one relationship."""

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        return {"GET": cls._data_layer.type.permissions.read, "PATCH": cls.change_rule()}

    @classmethod
    def change_rule(cls) -> Predicate:
        """Who may change the relationship: nobody, where it is only ever changed from the other side."""
        permissions = cls._data_layer.type.permissions
        return nobody if cls.relation.field.dump_only else permissions.may_relate(cls.relation.name)

    allowed: ClassVar[frozenset[str]] = LINKAGE

    def get(self, id: str) -> Response:
        reader = self.reader(self.allowed, name=id)
        reader.access.require(self.type.permissions.read, None)
        return answer(reader.linkage(self.type, reader.find(self.type, id), self.relation, _path()))

    def patch(self, id: str) -> Response:
        return self.committed(self.write(id, "replace"))

    def write(self, id: str, mode: Mode) -> Response:
        """The answer to a change of the linkage, nothing committed yet."""
        signed_in_viewer()
        reader = self.reader(LINKAGE, name=id)
        linkage = read_linkage(read_json(request.get_data()), self.relation)
        row = self.row(id, reader.access)
        self.check_precondition(lambda: reader.linkage(self.type, row.id, self.relation, _path()))
        self.layer.update_relationship(row, self.relation, linkage, mode, reader.access)
        return answer(reader.linkage(self.type, row.id, self.relation, _path()))


class RelationshipMany(RelationshipOne):
    """GET, PATCH, POST and DELETE of the linkage of a to-many relationship."""

    allowed = PAGED_LINKAGE

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        change = cls.change_rule()
        return {"GET": cls._data_layer.type.permissions.read, "PATCH": change, "POST": change, "DELETE": change}

    def post(self, id: str) -> Response:
        return answered_once(signed_in_viewer(), lambda: self.write(id, "add"))

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


def answer(document: Item, status: int = 200, *, profile: str | None = None, extension: str | None = None) -> Response:
    """A JSON:API document as a response; its ETag is a hash of the bytes, which differ by URL and caller."""
    body = orjson.dumps(document)
    parameters = {"ext": extension, "profile": profile}
    content_type = MEDIA_TYPE + "".join(f'; {name}="{uri}"' for name, uri in parameters.items() if uri is not None)
    response = Response(body, status=status, content_type=content_type)
    response.headers["Vary"] = "Accept, Authorization"
    response.set_etag(_tag(body))
    if request.method in ("GET", "HEAD"):
        response.make_conditional(request)
    return response


def _tag(body: bytes) -> str:
    return blake2b(body, digest_size=16).hexdigest()


def _capability(name: str | None) -> str | None:
    return name if name is not None and parse_id(name) is None else None


def _path() -> str:
    return request.path.rstrip("/")


def _self() -> str:
    query = request.query_string.decode("ascii", "replace")
    return f"{_path()}?{query}" if query else _path()
