"""Queries for the options of forms: document sets, and the events, FAQs and uploads for a new set."""

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    Table,
    bindparam,
    func,
    literal_column,
    select,
)

from app.database import PreparedStatement
from app.documents.models import SET_EVENTS, SET_FAQS, SET_UPLOADS, DocumentSet
from app.events.models import Event, EventRole
from app.events.permissions import is_visible, is_visible_with_event
from app.faqs.models import Faq
from app.jsonapi.current_user import CURRENT_USER_ID
from app.jsonapi.permissions import AccessContext, Criterion, VisibilityScope
from app.jsonapi.select_statements import id_in
from app.uploads.models import Upload
from app.users.ownership import is_live_and_owned

MAX_SETS = 100
"""Maximum document sets to choose from."""
MAX_EVENTS = 100
MAX_UPLOADS = 60
PAGE_SIZE = 20
"""Document sets on one page of their list."""

_sets, _roles = DocumentSet.__table__, EventRole.__table__
_events, _faqs, _uploads = Event.__table__, Faq.__table__, Upload.__table__


class SetOption(NamedTuple):
    """A document set, with the numbers of its members that the viewer may see."""

    id: int
    title: str
    created_at: datetime
    events: int
    faqs: int
    uploads: int


class LabelledOption(NamedTuple):
    """An event or a FAQ to choose."""

    id: int
    label: str


class UploadOption(NamedTuple):
    """An upload to choose."""

    id: int
    storage_key: str
    width: int
    height: int


def list_own_sets(access: AccessContext, limit: int, older: int | None = None) -> list[SetOption]:
    """Return the newest document sets of the viewer, optionally those older than the set with an id."""
    rows = _select_own_sets(access.scope, limit, older is not None).fetch_rows(
        {**access.sql_parameters(), "older": older}
    )
    return [SetOption(*row) for row in rows]


def get_set_by_id(access: AccessContext, id_: int) -> SetOption | None:
    """Return the document set with this id; None if it does not exist or is not visible."""
    rows = _select_sets_by_id(access.scope).fetch_rows({**access.sql_parameters(), "ids": [id_]})
    return next((SetOption(*row) for row in rows), None)


def list_event_options(access: AccessContext, ids: Iterable[int]) -> list[LabelledOption]:
    """Return the visible events with these ids, and the newest events of the viewer's teams."""
    return [LabelledOption(*row) for row in _fetch_by_id_and_own(_select_events_by_id, _select_own_events, access, ids)]


def list_faq_options(access: AccessContext, ids: Iterable[int]) -> list[LabelledOption]:
    """Return the visible FAQs with these ids."""
    return [LabelledOption(*row) for row in _fetch_by_id(_select_faqs_by_id, access, ids)]


def list_upload_options(access: AccessContext, ids: Iterable[int]) -> list[UploadOption]:
    """Return the visible uploads with these ids, and the newest uploads of the viewer."""
    return [UploadOption(*row) for row in _fetch_by_id_and_own(_select_uploads_by_id, _select_own_uploads, access, ids)]


StatementFactory = Callable[[VisibilityScope], PreparedStatement]


def _fetch_by_id_and_own(
    by_id: StatementFactory, own: StatementFactory, access: AccessContext, ids: Iterable[int]
) -> list[Any]:
    """Return the rows with these ids, then the viewer's own rows, without duplicates."""
    rows = [*_fetch_by_id(by_id, access, ids), *own(access.scope).fetch_rows(access.sql_parameters())]
    return list({row[0]: row for row in reversed(rows)}.values())[::-1]


def _fetch_by_id(by_id: StatementFactory, access: AccessContext, ids: Iterable[int]) -> list[Any]:
    sorted_ids = sorted(ids)
    return list(by_id(access.scope).fetch_rows({**access.sql_parameters(), "ids": sorted_ids})) if sorted_ids else []


@cache
def _select_events_by_id(scope: VisibilityScope) -> PreparedStatement:
    return _prepare_by_id(_events, (_events.c.id, _events.c.name), is_visible(scope, _events))


@cache
def _select_faqs_by_id(scope: VisibilityScope) -> PreparedStatement:
    return _prepare_by_id(_faqs, (_faqs.c.id, _faqs.c.question), is_visible_with_event(scope, _faqs))


@cache
def _select_uploads_by_id(scope: VisibilityScope) -> PreparedStatement:
    return _prepare_by_id(_uploads, _get_upload_columns(), is_live_and_owned(scope, _uploads))


@cache
def _select_own_events(_scope: VisibilityScope) -> PreparedStatement:
    joined = _events.join(_roles, _roles.c.event_id == _events.c.id)
    mine = select(_events.c.id, _events.c.name).select_from(joined).where(_roles.c.user_id == CURRENT_USER_ID)
    return _prepare_newest(mine, _events, MAX_EVENTS)


@cache
def _select_own_uploads(_scope: VisibilityScope) -> PreparedStatement:
    return _prepare_newest(
        select(*_get_upload_columns()).where(_uploads.c.owner_id == CURRENT_USER_ID), _uploads, MAX_UPLOADS
    )


@cache
def _select_own_sets(scope: VisibilityScope, limit: int, is_older: bool) -> PreparedStatement:
    statement = _select_with_counts(scope).where(_sets.c.owner_id == CURRENT_USER_ID)
    if is_older:
        statement = statement.where(_sets.c.id < bindparam("older", type_=BigInteger))
    return _prepare_newest(statement, _sets, limit)


@cache
def _select_sets_by_id(scope: VisibilityScope) -> PreparedStatement:
    return PreparedStatement(_select_with_counts(scope).where(id_in(_sets.c.id), is_live_and_owned(scope, _sets)))


def _get_upload_columns() -> tuple[ColumnElement[Any], ...]:
    return tuple(_uploads.c[name] for name in UploadOption._fields)


def _prepare_by_id(table: FromClause, columns: tuple[Any, ...], seen: ColumnElement[bool]) -> PreparedStatement:
    return PreparedStatement(select(*columns).where(id_in(table.c.id), seen).order_by(table.c.id.desc()))


def _prepare_newest(statement: Select[Any], table: FromClause, limit: int) -> PreparedStatement:
    live = statement.where(table.c.deleted_at.is_(None)).order_by(table.c.id.desc())
    return PreparedStatement(live.limit(literal_column(str(limit), Integer)))


def _select_with_counts(scope: VisibilityScope) -> Select[Any]:
    counts = (
        _count_members(scope, SET_EVENTS, _events, is_visible),
        _count_members(scope, SET_FAQS, _faqs, is_visible_with_event),
        _count_members(scope, SET_UPLOADS, _uploads, is_live_and_owned),
    )
    return select(_sets.c.id, _sets.c.title, _sets.c.created_at, *counts)


def _count_members(scope: VisibilityScope, between: Table, table: FromClause, seen: Criterion) -> ColumnElement[int]:
    near, far = between.c
    joined = between.join(table, table.c.id == far)
    counted = select(func.count()).select_from(joined).where(near == _sets.c.id, seen(scope, table))
    return counted.correlate(_sets).scalar_subquery()
