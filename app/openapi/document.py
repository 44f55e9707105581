"""The OpenAPI document: paths from the URL map, components from the resource types."""

import re
from collections.abc import Iterator
from typing import Any

import orjson
from flask import Flask
from werkzeug.routing import Rule

from app.jsonapi.atomic_operations import OperationsView
from app.jsonapi.base_view import View
from app.jsonapi.inflection import camelize
from app.jsonapi.resource_type import TYPES
from app.openapi import filters, hooks, jobs, parameters, plain_routes, resources, responses, treatments
from app.openapi.field_schemas import build_enum_schemas, document_link_schema
from app.openapi.inline_schemas import hoist_bodies
from app.openapi.json_schema import Json, check_component_names, component_name, component_ref
from app.openapi.request_schemas import build_request_schemas, operations_request_schemas
from app.openapi.response_schemas import build_response_schemas, build_shared_schemas
from app.openapi.tags import build_tags
from app.routes import list_routes

EXCLUDED_PREFIXES = (
    "/docs",
    "/files/",
    "/jobs",
    "/overview",
    "/static/",
    "/favicon.ico",
    "/robots.txt",
    "/.well-known/",
)
"""Paths that the document leaves out: pages, files, and well-known URLs of other protocols."""

HEALTH_SCHEMAS = {"health.live": "Alive", "health.ready": "HealthReport", "health.check": "HealthReport"}
OPERATION_BUILDERS = {
    "home.": plain_routes.build_entry_operation,
    "accounts.": plain_routes.build_account_operation,
    "openapi.": plain_routes.build_openapi_operation,
    "uploads.": plain_routes.build_image_operation,
    "resize.": plain_routes.build_image_operation,
    "v1.hook_receive": hooks.build_call_operation,
    "v1.job_callback": treatments.build_callback_operation,
    "v1.job_document": treatments.build_document_operation,
    "v1.job_progress": jobs.build_progress_operation,
    "v1.job_kind": jobs.build_kind_operation,
}
"""Functions that describe routes without a resource type, by the prefix of the endpoint."""
SECURITY_SCHEMES = {
    "jwt": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`JWT <access token>`, from POST /v1/auth/login.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "`Bearer <access token>`, with the same token.",
    },
}
REQUIRED_SECURITY: list[Json] = [{"jwt": []}, {"bearer": []}]
OPTIONAL_SECURITY: list[Json] = [{}, *REQUIRED_SECURITY]

PERMISSION_TEXTS = {
    "anyone": "Requires no permission.",
    "no one": "Read-only: this request is always rejected.",
}
"""Sentences for permissions that need their own."""

DESCRIPTION = """\
JSON:API 1.1 at `/v1`. Names are dashed; underscored names, plural types and ids as numbers are accepted too. Bodies \
may be sent as `application/json`. HEAD and OPTIONS are supported wherever GET is; other methods return 405.

Filters: `filter[name]=value` selects resources by the value of an attribute or to-one relationship. \
`filter[name][operator]=value` compares it with another operator, and `filter` takes a JSON list of terms. Lists in \
query parameters are separated by commas.

The description of each operation says which permission it requires."""


