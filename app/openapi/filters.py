"""Filters: one parameter for each attribute, and the JSON spelling."""

from app.jsonapi.filters import MOST_PATTERNS, MOST_TERMS, MOST_VALUES, OPERATORS, ORDERED, PATTERNS, comparable
from app.jsonapi.permissions import Scope
from app.jsonapi.resource_type import Attribute, ResourceType
from app.jsonapi.schema import Flag, Text
from app.jsonapi.viewer import Role
from app.openapi.fields import LIMITS, described
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
        value = {name: value for name, value in described(each.field).items() if name not in LIMITS}
        made[component(type_, "filter-by", each.key)] = _comparison(each.key, value, _operators(each), "this value")
    return made


def ids_of(type_: ResourceType) -> list[str]:
    """Return the names that are compared with ids: the own id, and to-one relationships."""
    return ["id", *(each.key for each in type_.relations.values() if not each.many)]


def comparable_by_admins(type_: ResourceType) -> list[Attribute]:
    """Return the attributes that can be compared at all."""
    return [each for name, each in type_.attributes.items() if comparable(type_, name, EVERYTHING)]


def terms_of(type_: ResourceType) -> dict[str, Json]:
    """Return the schemas of a term of the JSON spelling: a comparison, joined terms, or one about related resources."""
    itself = reference(component(type_, "term"))
    comparison: dict[str, Json] = {
        "name": choice([*ids_of(type_), *(each.key for each in comparable_by_admins(type_))]),
        "op": choice(OPERATORS),
        "val": {"description": "A value, or a list of values for `in`."},
    }
    related = [
        closed_object_of(
            {
                "name": constant(each.key),
                "op": constant("any" if each.many else "has"),
                "val": reference(component(each.target, "term")),
            },
            ["name", "op", "val"],
        )
        for each in type_.relations.values()
    ]
    joined = [closed_object_of({word: array_of(itself)}, [word]) for word in ("and", "or")]
    negated = closed_object_of({"not": itself}, ["not"])
    compared = reference(component(type_, "comparison"))
    return {
        component(type_, "term"): {"anyOf": [compared, *joined, negated, *related]},
        component(type_, "comparison"): closed_object_of(comparison, ["name", "op"]),
    }


def _filter(type_: ResourceType) -> Json:
    """Return the parameter of the JSON spelling: a text to generators, and its content to those that look into it."""
    terms = array_of(reference(component(type_, "term")), maxItems=MOST_TERMS)
    return {
        "name": "filter",
        "in": "query",
        "description": (
            f"A JSON list of terms that must all hold: at most {MOST_TERMS}, {MOST_PATTERNS} of them with `like` or "
            "`ilike`. A term is `{name, op, val}`, or `and`, `or`, `not` with terms; `has` (to-one) and `any` "
            "(to-many) take a term about a related resource."
        ),
        "schema": {**TEXT, "contentMediaType": "application/json", "contentSchema": terms},
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
    listed = {"explode": False} if value["type"] == "array" else {}
    return {
        "name": f"filter[{key}]",
        "in": "query",
        "description": f"Equal to {meaning}. `filter[{key}][OPERATOR]` takes other operators: {', '.join(operators)}.",
        "schema": value,
        **listed,
    }
