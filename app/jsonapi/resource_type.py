"""Resource types, each built once from its schema, model and permissions."""

import re
from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

import marshmallow
from sqlalchemy import ColumnElement, FromClause, Table, Uuid, inspect, literal
from sqlalchemy.orm import RelationshipDirection, RelationshipProperty

from app.extensions import Model
from app.jsonapi.fields import Boolean, DateTime, Integer, Number, Relationship, ResourceSchema, Text
from app.jsonapi.inflection import dasherize, list_type_aliases
from app.jsonapi.permissions import Criterion, Permissions
from app.jsonapi.size_limits import LONG_TEXT_LENGTH

MAX_ID = 2**63 - 1
UUID_RE = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Expression = Callable[[FromClause], ColumnElement[Any]]


@dataclass(frozen=True)
class Attribute:
    """An attribute: its field, and the SQL expression of its value; `key` is its dashed name."""

    name: str
    key: str
    field: marshmallow.fields.Field[Any]
    expression: Expression
    is_column: bool = True
    """False if the field computes the value from a row of the table, without SQL."""
    has_sort_index: bool = False
    """True if an index on text_sort_key sorts this text."""

    def comparison_expression(self, table: FromClause) -> ColumnElement[Any]:
        """Return the expression that filters compare with values; patterns are compared with `expression`."""
        expression = self.expression(table)
        return self.field.comparison_column(expression) if isinstance(self.field, Text) else expression

    @property
    def is_volatile(self) -> bool:
        """Return whether the server may update it at any time, so that clients may send back an old value."""
        return bool(self.field.metadata.get("volatile"))

    @property
    def is_sealed(self) -> bool:
        """Return whether the column is encrypted, so that no statement can compare it."""
        return bool(self.field.metadata.get("sealed"))

    @property
    def is_long(self) -> bool:
        """Return whether values may be large: long texts, objects and arrays."""
        if isinstance(self.field, Text):
            return self.field.limit > LONG_TEXT_LENGTH
        return not isinstance(self.field, Boolean | DateTime | Number | Integer)

    @property
    def is_text(self) -> bool:
        """Return whether it sorts in natural language order."""
        return isinstance(self.field, Text) and self.field.sorted_as_text

    @property
    def is_readable(self) -> bool:
        """Return whether responses may contain it; they never contain passwords."""
        return not self.field.load_only


@dataclass(frozen=True)
class Relation:
    """A relationship and the names of its columns.

    To-one: `local` is the foreign key in the own table. To-many: `remote` is the foreign key in the target table. With
    an association table or subquery `secondary`, its columns are `remote` for the own side and `secondary_target`.
    """

    name: str
    key: str
    field: Relationship
    many: bool
    local: str | None = None
    remote: str | None = None
    secondary: FromClause | None = None
    secondary_target: str | None = None
    sees: Criterion | None = None
    """Criterion for the rows in which a guarded to-one relationship can be read; None for all rows."""

    @property
    def target(self) -> "ResourceType":
        """Return the resource type of the related resources."""
        return TYPES[self.field.type_]


