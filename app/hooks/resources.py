"""/v1/hooks: URLs that start jobs; a POST to one of them is received in `receiving`."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from flask import Response
from flask_rest_jsonapi_next import Api

from app import signatures
from app.errors import NotFound
from app.hooks.models import Hook
from app.hooks.permissions import PERMISSIONS, require_fixing
from app.hooks.receiving import receive
from app.hooks.schemas import HookSchema
from app.hooks.tokens import hook_url, signing
from app.jobs.submission import kind_named
from app.jsonapi import rows
from app.jsonapi.body import read_document
from app.jsonapi.documents import ResourceDocument, read_new_resource
from app.jsonapi.idempotency import REPLAYED, answered_once
from app.jsonapi.permissions import Access, Predicate
from app.jsonapi.plan import Item
from app.jsonapi.reading import Reader
from app.jsonapi.relations import route_relations
from app.jsonapi.resource_type import ResourceType, by_number
from app.jsonapi.resources import Command, ResourceDetail, ResourceList, located
from app.jsonapi.view import View
from app.jsonapi.viewer import Viewer, signed_in_viewer
from app.jsonapi.writing import DataLayer
from app.url_tokens import new_token, token_hash
from app.users.reauthentication import require_password


def lookup(name: str) -> tuple[str, Any]:
    """A hook by its id; what is none may be a token, which no error repeats."""
    named = by_number(name)
    if named is None:
        raise NotFound("There is no such hook here.")
    return named


HOOK = ResourceType(
    schema=HookSchema,
    model=Hook,
    plural="hooks",
    noun="a hook",
    description="URLs that start a job when another system calls them.",
    permissions=PERMISSIONS,
    order=("-id",),
    lookup=lookup,
)


class HookData(DataLayer):
    """A hook starts, for its owner, what its owner may start."""

    def before_create_object(self, data: dict[str, Any], access: Access) -> None:
        require_password(access.viewer)
        data["owner_id"] = access.viewer.id
        data["event_id"] = _event_of(data["kind"], data["parameters"], access)

    def before_update_object(self, row: Any, data: dict[str, Any], access: Access) -> None:
        if (data.get("enabled") and not row.enabled) or "deleted_at" in data:
            require_password(access.viewer)  # a hook works on after the token of whoever enables it
        if "parameters" in data:
            data["event_id"] = _event_of(row.kind, data["parameters"], access)

    def update_object(self, row: Any, document: ResourceDocument, access: Access) -> None:
        """Clients that send back all they know send what they were shown, too."""
        for name in ("url", "secret"):
            if _was_shown(row, name, document.attributes.get(name)):
                del document.attributes[name]
        super().update_object(row, document, access)


def _event_of(kind_name: str, parameters: Mapping[str, Any], access: Access) -> int | None:
    """The event that a hook belongs to; 422, 403 or 404 where its parameters may not be fixed."""
    kind = kind_named(kind_name)
    require_fixing(kind, parameters, access)
    return int(parameters["event"]) if kind.about_event and "event" in parameters else None


def _was_shown(row: Any, name: str, sent: Any) -> bool:
    if not isinstance(sent, str) or row.token_hash is None:
        return False
    token = sent.rpartition("/")[2]
    is_url = sent == hook_url(token) and token_hash(token) == row.token_hash
    return is_url if name == "url" else sent == signatures.secret(signing(row.id, row.token_hash))


class TokenView(View):
    """A view that gives a hook a new token."""

    def shown_once(self, viewer: Viewer, find: Callable[[], Any], reader: Reader, status: HTTPStatus) -> Response:
        """The answer that shows the token; what an Idempotency-Key keeps for a day does not hold it."""
        shown: list[Response] = []

        def kept() -> Response:
            token = new_token()
            row = rows.change(HOOK, find(), {"token_hash": token_hash(token)})
            document = self.stored(row, reader)
            if document is None:
                raise NotFound("The hook has just gone away.")
            shown.append(located(_with_token(document, row, token), status))
            return located(document, status)

        answered = answered_once(viewer, kept)
        return answered if REPLAYED in answered.headers else shown[0]


def _with_token(document: Item, row: Any, token: str) -> Item:
    """The document with the URL and the secret, where those attributes are asked for."""
    secret = signatures.secret(signing(row.id, row.token_hash)) if row.signed else None
    shown = {"url": hook_url(token), "secret": secret}
    resource = document["data"]
    attributes = {name: shown.get(name, value) for name, value in resource.get("attributes", {}).items()}
    return {**document, "data": {**resource, "attributes": attributes}}


class HookList(TokenView, ResourceList):
    """The caller's hooks, the newest first; a POST makes one and shows its URL."""

    data_layer = {"class": HookData, "type": HOOK}

    def post(self) -> Response:
        viewer = signed_in_viewer()
        reader = self.reader()

        def make() -> Any:
            document = read_new_resource(read_document(), self.type)
            return self.layer.create_object(document, reader.access)

        return self.shown_once(viewer, make, reader, HTTPStatus.CREATED)


class HookDetail(ResourceDetail):
    """One hook, without its token."""

    data_layer = {"class": HookData, "type": HOOK}


class RotateHook(TokenView, Command):
    """A POST without a body that gives a hook another URL; the old one is void at once."""

    data_layer = {"class": HookData, "type": HOOK}
    methods = {"POST"}

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        return {"POST": PERMISSIONS.update}

    def post(self, id: str) -> Response:
        viewer = signed_in_viewer()
        reader = self.reader()

        def find() -> Any:
            row = self.row(id, reader.access)
            reader.access.require(PERMISSIONS.update, row)
            require_password(viewer)
            return row

        return self.shown_once(viewer, find, reader, HTTPStatus.OK)


def route(api: Api) -> None:
    """The URLs of hooks; the last segment of one that is called is its token."""
    api.route(HookList, "hook_list", "/hooks")
    api.route(HookDetail, "hook_detail", "/hooks/<id>")
    api.route(RotateHook, "hook_rotate", "/hooks/<id>/rotate")
    api.blueprint.add_url_rule("/hooks/<id>", "hook_receive", receive, methods=["POST"])
    route_relations(api, HOOK, HookData)
