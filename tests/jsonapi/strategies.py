"""Hypothesis strategies for requests, from the schemas and routes: valid, almost valid and invalid."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any
from urllib.parse import quote

import marshmallow
from hypothesis import strategies as st

from app.jsonapi.atomic_operations import EXTENSION
from app.jsonapi.cursors import PROFILE
from app.jsonapi.fields import Boolean, DateTime, Enum, Integer, JsonObject, Number, Text, TimeZone, Url
from app.jsonapi.filters import OPERATORS
from app.jsonapi.query_params import LINKAGE_LIST_FAMILIES, LIST_FAMILIES
from app.jsonapi.resource_type import TYPES, Attribute, Relation, ResourceType
from app.users.schemas import Email
from tests.dataset import JSONAPI, Dataset

Strategy = st.SearchStrategy[Any]

ODD_TEXT = ["", " ", "null", "-1", "0", "1.5", "9" * 30, "__class__", "'\"--", "%", "\\", "a,b", "[]", "\x00", "\ud800"]
ODD_TEXT += ["x" * 300, "é", "\u202e", "password", "password-hash", "email", "{}", "true", "2030-01-01T00:00:00Z"]
ODD_NUMBERS = [-1, 0, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf")]

FAMILIES = LIST_FAMILIES | LINKAGE_LIST_FAMILIES
odd_text = st.sampled_from(ODD_TEXT) | st.text(max_size=20)
odd_scalar = st.none() | st.booleans() | st.sampled_from(ODD_NUMBERS) | st.integers() | odd_text
odd_json = st.recursive(
    odd_scalar,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text | st.just("data"), inner, max_size=3),
    max_leaves=6,
)


@dataclass(frozen=True)
class Request:
    """One request of a user with this role."""

    role: str
    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None


def usually(usual: Strategy, odd: Strategy = odd_json) -> Strategy:
    """Return a strategy that draws from `usual`, and once in 25 times from `odd`."""
    return st.integers(0, 24).flatmap(lambda number: odd if number == 24 else usual)


def optionally(usual: Strategy, nothing: Any) -> Strategy:
    """Return a strategy that draws from `usual` every second time, and else returns `nothing`."""
    return st.booleans().flatmap(lambda yes: usual if yes else st.just(nothing))


def spellings(name: str) -> Strategy:
    """Return a strategy for a name with dashes or underscores."""
    return st.sampled_from([name, name.replace("-", "_")])


# Values


def field_values(declared: marshmallow.fields.Field[Any]) -> Strategy:
    """Return a strategy for valid values of a field."""
    if declared.name == "kind":
        return st.sampled_from(["sleep", "sleep-once", "sleep-single-flight"])
    for kind, made in VALUES.items():
        if isinstance(declared, kind):
            return made(declared)
    return st.lists(st.fixed_dictionaries({"name": st.just("Map"), "link": st.just("https://example.com/map")}))


VALUES: dict[type[Any], Callable[[Any], Strategy]] = {
    Enum: lambda declared: st.sampled_from(declared.words),
    TimeZone: lambda _: st.sampled_from(["UTC", "Europe/Berlin"]),
    Url: lambda _: st.sampled_from(["https://example.com/a", "http://example.com:8080/?b"]),
    Email: lambda _: st.integers(0, 99).map(lambda number: f"someone{number}@example.org"),
    Text: lambda declared: st.text(min_size=1, max_size=min(declared.limit, 30)),
    Boolean: lambda _: st.sampled_from([True, False, "true", "false"]),
    Integer: lambda _: st.integers(-(2**31) + 1, 2**31 - 1),
    Number: lambda declared: st.floats(declared.low, declared.high),
    JsonObject: lambda _: st.sampled_from([{"seconds": 0}, {"seconds": 0.5, "steps": 2}]),
    DateTime: lambda _: st.datetimes(timezones=st.just(UTC)).map(lambda time: time.isoformat()),
}


class RequestStrategies:
    """Strategies for the types, routes and rows of one dataset."""

    def __init__(self, dataset: Dataset) -> None:
        self.types = list(TYPES.values())
        self.ids: dict[str, list[Any]] = {
            **{name: [id_] for name, id_ in dataset.get_background_ids().items()},
            "event": [*dataset.events.values()],
            **{name: [*ids.values()] for name, ids in dataset.belongings.items()},
            "user": [caller.id for caller in dataset.callers.values() if caller.id],
        }
        self.identifiers = [*dataset.identifiers.values()]
        self.roles = st.sampled_from(sorted(dataset.callers)) | st.sampled_from(["owner", "admin"])
        rules = [rule for rule in dataset.app.url_map.iter_rules() if rule.rule.startswith(("/v1/", "/auth/"))]
        self.routes = sorted((rule.rule, sorted(rule.methods or ())) for rule in rules)
        views = {rule.rule: getattr(dataset.app.view_functions[rule.endpoint], "view_class", None) for rule in rules}
        self.families = {rule: getattr(view, "families", {}).get("GET", FAMILIES) for rule, view in views.items()}

    # Documents

    def document(self, type_: ResourceType, id_: Any = None) -> Strategy:
        """Return a strategy for documents of a resource, valid or almost valid."""
        return st.composite(self._document)(type_, id_)

    def _document(self, draw: Any, type_: ResourceType, id_: Any) -> Any:
        resource: dict[str, Any] = {"type": draw(usually(st.sampled_from(sorted(type_.aliases))))}
        if id_ is not None:
            resource["id"] = draw(usually(st.sampled_from([str(id_), id_])))
        if draw(usually(st.just(True), st.just(False))):
            resource["attributes"] = draw(usually(self.attributes(type_, complete=id_ is None)))
        resource["relationships"] = draw(usually(self.relationships(type_, complete=id_ is None)))
        if draw(usually(st.just(False), st.just(True))):
            resource[draw(odd_text | st.sampled_from(["lid", "id", "links", "meta", "@at"]))] = draw(odd_json)
        return draw(usually(st.just({"data": resource})))

    def attributes(self, type_: ResourceType, *, complete: bool) -> Strategy:
        """Return a strategy for attributes of a type; `complete` ones contain all required attributes."""
        required = [each for each in type_.attributes.values() if complete and each.field.required]
        return st.composite(_attributes)(required, [*type_.attributes.values()])

    def relationships(self, type_: ResourceType, *, complete: bool) -> Strategy:
        """Return a strategy for relationships of a type; `complete` ones contain all required relationships."""
        required = [each for each in type_.relations.values() if complete and each.field.required]
        writable = [each for each in type_.relations.values() if not each.field.dump_only]
        anyone = st.sampled_from([*type_.relations.values()])
        one = usually(st.sampled_from(writable), anyone) if writable else anyone
        some = (
            optionally(st.lists(one, max_size=1 if complete else 2), [])
            if writable
            else usually(st.just([]), st.lists(one))
        )
        return some.flatmap(
            lambda chosen: st.fixed_dictionaries(
                {
                    each.key: usually(st.fixed_dictionaries({"data": self.linkage(each)}))
                    for each in (*required, *chosen)
                }
            )
        )

    def linkage(self, relation: Relation) -> Strategy:
        """Return a strategy for linkage of a relationship, to rows that exist or do not."""
        target = relation.target
        ids = st.sampled_from(self.ids[target.name])
        identifier = st.fixed_dictionaries(
            {
                "type": usually(st.sampled_from(sorted(target.aliases))),
                "id": usually(ids | ids.map(str), odd_scalar),
            }
        )
        usual = st.lists(identifier, max_size=3) if relation.many else st.none() | identifier
        return usually(usual)

    # Query strings

    def query(self, type_: ResourceType, families: Iterable[str] = FAMILIES) -> Strategy:
        """Return a strategy for query strings about a type, on a route that supports these families of parameters."""
        return st.lists(self._parameter(type_, families), max_size=3, unique_by=_name).map("&".join)

    def _parameter(self, type_: ResourceType, families: Iterable[str]) -> Strategy:
        made = {
            "include": self._join_parameter("include", self._path(type_, 3)),
            "sort": self._join_parameter(
                "sort", st.tuples(st.sampled_from(["", "-"]), self._sort_key(type_)).map("".join)
            ),
            "fields": st.sampled_from(self.types).flatmap(
                lambda named: self._join_parameter(f"fields[{named.name}]", usually(_field_name(named), odd_text))
            ),
            "filter": self._filter_parameter(type_)
            | st.builds(_parameter, st.just("filter"), st.lists(self._term(type_), max_size=3).map(json.dumps)),
            "page": st.builds(
                _parameter,
                st.sampled_from(["page[size]", "page[number]"]),
                usually(st.integers(1, 100).map(str), odd_text),
            ),
            "get_trashed": usually(
                st.sampled_from(["get_trashed=true", "get_trashed=false"]), st.just("get_trashed=1")
            ),
        }
        usual = st.one_of([made[family] for family in sorted(families)])
        odd = st.builds(_parameter, odd_text | st.sampled_from(["filter", "page", "fields[x]", "sort[]"]), odd_text)
        raw = st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=15)
        cursor = st.builds(_parameter, st.sampled_from(["page[after]", "page[before]"]), self._cursor())
        return usually(usual, st.one_of(odd, raw, cursor, *made.values()))

    def _join_parameter(self, name: str, values: Strategy) -> Strategy:
        return st.lists(values, min_size=1, max_size=3).map(lambda parts: _parameter(name, ",".join(parts)))

    def _path(self, type_: ResourceType, depth: int) -> Strategy:
        def longer(relation: Relation) -> Strategy:
            name = spellings(relation.key)
            if depth == 1:
                return name
            rest = self._path(relation.target, depth - 1)
            return name | st.tuples(name, rest).map(".".join)

        return usually(st.sampled_from([*type_.relations.values()]).flatmap(longer), odd_text)

    def _sort_key(self, type_: ResourceType) -> Strategy:
        keys = ["id", *(each.key for each in type_.attributes.values() if not each.field.load_only)]
        hops = [(each.key, each.target) for each in type_.relations.values()]
        hop = st.sampled_from(hops).flatmap(lambda way: _field_name(way[1]).map(lambda name: f"{way[0]}.{name}"))
        return usually(st.sampled_from(keys).flatmap(spellings), hop | _field_name(type_) | odd_text)

    def _filter_parameter(self, type_: ResourceType) -> Strategy:
        def filter_by(attribute: Attribute) -> Strategy:
            operator = usually(st.sampled_from(_operators(attribute)), st.sampled_from(sorted(OPERATORS)) | odd_text)
            name = st.builds(
                lambda spelling, op: f"filter[{spelling}]" + (f"[{op}]" if op else ""),
                spellings(attribute.key),
                optionally(operator, ""),
            )
            return st.builds(_parameter, name, usually(field_values(attribute.field).map(str), odd_text))

        return _comparable(type_).flatmap(filter_by)

    def _term(self, type_: ResourceType, depth: int = 2) -> Strategy:
        def compare_with(attribute: Attribute) -> Strategy:
            value = field_values(attribute.field)
            operator = usually(st.sampled_from(_operators(attribute)), st.sampled_from([*OPERATORS, "has", "any"]))
            return operator.flatmap(
                lambda op: st.fixed_dictionaries(
                    {
                        "name": spellings(attribute.key),
                        "op": st.just(op),
                        "val": usually(st.lists(value, max_size=2) if op == "in" else value),
                    }
                )
            )

        compare = _comparable(type_).flatmap(compare_with)
        if depth == 0:
            return usually(compare)
        inner = self._term(type_, depth - 1)
        joined = st.dictionaries(st.sampled_from(["and", "or"]), st.lists(inner, max_size=2), min_size=1, max_size=1)
        related = st.sampled_from([*type_.relations.values()]).flatmap(
            lambda relation: st.fixed_dictionaries(
                {
                    "name": spellings(relation.key),
                    "op": st.just("any" if relation.many else "has"),
                    "val": self._term(relation.target, depth - 1),
                }
            )
        )
        return usually(compare | compare | joined | st.fixed_dictionaries({"not": inner}) | related)

    def _cursor(self) -> Strategy:
        made = st.lists(odd_scalar, max_size=3).map(lambda keys: urlsafe_b64encode(json.dumps(keys).encode()).decode())
        return made | odd_text

    # Operations

    def operations(self) -> Strategy:
        """Return a strategy for documents of the atomic operations extension."""
        some = st.lists(usually(self._operation()), min_size=1, max_size=4)
        return usually(st.fixed_dictionaries({"atomic:operations": some}))

    def _operation(self) -> Strategy:
        return st.sampled_from(self.types).flatmap(lambda type_: st.composite(self._operation_on)(type_))

    def _operation_on(self, draw: Any, type_: ResourceType) -> dict[str, Any]:
        op = draw(usually(st.sampled_from(["add", "update", "remove"])))
        id_ = draw(usually(st.sampled_from(self.ids[type_.name]), odd_scalar))
        relation = draw(optionally(st.sampled_from([*type_.relations.values()]), None))
        reference = {"type": type_.name, **draw(usually(st.just({"id": str(id_)}), st.just({"lid": "a"})))}
        made: dict[str, Any] = {"op": op}
        if relation is not None:
            made["ref"] = {**reference, "relationship": relation.key}
            made["data"] = draw(usually(self.linkage(relation)))
        elif op == "add":
            made["data"] = draw(self.document(type_).map(_with_lid))
        else:
            made |= draw(st.sampled_from([{"ref": reference}, {"href": f"{type_.path}/{id_}"}]))
            made["data"] = draw(self.document(type_, id_).map(_data))
        return made

    # Requests

    def reading(self) -> Strategy:
        """Return a strategy for GET of any resource route with a query string about its resources."""
        routes = [route for route in self.routes if "GET" in route[1] and _parse_rule(route[0])]
        return st.sampled_from(routes).flatmap(lambda route: self._reading(route[0]))

    def _reading(self, rule: str) -> Strategy:
        type_, relation = _parse_rule(rule) or (self.types[0], None)
        query = self.query(relation.target if relation is not None else type_, self.families[rule])
        return st.builds(Request, self.roles, st.just("GET"), self.path(rule), query)

    def writing(self) -> Strategy:
        """Return a strategy for writes to any resource route."""
        writable = ("POST", "PATCH", "DELETE")
        routes = [(rule, method) for rule, methods in self.routes if _parse_rule(rule) for method in methods]
        every = [each for each in routes if each[1] in writable]
        open_ones = [each for each in every if not _is_read_only(each[0])]
        return usually(st.sampled_from(open_ones), st.sampled_from(every)).flatmap(self._writing)

    def _writing(self, route: tuple[str, str]) -> Strategy:
        rule, method = route
        type_, relation = _parse_rule(rule) or (self.types[0], None)

        def write_to(path: str) -> Strategy:
            id_ = path.split("/")[3] if "<id>" in rule else None
            document = (
                self.document(type_, int(id_) if id_ and id_.isdigit() else id_)
                if relation is None
                else usually(st.fixed_dictionaries({"data": self.linkage(relation)}))
            )
            included = self._join_parameter("include", self._path(type_, 2))
            query = (
                optionally(included, "") if relation is None and method != "DELETE" else usually(st.just(""), included)
            )
            body = st.none() if method == "DELETE" and relation is None else document.map(json.dumps)
            return st.builds(Request, self.roles, st.just(method), st.just(path), query, self.conditions(method), body)

        return self.path(rule).flatmap(write_to)

    def operating(self) -> Strategy:
        """Return a strategy for requests with atomic operations."""
        headers = st.just({"Content-Type": f'{JSONAPI}; ext="{EXTENSION}"'})
        body = self.operations().map(json.dumps)
        return st.builds(Request, self.roles, st.just("POST"), st.just("/v1/operations"), st.just(""), headers, body)

    def anything(self) -> Strategy:
        """Return a strategy for any method on any route, with headers and a body that may not fit."""
        methods = ["GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "TRACE", "X"]
        fitting = [(rule, method) for rule, known in self.routes for method in known]
        route = st.sampled_from(fitting) | st.tuples(
            st.sampled_from(fitting).map(lambda each: each[0]), st.sampled_from(methods)
        )
        query = optionally(st.sampled_from(self.types).flatmap(self.query), "")
        accounts = st.dictionaries(st.sampled_from(["email", "password", "token", "data"]), odd_json, max_size=3)
        documents = st.sampled_from(self.types).flatmap(self.document)
        body = st.none() | st.one_of(accounts, documents, odd_json).map(json.dumps) | odd_text
        return route.flatmap(
            lambda each: st.builds(Request, self.roles, st.just(each[1]), self.path(each[0]), query, headers(), body)
        )

    def path(self, rule: str) -> Strategy:
        """Return a strategy for paths of a route, with its variables replaced."""
        type_ = next((each for each in self.types if rule.startswith(f"{each.path}/")), self.types[0])
        names: list[Any] = [*self.ids[type_.name], *(self.identifiers if type_.name == "event" else ())]
        name = usually(st.sampled_from(names).map(str), odd_text.filter(bool))
        return name.map(lambda text: rule.replace("<id>", quote(text, safe="", errors="surrogatepass")))

    def conditions(self, method: str) -> Strategy:
        """Return a strategy for headers of a write."""
        key = {"Idempotency-Key": visible_text} if method == "POST" else {}
        return st.fixed_dictionaries({}, optional={"If-Match": st.sampled_from(["*", '"a"', "W/", ""]), **key})


visible_text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


def headers() -> Strategy:
    """Return a strategy for headers of every kind, some of which the API supports."""
    parameters = st.sampled_from(
        ["", "; q=0.5", f'; ext="{EXTENSION}"', f'; profile="{PROFILE}"', "; charset=utf-8", ";"]
    )
    media_type = st.builds(
        "".join, st.tuples(st.sampled_from([JSONAPI, "application/json", "*/*", "text"]), parameters)
    )
    named = {
        "Accept": media_type,
        "Content-Type": media_type,
        "Authorization": st.sampled_from(["JWT", "Bearer a.b.c", "Basic YTpi", "JWT " + "x" * 5000]),
        "If-None-Match": st.sampled_from(["*", '"a", W/"b"', ","]),
        "If-Match": st.sampled_from(["*", '"a", W/"b"', ","]),
        "Idempotency-Key": st.sampled_from(["a", "a b", "x" * 300]),
        "X-Request-ID": st.sampled_from(["a", "{}", "x" * 300]),
        "Range": st.sampled_from(["bytes=0-1", "bytes=-", "x"]),
        "Origin": st.just("https://example.com"),
        "Host": st.sampled_from(["evil.example", "a b", "[", ""]),
        "X-Forwarded-For": st.just("1.2.3.4"),
    }
    return st.fixed_dictionaries({}, optional={name: usually(usual, visible_text) for name, usual in named.items()})


def _parse_rule(rule: str) -> tuple[ResourceType, Relation | None] | None:
    """Return the type and the relationship of a resource route, or None."""
    for type_ in TYPES.values():
        if rule == type_.path or rule.startswith((f"{type_.path}/<id>", f"{type_.path}/upcoming")):
            return type_, type_.find_relation(rule.rpartition("/")[2]) if "<id>/" in rule else None
    return None


def _data(document: Any) -> Any:
    return document.get("data") if isinstance(document, dict) else document


def _with_lid(document: Any) -> Any:
    resource = _data(document)
    return {**resource, "lid": "a"} if isinstance(resource, dict) else resource


def _name(parameter: str) -> str:
    return parameter.partition("=")[0]


def _comparable(type_: ResourceType) -> Strategy:
    """Return a strategy for attributes that at least admins can filter by, and sometimes another one."""
    kinds = (Text, Boolean, Integer, Number, DateTime)
    usual = [each for each in type_.attributes.values() if each.is_readable and isinstance(each.field, kinds)]
    return usually(st.sampled_from(usual), st.sampled_from([*type_.attributes.values()]))


def _operators(attribute: Attribute) -> list[str]:
    """Return the operators that support the attribute and a single value."""
    unfit = {"is-null"} if isinstance(attribute.field, Text) else {"is-null", "like", "ilike"}
    unfit |= {"gt", "ge", "lt", "le"} if isinstance(attribute.field, Boolean) else set()
    return sorted(OPERATORS.keys() - unfit)


def _parameter(name: str, value: str) -> str:
    return f"{quote(name, safe='[]', errors='surrogatepass')}={quote(value, safe=',', errors='surrogatepass')}"


def _field_name(type_: ResourceType) -> Strategy:
    return st.sampled_from([*type_.attributes, *type_.relations, "id", "password_hash", "owner_id"]).flatmap(
        lambda name: st.sampled_from([name, name.replace("_", "-")])
    )


def _is_read_only(rule: str) -> bool:
    """Return whether the relationship of a route is read-only on this side."""
    named = _parse_rule(rule)
    return named is not None and named[1] is not None and named[1].field.dump_only


def _attributes(draw: Any, required: Iterable[Attribute], known: list[Attribute]) -> dict[str, Any]:
    writable = [each for each in known if not each.field.dump_only] or known
    chosen = [*required, *draw(st.lists(usually(st.sampled_from(writable), st.sampled_from(known)), max_size=2))]
    made = {draw(spellings(each.key)): draw(usually(field_values(each.field))) for each in chosen}
    if draw(usually(st.just(False), st.just(True))):
        made[draw(odd_text | st.just("@at"))] = draw(odd_json)
    return made
