"""The OpenAPI document: paths from the URL map, components from the resource types."""

import re
from collections.abc import Iterator
from typing import Any

import orjson
from flask import Flask
from werkzeug.routing import Rule

from app.jsonapi.naming import camelize
from app.jsonapi.operations import OperationsView
from app.jsonapi.resource_type import TYPES
from app.jsonapi.view import View
from app.openapi import filters, hooks, jobs, parameters, plain, resources, responses, treatments
from app.openapi.answers import answers_of, shared_answers
from app.openapi.bodies import bodies_of, operations_taken
from app.openapi.fields import choices_of, document_link
from app.openapi.inline_schemas import hoist_bodies
from app.openapi.json_schema import Json, check_names, component, reference
from app.openapi.tags import tags
from app.routes import listed

UNDESCRIBED = ("/docs", "/files/", "/jobs", "/overview", "/static/", "/favicon.ico", "/robots.txt", "/.well-known/")
"""Pages, files, and a protocol of others: nothing that a client of the API calls."""

HEALTH = {"health.live": "Alive", "health.ready": "HealthReport", "health.check": "HealthReport"}
OTHERS = {
    "home.": plain.described_entry,
    "accounts.": plain.described_account,
    "openapi.": plain.described_description,
    "uploads.": plain.described_image,
    "resize.": plain.described_image,
    "v1.hook_receive": hooks.described_call,
    "v1.job_callback": treatments.described_callback,
    "v1.job_document": treatments.described_document,
    "v1.job_progress": jobs.described_progress,
    "v1.job_kind": jobs.described_kinds,
}
"""Routes that are not resources, by how their endpoints begin."""
SCHEMES = {
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
SIGNED_IN: list[Json] = [{"jwt": []}, {"bearer": []}]
ANYONE: list[Json] = [{}, *SIGNED_IN]

PERMISSIONS = {
    "anyone": "Requires no permission.",
    "nobody": "Read-only: this request is always refused.",
}
"""Sentences for permissions that are not required, or that no caller has."""

DESCRIPTION = """\
JSON:API 1.1 at `/v1`. Names are dashed; underscored names, plural types and ids as numbers are accepted too. Bodies \
may be sent as `application/json`. HEAD and OPTIONS are answered wherever GET is, and 405 for any other method.

Filters: `filter[name]=value` finds an attribute or to-one relationship with this value. \
`filter[name][operator]=value` compares it with another operator, and `filter` takes a JSON list of terms. Lists in \
query parameters are separated by commas.

The description of each operation says which permission it requires."""


def build(app: Flask) -> Json:
    """The OpenAPI 3.1 document of this app."""
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
        "tags": tags(),
        "paths": _paths(app),
        "components": _components(),
    }
    hoist_bodies(document)
    _drop_unused(document)
    check_names(name for section in document["components"].values() for name in section)
    return document


def _drop_unused(document: Json) -> None:
    """Remove components that were made for every type and are used for some: a read-only type has no bodies."""
    components = document["components"]
    while unused := {
        (section, name)
        for section in ("schemas", "parameters", "responses")
        for name in components[section].keys() - _references(document, f"#/components/{section}/")
    }:
        for section, name in unused:
            del components[section][name]


def _references(value: Any, section: str) -> set[str]:
    """Return the names of the components of this section that are referred to."""
    return set(re.findall(f'"{section}([^"]+)"', orjson.dumps(value).decode()))


def _components() -> Json:
    types = list(TYPES.values())
    return {
        "schemas": {
            **shared_answers(),
            **plain.plain_answers(),
            **jobs.kind_answers(),
            **hooks.hook_answers(),
            **operations_taken(),
            "DocumentLink": document_link(),
            **{name: schema for each in types for name, schema in choices_of(each).items()},
            **{component(each, "term"): filters.term_of(each) for each in types},
            **{name: schema for each in types for name, schema in parameters.schemas_of(each).items()},
            **{name: schema for each in types for name, schema in (answers_of(each) | bodies_of(each)).items()},
        },
        "parameters": {
            **parameters.shared_parameters(),
            **{name: made for each in types for name, made in parameters.components_of(each).items()},
        },
        "headers": responses.shared_headers(),
        "responses": responses.shared_responses(),
        "securitySchemes": SCHEMES,
    }


def _paths(app: Flask) -> Json:
    """Return every path once, without the trailing slash that the server accepts too."""
    permissions = {route["path"]: route["permissions"] for route in listed(app)}
    paths: dict[str, Json] = {}
    for rule in sorted(_rules(app), key=lambda rule: rule.rule):
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule.rstrip("/"))
        item = paths.setdefault(path, _item(rule))
        for method, words in permissions[rule.rule].items():
            if method in (rule.methods or ()):
                item[method.lower()] = _operation(app, rule, method, words)
    return paths


def _rules(app: Flask) -> Iterator[Rule]:
    for rule in app.url_map.iter_rules():
        if is_described(rule.rule):
            yield rule


def is_described(path: str) -> bool:
    """Return whether the document describes this path; not the home page, whose other representation is /v1."""
    return path != "/" and not path.startswith(UNDESCRIBED)


def _item(rule: Rule) -> Json:
    named = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in sorted(rule.arguments)
    ]
    return {"parameters": [*named, reference("RequestId", "parameters")]}


def _operation(app: Flask, rule: Rule, method: str, permission: str) -> Json:
    described = _described(app.view_functions[rule.endpoint], rule.endpoint, method)
    words = PERMISSIONS.get(permission, f"Required permission: {permission}.")
    return {
        "operationId": _operation_id(rule, method),
        **described,
        "responses": dict(sorted(described["responses"].items())),
        "description": f"{described['description']}\n\n{words}" if "description" in described else words,
        "security": ANYONE if permission.startswith("anyone") else SIGNED_IN,
    }


def _described(view: Any, endpoint: str, method: str) -> Json:
    view_class = getattr(view, "view_class", None)
    if view_class is OperationsView:
        return resources.described_operations()
    if view_class is not None and issubclass(view_class, View):
        return resources.described(view_class, method)
    if endpoint in HEALTH:
        return plain.described_health(view, HEALTH[endpoint])
    for beginning, describe in OTHERS.items():
        if endpoint.startswith(beginning):
            return describe(view)
    raise LookupError(f"{endpoint} is not described yet")


def _operation_id(rule: Rule, method: str) -> str:
    """Return the name of a plain route, or one made of its method and path."""
    named = plain.ALIASES.get(rule.rule) or plain.OPERATION_IDS.get(rule.endpoint)
    return named or camelize("-".join([method.lower(), *re.findall(r"[a-z0-9]+", rule.rule.lower())]))
