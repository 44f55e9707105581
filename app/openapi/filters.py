"""Filters: one parameter for each attribute, and the JSON spelling."""

from collections.abc import Iterable

from app.jsonapi.filters import MOST_PATTERNS, MOST_TERMS, OPERATORS, ORDERED, PATTERNS, comparable
from app.jsonapi.permissions import Scope
from app.jsonapi.resource_type import Attribute, ResourceType
from app.jsonapi.schema import Flag, Text
from app.jsonapi.viewer import Role
from app.openapi.fields import LIMITS, described
from app.openapi.json_schema import TEXT, Json, closed_object_of, component, id_of, reference

EVERYTHING = Scope(Role.ADMIN)
"""What admins may compare; for others the same names answer 400 where they may not read them in every row."""


def filters_of(type_: ResourceType) -> dict[str, Json]:
    """The parameters of a type by the names of their components."""
    name = component(type_)
    made = {f"Filter{name}": _filter(type_)}
    for key in ids_of(type_):
        relation = type_.relation(key)
        id_ = id_of(relation.target if relation else type_)
        made[f"Filter{name}-{key}"] = _comparison(key, id_, _operators(None), "a list of ids")
    for each in comparable_by_admins(type_):
        value = {name: value for name, value in described(each.field).items() if name not in LIMITS}
        made[f"Filter{name}-{each.key}"] = _comparison(each.key, value, _operators(each), "`eq`")
    return made


def ids_of(type_: ResourceType) -> list[str]:
    """What is compared with ids: the own one, and to-one relationships."""
    return ["id", *(each.key for each in type_.relations.values() if not each.many)]


def comparable_by_admins(type_: ResourceType) -> list[Attribute]:
    """The attributes that can be compared at all."""
    return [each for name, each in type_.attributes.items() if comparable(type_, name, EVERYTHING)]


def term_of(type_: ResourceType) -> Json:
    """One term of the JSON spelling: a comparison, terms joined, or a term about related resources."""
    itself = reference(f"{component(type_)}Term")
    operators: dict[str, Json] = {
        "name": {"enum": [*ids_of(type_), *(each.key for each in comparable_by_admins(type_))]},
        "op": {"enum": [*OPERATORS]},
    }
    relations = [
        closed_object_of(
            {
                "name": {"const": each.key},
                "op": {"const": "any" if each.many else "has"},
                "val": reference(f"{component(each.target)}Term"),
            },
            ["name", "op", "val"],
        )
        for each in type_.relations.values()
    ]
    joined = [closed_object_of({word: {"type": "array", "items": itself}}, [word]) for word in ("and", "or")]
    comparison = closed_object_of({**operators, "val": {}}, ["name", "op"])
    return {"anyOf": [comparison, *joined, closed_object_of({"not": itself}, ["not"]), *relations]}


def _filter(type_: ResourceType) -> Json:
    """The JSON spelling of filters."""
    schema = {"type": "array", "items": reference(f"{component(type_)}Term"), "maxItems": MOST_TERMS}
    return {
        "name": "filter",
        "in": "query",
        "description": f"Terms that all hold; at most {MOST_TERMS}, with {MOST_PATTERNS} patterns among them.",
        "content": {"application/json": {"schema": schema}},
    }


def _operators(attribute: Attribute | None) -> list[str]:
    """What can be asked about an attribute; None is the id."""
    barred = set() if attribute is not None and isinstance(attribute.field, Text) else set(PATTERNS)
    if attribute is not None and isinstance(attribute.field, Flag):
        barred |= ORDERED
    return [operator for operator in OPERATORS if operator not in barred]


def _comparison(key: str, value: Json, operators: Iterable[str], short: str) -> Json:
    special: dict[str, Json] = {
        "in": {**TEXT, "description": "Values with commas between them."},
        "is-null": {"type": "boolean"},
    }
    asked = closed_object_of({operator: special.get(operator, value) for operator in operators})
    return {
        "name": f"filter[{key}]",
        "in": "query",
        "description": f"Without an operator it is {short}.",
        "schema": asked,
        "style": "deepObject",
        "explode": True,
    }
