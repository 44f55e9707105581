"""Filter parameters: one for each attribute, and one with JSON."""

from app.jsonapi.current_user import Role
from app.jsonapi.fields import Boolean, Text
from app.jsonapi.filters import (
    MAX_PATTERNS,
    MAX_TERMS,
    MAX_VALUES,
    OPERATORS,
    ORDERING_OPERATORS,
    PATTERN_OPERATORS,
    get_filterable_attribute,
)
from app.jsonapi.permissions import VisibilityScope
from app.jsonapi.resource_type import Attribute, ResourceType
from app.openapi.field_schemas import INPUT_LIMITS, value_schema
from app.openapi.json_schema import (
    TEXT,
    Json,
    array_schema,
    component_name,
    component_ref,
    const_schema,
    enum_schema,
    id_schema,
    strict_object_schema,
)

ADMIN_SCOPE = VisibilityScope(Role.ADMIN)
"""Scope that may filter by all attributes; for others, names that they cannot read in every row are 400."""


def build_filter_parameters(type_: ResourceType) -> dict[str, Json]:
    """Return the filter parameters of a type by the names of their components."""
    made = {component_name(type_, "filter"): _json_filter_parameter(type_)}
    for key in list_id_names(type_):
        relation = type_.find_relation(key)
        ids = array_schema(id_schema(relation.target if relation else type_), minItems=1, maxItems=MAX_VALUES)
        made[component_name(type_, "filter-by", key)] = _comparison_parameter(
            key, ids, _list_operators(None), "one of these ids"
        )
    for each in list_filterable_attributes(type_):
        value = {name: value for name, value in value_schema(type_, each).items() if name not in INPUT_LIMITS}
        made[component_name(type_, "filter-by", each.key)] = _comparison_parameter(
            each.key, value, _list_operators(each), "this value"
        )
    return made


def list_id_names(type_: ResourceType) -> list[str]:
    """Return the names that are names with ids: the own id, and to-one relationships."""
    return ["id", *(each.key for each in type_.relations.values() if not each.many)]


def list_filterable_attributes(type_: ResourceType) -> list[Attribute]:
    """Return the attributes that can be names at all."""
    return [each for name, each in type_.attributes.items() if get_filterable_attribute(type_, name, ADMIN_SCOPE)]


def _json_filter_parameter(type_: ResourceType) -> Json:
    """Return the filter parameter with JSON.

    Its schema is a string, as client generators support no other content in query strings, with a content schema.
    """
    return {
        "name": "filter",
        "in": "query",
        "description": (
            f"A JSON list of terms that must all hold: at most {MAX_TERMS}, and {MAX_PATTERNS} in all parameters "
            "with `like` or `ilike`. A term is `{name, op, val}`, or `and`, `or`, `not` with terms; `has` (to-one) "
            "and `any` (to-many) take a term about a related resource."
        ),
        "schema": {
            **TEXT,
            "contentMediaType": "application/json",
            "contentSchema": array_schema(component_ref(component_name(type_, "term")), maxItems=MAX_TERMS),
        },
    }


def term_schema(type_: ResourceType) -> Json:
    """Return the schema of a term: a comparison, joined terms, or a condition on related resources.

    It is one object with all members; `dependentSchemas` defines their combinations, as client generators do not
    support a recursive union.
    """
    itself = component_ref(component_name(type_, "term"))
    names = [*list_id_names(type_), *(each.key for each in list_filterable_attributes(type_))]
    members: dict[str, Json] = {
        "name": enum_schema(dict.fromkeys([*names, *(each.key for each in type_.relations.values())])),
        "op": enum_schema([*OPERATORS, "has", "any"]),
        "val": {"description": "A value; a list of values for `in`; a term for `has` and `any`."},
        "and": array_schema(itself),
        "or": array_schema(itself),
        "not": itself,
    }
    named: Json = {"properties": {"name": enum_schema(names), "op": enum_schema(OPERATORS)}}
    for each in type_.relations.values():
        condition = {"name": const_schema(each.key), "op": const_schema("any" if each.many else "has")}
        value = {"val": component_ref(component_name(each.target, "term"))}
        named = {"if": {"properties": condition}, "then": {"properties": value, "required": ["val"]}, "else": named}
    return {
        **strict_object_schema(members),
        "minProperties": 1,
        "dependentRequired": {"name": ["op"], "op": ["name"], "val": ["name", "op"]},
        "dependentSchemas": {"name": named, **{key: {"maxProperties": 1} for key in ("and", "or", "not")}},
    }


def _list_operators(attribute: Attribute | None) -> list[str]:
    """Return the operators that an attribute supports; None is the id."""
    unsupported = set() if attribute is not None and isinstance(attribute.field, Text) else set(PATTERN_OPERATORS)
    if attribute is not None and isinstance(attribute.field, Boolean):
        unsupported |= ORDERING_OPERATORS
    return [operator for operator in OPERATORS if operator not in unsupported]


def _comparison_parameter(key: str, value: Json, operators: list[str], meaning: str) -> Json:
    """Return the parameter that compares one attribute.

    Its description lists the operators: most client generators do not serialize `deepObject` parameters as needed.
    """
    array_style = {"explode": False} if value.get("type") == "array" else {}
    return {
        "name": f"filter[{key}]",
        "in": "query",
        "description": f"Equal to {meaning}. `filter[{key}][OPERATOR]` takes other operators: {', '.join(operators)}.",
        "schema": value,
        **array_style,
    }