def build_document(app: Flask) -> Json:
    """Return the OpenAPI 3.1 document of this app."""
    document: Json = {
        "openapi": "3.1.1",
        "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
        "info": {
            "title": "Open Event API",
            "version": "1",
            "description": DESCRIPTION,
            "contact": {"name": "Open Event API", "url": app.config["PUBLIC_URL"]},
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": app.config["PUBLIC_URL"], "description": "This server"}],
        "tags": build_tags(),
        "paths": _build_paths(app),
        "components": _build_components(),
    }
    hoist_bodies(document)
    _remove_unused_components(document)
    check_component_names(name for section in document["components"].values() for name in section)
    return document


def _remove_unused_components(document: Json) -> None:
    """Remove components that no operation uses, such as the request bodies of a read-only type."""
    components = document["components"]
    while unused := {
        (section, name)
        for section in ("schemas", "parameters", "responses")
        for name in components[section].keys() - _find_references(document, f"#/components/{section}/")
    }:
        for section, name in unused:
            del components[section][name]


def _find_references(value: Any, section: str) -> set[str]:
    """Return the names of the components of this section that the value references."""
    return set(re.findall(f'"{section}([^"]+)"', orjson.dumps(value).decode()))


def _build_components() -> Json:
    types = list(TYPES.values())
    return {
        "schemas": {
            **build_shared_schemas(),
            **plain_routes.build_health_schemas(),
            **jobs.build_kind_schemas(),
            **hooks.build_call_schemas(),
            **operations_request_schemas(),
            "DocumentLink": document_link_schema(),
            **{name: schema for each in types for name, schema in build_enum_schemas(each).items()},
            **{component_name(each, "term"): filters.term_schema(each) for each in types},
            **{name: schema for each in types for name, schema in parameters.build_parameter_schemas(each).items()},
            **{
                name: schema
                for each in types
                for name, schema in (build_response_schemas(each) | build_request_schemas(each)).items()
            },
        },
        "parameters": {
            **parameters.build_shared_parameters(),
            **{name: made for each in types for name, made in parameters.build_parameter_components(each).items()},
        },
        "headers": responses.build_headers(),
        "responses": responses.build_error_responses(),
        "securitySchemes": SECURITY_SCHEMES,
    }


def _build_paths(app: Flask) -> Json:
    """Return the path items by path, without the trailing slash that the server accepts too."""
    permissions = {route["path"]: route["permissions"] for route in list_routes(app)}
    paths: dict[str, Json] = {}
    for rule in sorted(_iterate_rules(app), key=lambda rule: rule.rule):
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule.rstrip("/"))
        item = paths.setdefault(path, _build_path_item(rule))
        for method, permission in permissions[rule.rule].items():
            if method in (rule.methods or ()):
                item[method.lower()] = _build_operation(app, rule, method, permission)
    return paths


def _iterate_rules(app: Flask) -> Iterator[Rule]:
    for rule in app.url_map.iter_rules():
        if is_documented(rule.rule):
            yield rule


def is_documented(path: str) -> bool:
    """Return whether the document describes this path; it leaves out the home page, which is /v1 as HTML."""
    return path != "/" and not path.startswith(EXCLUDED_PREFIXES)


def _build_path_item(rule: Rule) -> Json:
    named = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in sorted(rule.arguments)
    ]
    return {"parameters": [*named, component_ref("RequestId", "parameters")]}


def _build_operation(app: Flask, rule: Rule, method: str, permission: str) -> Json:
    described = _build_view_operation(app.view_functions[rule.endpoint], rule.endpoint, method)
    sentence = PERMISSION_TEXTS.get(permission, f"Required permission: {permission}.")
    return {
        "operationId": _get_operation_id(rule, method),
        **described,
        "responses": dict(sorted(described["responses"].items())),
        "description": f"{described['description']}\n\n{sentence}" if "description" in described else sentence,
        "security": OPTIONAL_SECURITY if permission.startswith("anyone") else REQUIRED_SECURITY,
    }


def _build_view_operation(view: Any, endpoint: str, method: str) -> Json:
    view_class = getattr(view, "view_class", None)
    if view_class is OperationsView:
        return resources.build_atomic_operation()
    if view_class is not None and issubclass(view_class, View):
        return resources.build_operation(view_class, method)
    if endpoint in HEALTH_SCHEMAS:
        return plain_routes.build_health_operation(view, HEALTH_SCHEMAS[endpoint])
    for prefix, describe in OPERATION_BUILDERS.items():
        if endpoint.startswith(prefix):
            return describe(view)
    raise LookupError(f"{endpoint} is not described yet")


def _get_operation_id(rule: Rule, method: str) -> str:
    """Return the operationId of a plain route, or one made of its method and path."""
    named = plain_routes.OPERATION_IDS_BY_PATH.get(rule.rule) or plain_routes.OPERATION_IDS.get(rule.endpoint)
    return named or camelize("-".join([method.lower(), *re.findall(r"[a-z0-9]+", rule.rule.lower())]))
