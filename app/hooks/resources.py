"""/v1/hooks: URLs that start jobs; `trigger_view` handles calls of them."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from flask import Response
from flask_rest_jsonapi_next import Api

from app import webhook_signatures
from app.errors import NotFound
from app.hooks.models import Hook
from app.hooks.permissions import PERMISSIONS, check_fixed_parameters
from app.hooks.schemas import HookSchema
from app.hooks.tokens import build_hook_url, signing_context
from app.hooks.trigger_view import handle_call
from app.jobs.submission import get_kind
from app.jsonapi import repository
from app.jsonapi.base_view import View
from app.jsonapi.current_user import CurrentUser, require_current_user
from app.jsonapi.data_layer import DataLayer
from app.jsonapi.document_parser import ResourceDocument, parse_create
from app.jsonapi.idempotency import REPLAYED_HEADER, run_idempotent
from app.jsonapi.json_parsing import parse_request_body
from app.jsonapi.permissions import AccessContext, Predicate
from app.jsonapi.reader import ResourceReader
from app.jsonapi.relationship_views import register_relationship_routes
from app.jsonapi.resource_type import ResourceType, by_integer_id
from app.jsonapi.resources import ActionView, ResourceDetail, ResourceList, build_creation_response
from app.jsonapi.select_plan import Item
from app.url_tokens import hash_token, new_token
from app.users.reauthentication import require_password


def lookup_hook(name: str) -> tuple[str, Any]:
    """Return the look-up of a hook by its id; raise NotFound, without quoting the name, because it may be a token."""
    lookup = by_integer_id(name)
    if lookup is None:
        raise NotFound("There is no such hook here.")
    return lookup


HOOK = ResourceType(
    schema=HookSchema,
    model=Hook,
    plural="hooks",
    noun="a hook",
    description="URLs that start a job when another system calls them.",
    permissions=PERMISSIONS,
    order=("-id",),
    lookup=lookup_hook,
)


class HookData(DataLayer):
    """Data layer of hooks: the creator is the owner and must be allowed to start the jobs of the hook."""

    def before_create_object(self, data: dict[str, Any], access: AccessContext) -> None:
        require_password(access.viewer)
        data["owner_id"] = access.viewer.id
        data["event_id"] = _get_event_id(data["kind"], data["parameters"], access)

    def before_update_object(self, row: Any, data: dict[str, Any], access: AccessContext) -> None:
        if (data.get("enabled") and not row.enabled) or "deleted_at" in data:
            require_password(access.viewer)  # a hook outlives the access token that enables it
        if "parameters" in data:
            data["event_id"] = _get_event_id(row.kind, data["parameters"], access)

    def update_object(self, row: Any, document: ResourceDocument, access: AccessContext) -> None:
        """Ignore `url` and `secret` when they are sent back with their current value."""
        for name in ("url", "secret"):
            if _is_current_value(row, name, document.attributes.get(name)):
                del document.attributes[name]
        super().update_object(row, document, access)


def _get_event_id(kind_name: str, parameters: Mapping[str, Any], access: AccessContext) -> int | None:
    """Return the id of the event of a hook, None without one; raise like `check_fixed_parameters`."""
    kind = get_kind(kind_name)
    check_fixed_parameters(kind, parameters, access)
    return int(parameters["event"]) if kind.belongs_to_event and "event" in parameters else None


def _is_current_value(row: Any, name: str, sent: Any) -> bool:
    if not isinstance(sent, str) or row.token_hash is None:
        return False
    token = sent.rpartition("/")[2]
    is_url = sent == build_hook_url(token) and hash_token(token) == row.token_hash
    return (
        is_url if name == "url" else sent == webhook_signatures.derive_secret(signing_context(row.id, row.token_hash))
    )


class TokenIssuingView(View):
    """View that issues a new token for a hook."""

    def respond_with_secret(
        self, viewer: CurrentUser, find: Callable[[], Any], reader: ResourceReader, status: HTTPStatus
    ) -> Response:
        """Issue a token and return the response with it; the response stored for an Idempotency-Key has no token."""
        responses_with_token: list[Response] = []

        def issue_token() -> Response:
            token = new_token()
            row = repository.update_row(HOOK, find(), {"token_hash": hash_token(token)})
            document = self.read_back(row, reader)
            if document is None:
                raise NotFound("The hook has just been deleted.")
            responses_with_token.append(build_creation_response(_add_token(document, row, token), status))
            return build_creation_response(document, status)

        response = run_idempotent(viewer, issue_token)
        return response if REPLAYED_HEADER in response.headers else responses_with_token[0]


def _add_token(document: Item, row: Any, token: str) -> Item:
    """Return a copy of the document with the URL and the secret, unless a sparse fieldset excludes them."""
    secret = webhook_signatures.derive_secret(signing_context(row.id, row.token_hash)) if row.signed else None
    one_time_values = {"url": build_hook_url(token), "secret": secret}
    resource = document["data"]
    attributes = {name: one_time_values.get(name, value) for name, value in resource.get("attributes", {}).items()}
    return {**document, "data": {**resource, "attributes": attributes}}


class HookList(TokenIssuingView, ResourceList):
    """The hooks of the current user, newest first; a POST creates one and returns its URL."""

    data_layer = {"class": HookData, "type": HOOK}

    def post(self) -> Response:
        viewer = require_current_user()
        reader = self.make_reader()

        def make() -> Any:
            document = parse_create(parse_request_body(), self.type)
            return self.layer.create_object(document, reader.access)

        return self.respond_with_secret(viewer, make, reader, HTTPStatus.CREATED)


class HookDetail(ResourceDetail):
    """One hook, without its token."""

    data_layer = {"class": HookData, "type": HOOK}


class RotateHook(TokenIssuingView, ActionView):
    """Replace the URL of a hook; the old URL stops working at once."""

    data_layer = {"class": HookData, "type": HOOK}
    methods = {"POST"}

    @classmethod
    def predicates_by_method(cls) -> Mapping[str, Predicate]:
        return {"POST": PERMISSIONS.update}

    def post(self, id: str) -> Response:
        viewer = require_current_user()
        reader = self.make_reader()

        def find() -> Any:
            row = self.lock_row(id, reader.access)
            reader.access.require_permission(PERMISSIONS.update, row)
            require_password(viewer)
            return row

        return self.respond_with_secret(viewer, find, reader, HTTPStatus.OK)


def route(api: Api) -> None:
    """Register the routes of hooks; in a call the last segment is the token."""
    api.route(HookList, "hook_list", "/hooks")
    api.route(HookDetail, "hook_detail", "/hooks/<id>")
    api.route(RotateHook, "hook_rotate", "/hooks/<id>/rotate")
    api.blueprint.add_url_rule("/hooks/<id>", "hook_receive", handle_call, methods=["POST"])
    register_relationship_routes(api, HOOK, HookData)
