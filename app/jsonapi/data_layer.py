"""Data layer: creation, update and deletion of resources in one transaction.

`DataLayer` is the extension point of the library and has the hooks that packages override. It does not commit: the
view commits when the response is complete, so that no 500 can follow a committed write.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from flask_rest_jsonapi_next.data_layers.base import BaseDataLayer

from app.database import get_connection
from app.errors import ApiError, Forbidden, NotFound, Unprocessable, raise_errors
from app.jsonapi import repository, select_statements
from app.jsonapi.current_user import CurrentUser
from app.jsonapi.document_parser import Linkage, ResourceDocument
from app.jsonapi.permissions import AccessContext
from app.jsonapi.resource_type import Relation, ResourceType
from app.jsonapi.select_plan import get_select_plan
from app.jsonapi.validation import check_size, filter_writable, is_read_only, load_attributes, validate_object

Mode = Literal["add", "remove", "replace"]


@dataclass(frozen=True)
class ToManyChange:
    """A change of a to-many relationship, and the JSON pointer of its linkage."""

    relation: Relation
    ids: list[Any]
    mode: Mode
    pointer: str

    def lock_rows(
        self, access: AccessContext, also: Iterable[int] = (), *, lock: repository.Lock = "share"
    ) -> dict[int, Any]:
        """Lock and return the linked rows by id; raise NotFound if the current user cannot see a row to link."""
        wanted = {*self.ids, *also}
        found = {row.id: row for row in repository.lock_related(self.relation, wanted, access, lock=lock)}
        if self.mode != "remove" and not found.keys() >= set(self.ids):
            raise NotFound(f"There is no such {self.relation.target.name} here.", pointer=self.pointer)
        return found


@dataclass(frozen=True)
class SentResource:
    """A resource object as sent, not validated yet, and its JSON pointer."""

    data: Mapping[str, Any]
    pointer: str


RelatedRows = list[tuple[Relation, Any]]
"""To-one relationships, each with its linked row or None."""


DATA_LAYERS: dict[str, "DataLayer"] = {}
"""Data layer of each resource type, by name."""


class DataLayer(BaseDataLayer):  # type: ignore[misc]  # the library carries no types
    """Creates, updates and soft-deletes rows of one resource type."""

    type: ResourceType
    """Resource type, set by the library from `data_layer` of the view."""

    has_slow_work: ClassVar[bool] = False
    """True if `before_transaction` is overridden."""

    # Hooks that packages override

    def before_transaction(self, resources: Sequence[SentResource], viewer: CurrentUser) -> None:
        """Do slow work for all resources of one request, or reject them, while no database connection is held."""

    def before_create_object(self, data: dict[str, Any], access: AccessContext) -> None:
        """Complete or reject the values of a new row."""

    def after_create_object(self, row: Any, access: AccessContext) -> None:
        """Write rows that depend on the new row."""

    def before_update_object(self, row: Any, data: dict[str, Any], access: AccessContext) -> None:
        """Complete or reject the new values of a row."""

    def after_update_object(self, row: Any, data: dict[str, Any], access: AccessContext) -> None:
        """Write rows that depend on the new values of a row."""

    def before_delete_object(self, row: Any, access: AccessContext) -> None:
        """Reject the deletion of a row."""

    def check_related(self, values: Mapping[str, Any], relation: Relation, other: Any) -> None:
        """Reject a linked row of a to-one relationship that is not compatible with these values."""

    def change_related(self, row: Any, change: ToManyChange, access: AccessContext) -> None:
        """Add, remove or replace the links of a to-many relationship."""
        raise Forbidden(f"{change.relation.key} is not changed from this side.", pointer=change.pointer)

    def require_relationship_permission(
        self, row: Any, relation: Relation, change: "ToManyChange | None", access: AccessContext
    ) -> None:
        """Raise Forbidden unless the current user may change this relationship of the row."""
        pointer = change.pointer if change else f"/data/relationships/{relation.key}"
        access.require_permission(self.type.permissions.relationship_predicate(relation.name), row, pointer=pointer)

    def get_answer_access(self, row: Any, access: AccessContext) -> AccessContext:
        """Return the access that reads the response to a write; a new user reads their own account."""
        return access

    # Called by views

    def create_object(self, document: ResourceDocument, access: AccessContext) -> Any:
        """Insert the resource of a document and return its row."""
        data = self.validate_new(document, access)
        self.before_create_object(data, access)
        row = repository.insert_row(self.type, data)
        self.after_create_object(row, access)
        for change in self._to_many_changes(row, document.relationships, access):
            self.require_relationship_permission(row, change.relation, change, access)
            self._apply_change(row, change, access)
        return row

    def validate_new(self, document: ResourceDocument, access: AccessContext) -> dict[str, Any]:
        """Return the column values of a new resource; raise errors if they are invalid or creation is not permitted."""
        sent = filter_writable(self.type, document.attributes, {}, access, None)
        data, errors = load_attributes(self.type, sent, partial=False)
        errors += document.errors
        missing = self._find_missing_relationships(document)
        raise_errors([*errors, *missing] if missing else [])
        related = self._lock_related(document.relationships, access)
        data |= _foreign_keys(related)
        access.require_permission(self.type.permissions.create, data)
        raise_errors([*errors, *validate_object(self.type, data, errors), *check_size(self.type, data, data, {})])
        self._check_related_rows(data, related)
        return data

    def get_object(self, named: tuple[str, Any] | None, access: AccessContext) -> Any:
        """Lock and return the visible row whose column has this value; None if there is none."""
        return named and repository.get_for_update(self.type, named, access)

    def update_object(self, row: Any, document: ResourceDocument, access: AccessContext) -> None:
        """Update the attributes and relationships that the document contains."""
        access.require_permission(self.type.permissions.update, row)
        restoring = self._extract_restore(row, document, access)
        sent = filter_writable(
            self.type, document.attributes, self._serialize_current(row, document, access), access, row
        )
        data, errors = load_attributes(self.type, sent, partial=True)
        errors += document.errors
        changed = self._to_one_changes(row, document.relationships, access)
        for name in changed:
            self.require_relationship_permission(row, self.type.relations[name], None, access)
        # A new to-one link, such as a new owner, may itself change a to-many relationship of the same document.
        for change in self._to_many_changes(row, document.relationships, access, also_same=bool(changed)):
            self.require_relationship_permission(row, change.relation, change, access)
        related = self._lock_related(changed, access)
        data |= _foreign_keys(related) | restoring
        before = self._get_values(row)
        whole = before | data
        raise_errors([*errors, *validate_object(self.type, whole, errors), *check_size(self.type, whole, data, before)])
        self._check_related_rows(whole, related)
        row = self._update_row(row, data, access)
        for change in self._to_many_changes(row, document.relationships, access):
            self._apply_change(row, change, access)
        for change in self._to_many_changes(row, document.relationships, access):
            raise Unprocessable("This contradicts another relationship of the document.", pointer=change.pointer)

    def delete_object(self, row: Any, access: AccessContext) -> None:
        """Soft-delete a row."""
        access.require_permission(self.type.permissions.delete, row)
        self.before_delete_object(row, access)
        if row.deleted_at is None:
            repository.update_row(self.type, row, {"deleted_at": datetime.now(UTC)})

    def update_relationship(
        self, row: Any, relation: Relation, linkage: Linkage, mode: Mode, access: AccessContext
    ) -> None:
        """Change one relationship of a row."""
        change = ToManyChange(relation, linkage, mode, "/data") if isinstance(linkage, list) else None
        self.require_relationship_permission(row, relation, change, access)
        if change is not None:
            self._refuse_read_only(relation, "/data")
            self._apply_change(row, change, access)
            return
        if linkage is None and relation.field.required:
            raise Unprocessable(f"{relation.key} cannot be empty.", pointer="/data")
        is_the_same = relation.local is not None and getattr(row, relation.local) == linkage
        if not is_the_same:
            self._refuse_fixed(relation, "/data")
        related = [] if is_the_same else self._lock_related({relation.name: linkage}, access, "/data")
        self._check_related_rows(self._get_values(row), related)
        self._update_row(row, _foreign_keys(related), access)

    # Steps

    def _apply_change(self, row: Any, change: ToManyChange, access: AccessContext) -> None:
        with repository.unique_violations_as_conflicts(change.relation.target):
            self.change_related(row, change, access)

    def _update_row(self, row: Any, data: dict[str, Any], access: AccessContext) -> Any:
        self.before_update_object(row, data, access)
        stored = repository.update_row(self.type, row, data)
        self.after_update_object(stored, data, access)
        return stored

    def _extract_restore(self, row: Any, document: ResourceDocument, access: AccessContext) -> dict[str, Any]:
        """Return the values that restore a deleted row: for `deleted-at: null` with get_trashed, else none."""
        asked = "deleted_at" in document.attributes and document.attributes["deleted_at"] is None
        if not asked or not access.scope.trashed:
            return {}
        del document.attributes["deleted_at"]
        return {"deleted_at": None}

    def _serialize_current(self, row: Any, document: ResourceDocument, access: AccessContext) -> Mapping[str, Any]:
        """Return the current attributes of the row if the document contains some that the user cannot write."""
        if not any(is_read_only(self.type, name, access, row) for name in document.attributes):
            return {}
        plan = get_select_plan(self.type, access.scope)
        (current,) = select_statements.select_one(plan, "id").fetch_rows({**access.sql_parameters(), "key": row.id})
        printed: Mapping[str, Any] = plan.serialize_row(current).get("attributes", {})
        return printed

    def _find_missing_relationships(self, document: ResourceDocument) -> list[ApiError]:
        return [
            Unprocessable(f"{relation.key} is required.", pointer=f"/data/relationships/{relation.key}")
            for name, relation in self.type.relations.items()
            if relation.field.required and document.relationships.get(name) is None
        ]

    def _to_one_changes(self, row: Any, sent: Mapping[str, Linkage], access: AccessContext) -> dict[str, Linkage]:
        """Return the to-one linkage that differs from the row; raise Forbidden if the relationship is fixed."""
        changed: dict[str, Linkage] = {}
        for name, linkage in sent.items():
            relation = self.type.relations[name]
            if relation.local is None or self._visible_linkage(row, relation, access) == linkage:
                continue
            self._refuse_fixed(relation, f"/data/relationships/{relation.key}")
            changed[name] = linkage
        return changed

    def _visible_linkage(self, row: Any, relation: Relation, access: AccessContext) -> Any:
        """Return the linkage as a read returns it: null if a guarded relationship links to a deleted row."""
        if not relation.field.guarded:
            return getattr(row, str(relation.local))
        statement = select_statements.select_to_one(self.type, relation, access.scope)
        ((linked,),) = statement.fetch_rows({**access.sql_parameters(), "parent_id": row.id})
        return linked

    def _refuse_fixed(self, relation: Relation, pointer: str) -> None:
        if relation.field.fixed:
            raise Forbidden(f"{relation.key} is chosen on creation and stays.", pointer=pointer)
        self._refuse_read_only(relation, pointer)

    def _refuse_read_only(self, relation: Relation, pointer: str) -> None:
        if relation.field.dump_only:
            raise Forbidden(f"{relation.key} is not changed from this side.", pointer=pointer)

    def _lock_related(
        self, sent: Mapping[str, Linkage], access: AccessContext, pointer: str | None = None
    ) -> RelatedRows:
        """Lock and return the rows that to-one linkage names; raise NotFound for rows that the user cannot see."""
        related: RelatedRows = []
        errors: list[ApiError] = []
        for name, linkage in sent.items():
            relation = self.type.relations[name]
            if relation.local is None or isinstance(linkage, list):
                continue
            self._refuse_read_only(relation, pointer or f"/data/relationships/{relation.key}")
            (other,) = (repository.lock_related(relation, [linkage], access) if linkage is not None else ()) or (None,)
            if linkage is not None and other is None:
                at = pointer or f"/data/relationships/{relation.key}/data"
                errors.append(NotFound(f"There is no such {relation.target.name} here.", pointer=at))
            related.append((relation, other))
        raise_errors(errors)
        return related

    def _check_related_rows(self, values: Mapping[str, Any], related: RelatedRows) -> None:
        for relation, other in related:
            if other is not None:
                self.check_related(values, relation, other)

    def _get_values(self, row: Any) -> dict[str, Any]:
        opened = {name: repository.get_column_value(self.type, row, name) for name in self.type.sealed}
        return {**row._asdict(), **opened}

    def _to_many_changes(
        self, row: Any, sent: Mapping[str, Linkage], access: AccessContext, *, also_same: bool = False
    ) -> list[ToManyChange]:
        """Return the changes of to-many relationships in a document; with `also_same` unchanged ones too."""
        changes = []
        for name, linkage in sent.items():
            relation = self.type.relations[name]
            if isinstance(linkage, list) and (
                (also_same and not relation.field.dump_only)
                or set(linkage) != set(get_linked_ids(row, relation, access))
            ):
                self._refuse_read_only(relation, f"/data/relationships/{relation.key}")
                changes.append(ToManyChange(relation, linkage, "replace", f"/data/relationships/{relation.key}/data"))
        return changes


def get_linked_ids(row: Any, relation: Relation, access: AccessContext) -> list[int]:
    """Return the ids that a to-many relationship of the row links to and the current user may see."""
    statement = select_statements.select_to_many(relation, access.scope)
    parameters = {**access.sql_parameters(), "parent_id": row.id}
    return [linked[0] for linked in get_connection().execute(statement, parameters)]


def _foreign_keys(related: RelatedRows) -> dict[str, Any]:
    return {relation.local: other and other.id for relation, other in related if relation.local is not None}
