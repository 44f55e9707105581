"""Filters: one parameter for each attribute, and the JSON spelling."""

from app.jsonapi.filters import MOST_PATTERNS, MOST_TERMS, MOST_VALUES, OPERATORS, ORDERED, PATTERNS, comparable
from app.jsonapi.permissions import Scope
from app.jsonapi.resource_type import Attribute, ResourceType
from app.jsonapi.schema import Flag, Text
from app.jsonapi.viewer import Role
from app.openapi.fields import LIMITS, value_of
from app.openapi.json_schema import (
    TEXT,
    Json,
    array_of,
    choice,
    closed_object_of,
    component,
    constant,
    id_of,
    reference,
)

EVERYTHING = Scope(Role.ADMIN)
"""Admins may compare all of it; others get 400 for a name that they may not read in every row."""


def filters_of(type_: ResourceType) -> dict[str, Json]:
    """Return the filter parameters of a type by the names of their components."""
    made = {component(type_, "filter"): _filter(type_)}
    for key in ids_of(type_):
        relation = type_.relation(key)
        ids = array_of(id_of(relation.target if relation else type_), minItems=1, maxItems=MOST_VALUES)
        made[component(type_, "filter-by", key)] = _comparison(key, ids, _operators(None), "one of these ids")
    for each in comparable_by_admins(type_):
        value = {name: value for name, value in value_of(type_, each).items() if name not in LIMITS}
        made[component(type_, "filter-by", each.key)] = _comparison(each.key, value, _operators(each), "this value")
    return made


def ids_of(type_: ResourceType) -> list[str]:
    """Return the names that are compared with ids: the own id, and to-one relationships."""
    return ["id", *(each.key for each in type_.relations.values() if not each.many)]


def comparable_by_admins(type_: ResourceType) -> list[Attribute]:
    """Return the attributes that can be compared at all."""
    return [each for name, each in type_.attributes.items() if comparable(type_, name, EVERYTHING)]


def _filter(type_: ResourceType) -> Json:
    """Return the parameter of the JSON spelling.

    It is a text to generators, which do not write other content into a query string; its content is described as well.
    """
    return {
        "name": "filter",
        "in": "query",
        "description": (
            f"A JSON list of terms that must all hold: at most {MOST_TERMS}, and {MOST_PATTERNS} in all parameters "
            "with `like` or `ilike`. A term is `{name, op, val}`, or `and`, `or`, `not` with terms; `has` (to-one) "
            "and `any` (to-many) take a term about a related resource."
        ),
        "schema": {
            **TEXT,
            "contentMediaType": "application/json",
            "contentSchema": array_of(reference(component(type_, "term")), maxItems=MOST_TERMS),
        },
    }


def term_of(type_: ResourceType) -> Json:
    """Return the schema of a term: a comparison, joined terms, or a condition on related resources.

    It is one object with all members, and says in `dependentSchemas` which go together: generators that make a model
    of it do not read a union that holds itself.
    """
    itself = reference(component(type_, "term"))
    compared = [*ids_of(type_), *(each.key for each in comparable_by_admins(type_))]
    members: dict[str, Json] = {
        "name": choice(dict.fromkeys([*compared, *(each.key for each in type_.relations.values())])),
        "op": choice([*OPERATORS, "has", "any"]),
        "val": {"description": "A value; a list of values for `in`; a term for `has` and `any`."},
        "and": array_of(itself),
        "or": array_of(itself),
        "not": itself,
    }
    named: Json = {"properties": {"name": choice(compared), "op": choice(OPERATORS)}}
    for each in type_.relations.values():
        asked = {"name": constant(each.key), "op": constant("any" if each.many else "has")}
        value = {"val": reference(component(each.target, "term"))}
        named = {"if": {"properties": asked}, "then": {"properties": value, "required": ["val"]}, "else": named}
    return {
        **closed_object_of(members),
        "minProperties": 1,
        "dependentRequired": {"name": ["op"], "op": ["name"], "val": ["name", "op"]},
        "dependentSchemas": {"name": named, **{key: {"maxProperties": 1} for key in ("and", "or", "not")}},
    }


def _operators(attribute: Attribute | None) -> list[str]:
    """Return the operators that an attribute takes; None is the id."""
    barred = set() if attribute is not None and isinstance(attribute.field, Text) else set(PATTERNS)
    if attribute is not None and isinstance(attribute.field, Flag):
        barred |= ORDERED
    return [operator for operator in OPERATORS if operator not in barred]


def _comparison(key: str, value: Json, operators: list[str], meaning: str) -> Json:
    """Return the parameter that compares one attribute.

    Operators are told in words: most generators do not write `deepObject` parameters as the server reads them.
    """
    listed = {"explode": False} if value.get("type") == "array" else {}
    return {
        "name": f"filter[{key}]",
        "in": "query",
        "description": f"Equal to {meaning}. `filter[{key}][OPERATOR]` takes other operators: {', '.join(operators)}.",
        "schema": value,
        **listed,
    }
