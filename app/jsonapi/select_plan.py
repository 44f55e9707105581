"""Select plans: the columns to select for a type, and the serialization of their rows; built once and cached."""

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any
from uuid import UUID

import marshmallow
from sqlalchemy import ColumnElement, False_, Select, String, True_, func, select

from app.database import Row, text_sort_key
from app.encryption import build_associated_data, try_decrypt_text
from app.jsonapi.cursors import SortColumn, is_sorted_as_text
from app.jsonapi.filters import linkage_key
from app.jsonapi.permissions import VisibilityScope
from app.jsonapi.query_params import SortKey
from app.jsonapi.resource_type import Relation, ResourceType

Item = dict[str, Any]


class SelectPlan:
    """SELECT statement and serializer of one type, for one visibility scope and one sparse fieldset.

    A row has: id, name in links, visibility of private attributes, to-one keys, public attributes, private attributes;
    then all columns if an attribute is computed from them; then the bytes of its long texts if it has any.
    """

    def __init__(
        self, resource_type: ResourceType, scope: VisibilityScope, fields: frozenset[str] | None, related: bool
    ) -> None:
        self.type = resource_type
        self.scope = scope
        table, permissions = resource_type.table, resource_type.permissions
        requested = fields if fields is not None else frozenset((*resource_type.attributes, *resource_type.relations))
        readable = [each for name, each in resource_type.attributes.items() if each.is_readable and name in requested]
        printed = [each for each in readable if each.is_column]
        public = [each for each in printed if each.name not in permissions.private]
        private = [each for each in printed if each.name in permissions.private]
        sees_private = permissions.sees_private(scope, table)
        if isinstance(sees_private, False_):
            private = []
        self.to_one = {name: 3 + at for at, name in enumerate(_to_one_names(resource_type))}
        relations = [each for name, each in resource_type.relations.items() if name in requested]
        self.to_many_links = [
            (each.key, f"/relationships/{each.key}", f"/{each.key}") for each in relations if each.many
        ]
        self.to_one_links = [
            (each.key, f"/relationships/{each.key}", f"/{each.key}", self.to_one[each.name], each.field.type_)
            for each in relations
            if not each.many
        ]
        self.has_relationships = bool(relations)
        self.path = resource_type.path
        self.name = resource_type.name
        self.public_keys = [each.key for each in public]
        self.all_keys = [each.key for each in (*public, *private)]
        self.first = 3 + len(self.to_one)
        self.computed = [each for each in readable if not each.is_column]
        self.sealed = [each for each in private if each.is_sealed]
        self.row_from = self.first + len(self.all_keys)
        self.hides_private = not isinstance(sees_private, True_)
        self.hides_links = self.hides_private and not permissions.keeps_links
        self.min_bytes = _count_structure_bytes(self)
        long_columns = [each.expression(table) for each in (*public, *private) if each.is_long]
        long_texts = [each for each in long_columns if isinstance(each.type, String)]
        self.has_long_texts = bool(long_texts)
        self.columns = (
            table.c.id,
            resource_type.link_name(table),
            sees_private.label("sees_private"),
            *(linkage_key(resource_type.relations[name], table, scope).label(name) for name in self.to_one),
            *(each.expression(table).label(each.name) for each in (*public, *private)),
            *(table.c if self.computed else ()),
            *((_count_text_bytes(long_texts),) if long_texts else ()),
        )
        self._text_bytes = itemgetter(len(self.columns) - 1)
        self.criterion = permissions.visibility_criterion(scope, table, related=related)
        self.statement: Select[Any] = select(*self.columns).select_from(table).where(self.criterion)

    def is_full(self, row: Row) -> bool:
        """Return whether this row is serialized with relationships and links, not as a public profile."""
        return not self.hides_links or bool(row[2])

    def estimate_bytes(self, rows: Collection[Row]) -> int:
        """Return a lower estimate of the bytes of the serialized rows: their structure and long texts."""
        structure = self.min_bytes * len(rows)
        return structure + sum(map(self._text_bytes, rows)) if self.has_long_texts else structure

    def serialize_row(self, row: Row) -> Item:
        """Return the resource object of a row; inclusion adds the data of to-many relationships."""
        whole = self.is_full(row)
        sees_private = not self.hides_private or bool(row[2])
        keys = self.all_keys if sees_private else self.public_keys
        item: Item = {"type": self.name, "id": str(row[0])}
        if keys:
            item["attributes"] = dict(zip(keys, row[self.first :], strict=False))
        if self.sealed and sees_private:
            item["attributes"].update(self._decrypt_attributes(row, item["attributes"]))
        if self.computed:
            item.setdefault("attributes", {}).update(self._serialize_computed(row, sees_private))
        if whole:
            base = f"{self.path}/{row[1]}"
            if self.has_relationships:
                item["relationships"] = self._serialize_relationships(base, row)
            item["links"] = {"self": base}
        return item

    def _decrypt_attributes(self, row: Row, attributes: Item) -> Item:
        """Return the encrypted attributes, decrypted."""
        return {each.key: decrypt_value(self.type, each.name, row[0], attributes[each.key]) for each in self.sealed}

    def _serialize_computed(self, row: Row, sees_private: bool) -> Item:
        """Return the attributes that marshmallow computes from the row of the table."""
        values = self.type.row(*row[self.row_from : self.row_from + len(self.type.table.c)])
        visible = [each for each in self.computed if sees_private or each.name not in self.type.permissions.private]
        return {each.key: each.field.serialize(each.name, values) for each in visible}

    def _serialize_relationships(self, base: str, row: Row) -> Item:
        """Return the relationships of a row; in one function for speed, as it is called for every row of every list."""
        printed: Item = {}
        for key, own, related, at, type_ in self.to_one_links:
            id_ = row[at]
            printed[key] = {
                "links": {"self": base + own, "related": base + related},
                "data": None if id_ is None else {"type": type_, "id": str(id_)},
            }
        for key, own, related in self.to_many_links:
            printed[key] = {"links": {"self": base + own, "related": base + related}}
        return printed


