"""What clients could send, made from the schemas and routes: valid, nearly valid and absurd."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any
from urllib.parse import quote

import marshmallow
from hypothesis import strategies as st

from app.jsonapi.cursors import PROFILE
from app.jsonapi.filters import OPERATORS
from app.jsonapi.operations import EXTENSION
from app.jsonapi.resource_type import TYPES, Attribute, Relation, ResourceType
from app.jsonapi.schema import Choice, Flag, Instant, Number, Text, Url, Whole, Zone
from app.users.schemas import Email
from tests.world import JSONAPI, World

Strategy = st.SearchStrategy[Any]

ODD_TEXT = ["", " ", "null", "-1", "0", "1.5", "9" * 30, "__class__", "'\"--", "%", "\\", "a,b", "[]", "\x00", "\ud800"]
ODD_TEXT += ["x" * 300, "é", "\u202e", "password", "password-hash", "email", "{}", "true", "2030-01-01T00:00:00Z"]
ODD_NUMBERS = [-1, 0, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf")]

odd_text = st.sampled_from(ODD_TEXT) | st.text(max_size=20)
odd_scalar = st.none() | st.booleans() | st.sampled_from(ODD_NUMBERS) | st.integers() | odd_text
odd_json = st.recursive(
    odd_scalar,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text | st.just("data"), inner, max_size=3),
    max_leaves=6,
)


@dataclass(frozen=True)
class Request:
    """One request of somebody."""

    role: str
    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None


def mostly(usual: Strategy, odd: Strategy = odd_json) -> Strategy:
    """The usual nine times out of ten."""
    return st.integers(0, 9).flatmap(lambda number: odd if number == 9 else usual)


def often(usual: Strategy, nothing: Any) -> Strategy:
    """The usual every second time, else nothing."""
    return st.booleans().flatmap(lambda yes: usual if yes else st.just(nothing))


def spelled(name: str) -> Strategy:
    """A name with dashes or underscores."""
    return st.sampled_from([name, name.replace("-", "_")])


# Values


def value_of(declared: marshmallow.fields.Field[Any]) -> Strategy:
    """What a field takes."""
    for kind, made in VALUES.items():
        if isinstance(declared, kind):
            return made(declared)
    return st.lists(st.fixed_dictionaries({"name": st.just("Map"), "link": st.just("https://example.com/map")}))


VALUES: dict[type[Any], Callable[[Any], Strategy]] = {
    Choice: lambda declared: st.sampled_from(declared.words),
    Zone: lambda _: st.sampled_from(["UTC", "Europe/Berlin"]),
    Url: lambda _: st.sampled_from(["https://example.com/a", "http://example.com:8080/?b"]),
    Email: lambda _: st.integers(0, 99).map(lambda number: f"someone{number}@example.org"),
    Text: lambda declared: st.text(min_size=1, max_size=min(declared.limit, 30)),
    Flag: lambda _: st.sampled_from([True, False, "true", "false"]),
    Whole: lambda _: st.integers(-(2**31) + 1, 2**31 - 1),
    Number: lambda declared: st.floats(declared.low, declared.high),
    Instant: lambda _: st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.isoformat()),
}


class Wire:
    """Strategies for the types, routes and rows of one world."""

    def __init__(self, world: World) -> None:
        self.types = list(TYPES.values())
        self.ids = {
            "event": [*world.events.values()],
            "faq": [*world.faqs.values()],
            "faq-type": [*world.types.values()],
            "user": [caller.id for caller in world.callers.values() if caller.id],
        }
        self.identifiers = [*world.identifiers.values()]
        self.roles = st.sampled_from(sorted(world.callers))
        rules = [rule for rule in world.app.url_map.iter_rules() if rule.rule.startswith(("/v1/", "/auth/"))]
        self.routes = sorted((rule.rule, sorted(rule.methods or ())) for rule in rules)

    # Documents

    def document(self, type_: ResourceType, id_: Any = None) -> Strategy:
        """A resource as its type wants it, or nearly."""
        return st.composite(self._document)(type_, id_)

    def _document(self, draw: Any, type_: ResourceType, id_: Any) -> Any:
        resource: dict[str, Any] = {"type": draw(mostly(st.sampled_from(sorted(type_.spellings))))}
        if id_ is not None:
            resource["id"] = draw(mostly(st.sampled_from([str(id_), id_])))
        if draw(mostly(st.just(True), st.just(False))):
            resource["attributes"] = draw(mostly(self.attributes(type_, complete=id_ is None)))
        resource["relationships"] = draw(mostly(self.relationships(type_, complete=id_ is None)))
        if draw(st.integers(0, 9)) == 9:
            resource[draw(odd_text | st.sampled_from(["lid", "id", "links", "meta", "@at"]))] = draw(odd_json)
        return draw(mostly(st.just({"data": resource})))

    def attributes(self, type_: ResourceType, *, complete: bool) -> Strategy:
        """Attributes of a type; `complete` ones hold all that are required."""
        required = [each for each in type_.attributes.values() if complete and each.field.required]
        return st.composite(_attributes)(required, [*type_.attributes.values()])

    def relationships(self, type_: ResourceType, *, complete: bool) -> Strategy:
        """Relationships of a type; `complete` ones hold all that are required."""
        required = [each for each in type_.relations.values() if complete and each.field.required]
        some = st.lists(st.sampled_from([*type_.relations.values()]), max_size=1 if complete else 2)
        return some.flatmap(
            lambda chosen: st.fixed_dictionaries(
                {each.key: mostly(st.fixed_dictionaries({"data": self.linkage(each)})) for each in (*required, *chosen)}
            )
        )

    def linkage(self, relation: Relation) -> Strategy:
        """Linkage of a relationship, to rows that exist or do not."""
        target = relation.target
        ids = st.sampled_from(self.ids[target.name])
        identifier = st.fixed_dictionaries(
            {
                "type": mostly(st.sampled_from(sorted(target.spellings))),
                "id": mostly(ids | ids.map(str), odd_scalar),
            }
        )
        usual = st.lists(identifier, max_size=3) if relation.many else st.none() | identifier
        return mostly(usual)

    # Query strings

    def query(self, type_: ResourceType) -> Strategy:
        """A query string about resources of a type."""
        return st.lists(self._parameter(type_), max_size=3).map("&".join)

    def _parameter(self, type_: ResourceType) -> Strategy:
        usual = st.one_of(
            self._joined("include", self._path(type_, 3)),
            self._joined("sort", st.tuples(st.sampled_from(["", "-"]), self._sort_key(type_)).map("".join)),
            st.sampled_from(self.types).flatmap(
                lambda named: self._joined(f"fields[{named.name}]", mostly(_field_name(named), odd_text))
            ),
            self._filter_parameter(type_),
            st.builds(_parameter, st.just("filter"), st.lists(self._term(type_), max_size=3).map(json.dumps)),
            st.builds(
                _parameter,
                st.sampled_from(["page[size]", "page[number]"]),
                mostly(st.integers(1, 100).map(str), odd_text),
            ),
            st.builds(_parameter, st.sampled_from(["page[after]", "page[before]"]), self._cursor()),
            st.builds(_parameter, st.just("get_trashed"), mostly(st.sampled_from(["true", "false"]), odd_text)),
        )
        odd = st.builds(_parameter, odd_text | st.sampled_from(["filter", "page", "fields[x]", "sort[]"]), odd_text)
        raw = st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=15)
        return mostly(usual, odd | raw)

    def _joined(self, name: str, values: Strategy) -> Strategy:
        return st.lists(values, min_size=1, max_size=3).map(lambda parts: _parameter(name, ",".join(parts)))

    def _path(self, type_: ResourceType, depth: int) -> Strategy:
        def longer(relation: Relation) -> Strategy:
            name = spelled(relation.key)
            if depth == 1:
                return name
            rest = self._path(relation.target, depth - 1)
            return name | st.tuples(name, rest).map(".".join)

        return mostly(st.sampled_from([*type_.relations.values()]).flatmap(longer), odd_text)

    def _sort_key(self, type_: ResourceType) -> Strategy:
        hops = [(each.key, each.target) for each in type_.relations.values()]
        hop = st.sampled_from(hops).flatmap(lambda way: _field_name(way[1]).map(lambda name: f"{way[0]}.{name}"))
        return mostly(_field_name(type_) | hop, odd_text)

    def _filter_parameter(self, type_: ResourceType) -> Strategy:
        def filtered(attribute: Attribute) -> Strategy:
            operator = mostly(st.sampled_from(sorted(OPERATORS)), odd_text)
            name = st.builds(
                lambda spelling, op: f"filter[{spelling}]" + (f"[{op}]" if op else ""),
                spelled(attribute.key),
                often(operator, ""),
            )
            return st.builds(_parameter, name, mostly(value_of(attribute.field).map(str), odd_text))

        return st.sampled_from([*type_.attributes.values()]).flatmap(filtered)

    def _term(self, type_: ResourceType, depth: int = 2) -> Strategy:
        def compared(attribute: Attribute) -> Strategy:
            operators = st.sampled_from([*OPERATORS, "has", "any"])
            value = mostly(value_of(attribute.field) | st.lists(value_of(attribute.field), max_size=2))
            return st.fixed_dictionaries({"name": spelled(attribute.key), "op": mostly(operators), "val": value})

        compare = st.sampled_from([*type_.attributes.values()]).flatmap(compared)
        if depth == 0:
            return mostly(compare)
        inner = self._term(type_, depth - 1)
        joined = st.dictionaries(st.sampled_from(["and", "or"]), st.lists(inner, max_size=2), min_size=1, max_size=1)
        related = st.sampled_from([*type_.relations.values()]).flatmap(
            lambda relation: st.fixed_dictionaries(
                {
                    "name": spelled(relation.key),
                    "op": st.just("any" if relation.many else "has"),
                    "val": self._term(relation.target, depth - 1),
                }
            )
        )
        return mostly(compare | compare | joined | st.fixed_dictionaries({"not": inner}) | related)

    def _cursor(self) -> Strategy:
        from base64 import urlsafe_b64encode  # noqa: PLC0415

        made = st.lists(odd_scalar, max_size=3).map(lambda keys: urlsafe_b64encode(json.dumps(keys).encode()).decode())
        return made | odd_text


def _parameter(name: str, value: str) -> str:
    return f"{quote(name, safe='[]', errors='replace')}={quote(value, safe=',', errors='replace')}"


def _field_name(type_: ResourceType) -> Strategy:
    return st.sampled_from([*type_.attributes, *type_.relations, "id", "password_hash", "owner_id"]).flatmap(
        lambda name: st.sampled_from([name, name.replace("_", "-")])
    )


def _attributes(draw: Any, required: Iterable[Attribute], known: list[Attribute]) -> dict[str, Any]:
    chosen = [*required, *draw(st.lists(st.sampled_from(known), max_size=2))]
    made = {draw(spelled(each.key)): draw(mostly(value_of(each.field))) for each in chosen}
    if draw(st.integers(0, 9)) == 9:
        made[draw(odd_text | st.just("@at"))] = draw(odd_json)
    return made