class ResourceType:
    """A resource type, registered in `TYPES`."""

    def __init__(
        self,
        *,
        schema: type[ResourceSchema],
        model: type[Model],
        plural: str,
        noun: str,
        description: str,
        permissions: Permissions,
        order: tuple[str, ...] = ("id",),
        computed: Mapping[str, Expression] | None = None,
        conflicts: Mapping[str, tuple[str, str]] | None = None,
        link_name: Expression | None = None,
        lookup: Callable[[str], tuple[str, Any] | None] | None = None,
    ) -> None:
        self.name: str = schema.Meta.type_
        self.plural = plural
        self.noun = noun
        """Noun with article for summaries in the OpenAPI document, such as `an event`."""
        self.description = description
        """One sentence that describes the type in the OpenAPI document."""
        self.model = model
        self.table: Table = model.__table__  # type: ignore[assignment]  # typed as FromClause, is a Table for our models
        self.row: Callable[..., Any] = namedtuple("Row", self.table.c.keys())  # type: ignore[misc]  # known at run time only
        """Named tuple type of the rows of the table."""
        self.key_columns = [column for column in self.table.c if column.primary_key or column.foreign_keys]
        self.keys: Callable[..., Any] = namedtuple("Keys", [column.key for column in self.key_columns])  # type: ignore[misc]  # same
        """Named tuple type of the id and foreign keys of a row."""
        self.permissions = permissions
        self.order = order
        self.conflicts = dict(conflicts or {})
        self.aliases = list_type_aliases(self.name, plural)
        self.link_name = link_name or (lambda table: table.c.id)
        self.has_uuids = isinstance(self.table.c.id.type, Uuid)
        self.parse_id: Callable[[str], Any] = parse_uuid if self.has_uuids else parse_integer_id
        """Function that parses an id; it returns None for ids that no row can have."""
        self.no_id: Any = UUID(int=0) if self.has_uuids else 0
        """Id of no row, which replaces ids that no row can have."""
        self.lookup = lookup or self._lookup_id
        """Function that returns the column and value that identify the row of a URL segment, or None."""
        declared = schema().fields
        self.attributes = {
            name: _build_attribute(self.table, name, field, (computed or {}).get(name))
            for name, field in declared.items()
            if not isinstance(field, Relationship) and name != "id"
        }
        self.sealed = [name for name, each in self.attributes.items() if each.is_sealed]
        self._relationships = {name: field for name, field in declared.items() if isinstance(field, Relationship)}
        self.loader = schema(exclude=tuple(self._relationships))
        self._names = {
            spelled: name for name in (*self.attributes, *self._relationships) for spelled in (name, dasherize(name))
        }
        TYPES[self.name] = self

    @cached_property
    def relations(self) -> dict[str, Relation]:
        """Return relationships by Python name; all models must be imported before."""
        sees = self.permissions.sees_link
        return {
            name: _build_relation(self.model, name, field, sees.get(name))
            for name, field in self._relationships.items()
        }

    def field_name(self, spelled: str) -> str | None:
        """Return the Python name of a field by its dashed or underscored name, or None."""
        return self._names.get(spelled)

    def find_attribute(self, spelled: str) -> Attribute | None:
        """Return an attribute by its dashed or underscored name, or None."""
        return self.attributes.get(self._names.get(spelled, ""))

    def find_relation(self, spelled: str) -> Relation | None:
        """Return a relationship by its dashed or underscored name, or None."""
        return self.relations.get(self._names.get(spelled, ""))

    @cached_property
    def public_fields(self) -> frozenset[str]:
        """Return the names of the fields that every user can read in every visible row."""
        hidden = self.permissions.private | self.permissions.sees_link.keys()
        return frozenset((*self.attributes, *self.relations)) - hidden

    @property
    def path(self) -> str:
        """Return the path of the collection."""
        return f"/v1/{self.plural}"

    def _lookup_id(self, name: str) -> tuple[str, Any] | None:
        id_ = self.parse_id(name)
        return None if id_ is None else ("id", id_)


TYPES: dict[str, ResourceType] = {}


def find_type(text: str) -> ResourceType | None:
    """Return the resource type with this name or alias, or None."""
    return TYPES.get(text) or next((type_ for type_ in TYPES.values() if text in type_.aliases), None)


def parse_integer_id(text: str) -> int | None:
    """Return the number of an id, or None if no row can have it."""
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        return None
    number = int(text)
    return number if 0 < number <= MAX_ID else None


def parse_uuid(text: str) -> UUID | None:
    """Return the UUID of an id in its canonical form (RFC 9562, section 4), or None."""
    return UUID(text) if UUID_RE.fullmatch(text) else None


def by_integer_id(name: str) -> tuple[str, Any] | None:
    """Return the column and value of a numeric id for `lookup`, or None."""
    number = parse_integer_id(name)
    return None if number is None else ("id", number)


def _build_attribute(
    table: Table, name: str, field: marshmallow.fields.Field[Any], computed: Expression | None
) -> Attribute:
    if computed is None and name not in table.c:
        return Attribute(name, dasherize(name), field, lambda _table: literal(None), is_column=False)
    is_indexed = any(str(next(iter(index.expressions))) == f"text_sort_key({name})" for index in table.indexes)
    expression = computed or (lambda source: source.c[name])
    return Attribute(name, dasherize(name), field, expression, has_sort_index=is_indexed)


def _build_relation(model: type[Model], name: str, field: Relationship, sees: Criterion | None) -> Relation:
    declared: RelationshipProperty[Any] = inspect(model).relationships[name]
    key = dasherize(name)
    ((local, remote), *_more) = declared.local_remote_pairs or []
    if declared.direction is RelationshipDirection.MANYTOONE:
        return Relation(name, key, field, many=False, local=local.key, sees=sees)
    if declared.direction is RelationshipDirection.ONETOMANY:
        return Relation(name, key, field, many=True, remote=remote.key)
    ((_parent, near),) = declared.synchronize_pairs
    ((_target, far),) = declared.secondary_synchronize_pairs or []
    return Relation(
        name, key, field, many=True, remote=near.key, secondary=declared.secondary, secondary_target=far.key
    )