def decrypt_value(resource_type: ResourceType, name: str, row_id: Any, stored: str | None) -> str | None:
    """Return the decrypted value of a column of a row."""
    return stored and try_decrypt_text(stored, build_associated_data(resource_type.table.name, name, row_id))


@lru_cache(maxsize=1024)
def get_select_plan(
    resource_type: ResourceType, scope: VisibilityScope, fields: frozenset[str] | None = None, *, related: bool = False
) -> SelectPlan:
    """Return the cached plan of a type; clients choose the fields, so the size of the cache is limited."""
    return SelectPlan(resource_type, scope, fields, related)


def _count_text_bytes(texts: Sequence[ColumnElement[Any]]) -> ColumnElement[int]:
    """Return the sum of the bytes of these columns; PostgreSQL computes it without reading TOAST values."""
    lengths = [func.coalesce(func.octet_length(each), 0) for each in texts]
    return sum(lengths[1:], lengths[0]).label("text_bytes")


def _count_structure_bytes(plan: SelectPlan) -> int:
    """Return the bytes of the member names and links of a resource."""
    attributes = sum(len(f'"{key}":0,') for key in plan.public_keys)
    links = [*plan.to_many_links, *(each[:3] for each in plan.to_one_links)]
    return attributes + sum(2 * len(plan.path) + len(own) + len(related) for _key, own, related in links)


def resource_identifier(relation: Relation, id_: int | UUID | None) -> Item | None:
    """Return a resource identifier object, or None for no id."""
    return None if id_ is None else {"type": relation.field.type_, "id": str(id_)}


def build_sort_columns(
    resource_type: ResourceType, sort: Iterable[SortKey], default: tuple[str, ...], scope: VisibilityScope
) -> tuple[SortColumn, ...]:
    """Return the requested sort keys, or the default ones, with the id last, so that the order is total.

    Columns of a default order must not be null in any row of the list, so that one index range contains the next page.
    """
    requested = [_build_sort_column(resource_type, key, scope) for key in sort]
    keys = requested or [_default_sort_column(resource_type, name) for name in default]
    if keys and keys[-1].column is resource_type.table.c.id:
        return tuple(keys)
    return (*keys, _default_sort_column(resource_type, "id"))


def _default_sort_column(resource_type: ResourceType, spelled: str) -> SortColumn:
    name = spelled.removeprefix("-")
    field = None if name == "id" else resource_type.attributes[name].field
    column = resource_type.table.c[name]
    return SortColumn(column, _sort_expression(column, field), spelled != name, False, field, resource_type)


def default_order_by(
    resource_type: ResourceType, scope: VisibilityScope, order: tuple[str, ...] | None = None
) -> list[ColumnElement[Any]]:
    """Return the ORDER BY terms of the default order."""
    return [
        key.order_by_clause(backwards=False)
        for key in build_sort_columns(resource_type, (), order or resource_type.order, scope)
    ]


def _build_sort_column(resource_type: ResourceType, key: SortKey, scope: VisibilityScope) -> SortColumn:
    table, field = resource_type.table, None if key.attribute is None else key.attribute.field
    if key.through is None or key.through.local is None:
        column = table.c.id if key.attribute is None else key.attribute.expression(table)
        nullable = bool(getattr(column, "nullable", True))
        return SortColumn(column, _sort_expression(column, field), key.descending, nullable, field, resource_type)
    target = key.through.target
    other = target.table.alias()
    expression = other.c.id if key.attribute is None else key.attribute.expression(other)
    criterion = target.permissions.visibility_criterion(scope, other, related=True)
    near = table.c[key.through.local]
    column, sort_expression = (
        select(each).where(other.c.id == near, criterion).scalar_subquery()
        for each in (expression, _sort_expression(expression, field))
    )
    return SortColumn(column, sort_expression, key.descending, True, field, target)


def _sort_expression(expression: ColumnElement[Any], field: marshmallow.fields.Field[Any] | None) -> ColumnElement[Any]:
    """Return the expression to sort by: the collation key of a text, else the value itself."""
    return text_sort_key(expression) if is_sorted_as_text(field) else expression


def _to_one_names(resource_type: ResourceType) -> list[str]:
    return [name for name, relation in resource_type.relations.items() if not relation.many]
