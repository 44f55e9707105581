"""The whole description: paths from the URL map, components from the resource types."""

import re
from collections.abc import Iterator
from typing import Any

import orjson
from flask import Flask
from werkzeug.routing import Rule

from app.jsonapi.operations import OperationsView
from app.jsonapi.resource_type import TYPES
from app.jsonapi.view import View
from app.openapi import filters, hooks, jobs, parameters, plain, resources, responses, treatments
from app.openapi.answers import answers_of, shared_answers
from app.openapi.bodies import bodies_of, operations_taken
from app.openapi.json_schema import Json, component, reference
from app.routes import listed

UNDESCRIBED = ("/docs", "/files/", "/jobs", "/overview")
"""Pages, files, and a protocol of others: nothing that a client of the API calls."""

HEALTH = {"health.live": "Alive", "health.ready": "HealthReport", "health.check": "HealthReport"}
OTHERS = {
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
"""Routes that are no resources, by how their endpoints begin."""
SCHEMES = {
    "jwt": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`JWT <access token>`, from POST /auth/session.",
    },
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
}
SIGNED_IN: list[Json] = [{"jwt": []}, {"bearer": []}]
ANYONE: list[Json] = [{}, *SIGNED_IN]

DESCRIPTION = """\
JSON:API 1.1 at `/v1`. Names are dashed; underscored ones are understood too, and so are plural types and ids as \
numbers. Bodies may come as `application/json`. HEAD and OPTIONS work wherever GET does."""


def build(app: Flask) -> Json:
    """The OpenAPI 3.1 document of this app."""
    document = {
        "openapi": "3.1.1",
        "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
        "info": {"title": "Open Event API", "version": "1", "description": DESCRIPTION},
        "servers": [{"url": app.config["PUBLIC_URL"]}],
        "paths": _paths(app),
        "components": _components(),
    }
    _drop_unused(document)
    return document


def _drop_unused(document: Json) -> None:
    """Take away what is made for every type and used for some: what nobody creates has no body."""
    components = document["components"]
    while unused := {
        (section, name)
        for section in ("schemas", "parameters")
        for name in components[section].keys() - _references(document, f"#/components/{section}/")
    }:
        for section, name in unused:
            del components[section][name]


def _references(value: Any, section: str) -> set[str]:
    """The names of components of this section that are referred to."""
    return set(re.findall(f'"{section}([^"]+)"', orjson.dumps(value).decode()))


def _components() -> Json:
    types = list(TYPES.values())
    return {
        "schemas": {
            **shared_answers(),
            **plain.plain_answers(),
            **jobs.kind_answers(),
            "Operations": operations_taken(),
            **{name: schema for each in types for name, schema in (answers_of(each) | bodies_of(each)).items()},
            **{f"{component(each)}Term": filters.term_of(each) for each in types},
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
    """Every path once, without a trailing slash, which is understood but not needed."""
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
        if not rule.rule.startswith(UNDESCRIBED):
            yield rule


def _item(rule: Rule) -> Json:
    named = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in sorted(rule.arguments)
    ]
    return {"parameters": [*named, reference("RequestId", "parameters")]}


def _operation(app: Flask, rule: Rule, method: str, permission: str) -> Json:
    described = _described(app.view_functions[rule.endpoint], rule.endpoint, method)
    words = f"Who may: {permission}."
    return {
        **described,
        "responses": dict(sorted(described["responses"].items())),
        "operationId": _operation_id(rule, method),
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
    """`get_v1_events_id_faqs`: stable as long as the URL is."""
    return "_".join([method.lower(), *re.findall(r"\w+", rule.rule)])
