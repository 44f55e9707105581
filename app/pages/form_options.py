"""What the forms offer to choose from: document sets, and the events, FAQs and uploads that make one."""

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
"""The newest ones, to be chosen from."""
MAX_EVENTS = 100
MAX_UPLOADS = 60
PAGE_SIZE = 20
"""Sets on one page of their list."""

_sets, _roles = DocumentSet.__table__, EventRole.__table__
_events, _faqs, _uploads = Event.__table__, Faq.__table__, Upload.__table__


class SetOption(NamedTuple):
    """A document set, and how many things in it the viewer sees now."""

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
    """The viewer's newest sets, or those older than one of them."""
    found = _select_own_sets(access.scope, limit, older is not None).fetch_rows(
        {**access.sql_parameters(), "older": older}
    )
    return [SetOption(*row) for row in found]


def get_set_by_id(access: AccessContext, id_: int) -> SetOption | None:
    """The set with this id, None where the viewer sees none."""
    found = _select_sets_by_id(access.scope).fetch_rows({**access.sql_parameters(), "ids": [id_]})
    return next((SetOption(*row) for row in found), None)


def list_event_options(access: AccessContext, named: Iterable[int]) -> list[LabelledOption]:
    """The events with these ids, and the newest ones of the viewer's teams."""
    return [
        LabelledOption(*row) for row in _fetch_by_id_and_own(_select_events_by_id, _select_own_events, access, named)
    ]


def list_faq_options(access: AccessContext, named: Iterable[int]) -> list[LabelledOption]:
    """The FAQs with these ids."""
    return [LabelledOption(*row) for row in _fetch_by_id(_select_faqs_by_id, access, named)]


def list_upload_options(access: AccessContext, named: Iterable[int]) -> list[UploadOption]:
    """The uploads with these ids, and the viewer's newest ones."""
    return [
        UploadOption(*row) for row in _fetch_by_id_and_own(_select_uploads_by_id, _select_own_uploads, access, named)
    ]


StatementFactory = Callable[[VisibilityScope], PreparedStatement]


def _fetch_by_id_and_own(
    by_id: StatementFactory, own: StatementFactory, access: AccessContext, named: Iterable[int]
) -> list[Any]:
    """Without the same twice; what was named comes first."""
    found = [*_fetch_by_id(by_id, access, named), *own(access.scope).fetch_rows(access.sql_parameters())]
    return list({row[0]: row for row in reversed(found)}.values())[::-1]


def _fetch_by_id(by_id: StatementFactory, access: AccessContext, named: Iterable[int]) -> list[Any]:
    ids = sorted(named)
    return list(by_id(access.scope).fetch_rows({**access.sql_parameters(), "ids": ids})) if ids else []


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
