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

from app.database import Prepared
from app.documents.models import SET_EVENTS, SET_FAQS, SET_UPLOADS, DocumentSet
from app.events.models import Event, EventRole
from app.events.permissions import visible, visible_with_event
from app.faqs.models import Faq
from app.jsonapi.permissions import Access, Criterion, Scope
from app.jsonapi.statements import among
from app.jsonapi.viewer import VIEWER_ID
from app.uploads.models import Upload
from app.users.owning import live_own

MOST_SETS = 100
"""The newest ones, to be chosen from."""
MOST_EVENTS = 100
MOST_UPLOADS = 60
PAGE = 20
"""Sets on one page of their list."""

_sets, _roles = DocumentSet.__table__, EventRole.__table__
_events, _faqs, _uploads = Event.__table__, Faq.__table__, Upload.__table__


class Set(NamedTuple):
    """A document set, and how many things in it the viewer sees now."""

    id: int
    title: str
    created_at: datetime
    events: int
    faqs: int
    uploads: int


class Named(NamedTuple):
    """An event or a FAQ to choose."""

    id: int
    words: str


class Sent(NamedTuple):
    """An upload to choose."""

    id: int
    stored_as: str
    width: int
    height: int


def own_sets(access: Access, limit: int, older: int | None = None) -> list[Set]:
    """The viewer's newest sets, or those older than one of them."""
    found = _own_sets(access.scope, limit, older is not None).rows({**access.parameters(), "older": older})
    return [Set(*row) for row in found]


def named_set(access: Access, id_: int) -> Set | None:
    """The set with this id, None where the viewer sees none."""
    found = _named_sets(access.scope).rows({**access.parameters(), "ids": [id_]})
    return next((Set(*row) for row in found), None)


def events(access: Access, named: Iterable[int]) -> list[Named]:
    """The events with these ids, and the newest ones of the viewer's teams."""
    return [Named(*row) for row in _merged(_named_events, _own_events, access, named)]


def faqs(access: Access, named: Iterable[int]) -> list[Named]:
    """The FAQs with these ids."""
    return [Named(*row) for row in _chosen(_named_faqs, access, named)]


def uploads(access: Access, named: Iterable[int]) -> list[Sent]:
    """The uploads with these ids, and the viewer's newest ones."""
    return [Sent(*row) for row in _merged(_named_uploads, _own_uploads, access, named)]


Making = Callable[[Scope], Prepared]


def _merged(by_id: Making, own: Making, access: Access, named: Iterable[int]) -> list[Any]:
    """Without the same twice; what was named comes first."""
    found = [*_chosen(by_id, access, named), *own(access.scope).rows(access.parameters())]
    return list({row[0]: row for row in reversed(found)}.values())[::-1]


def _chosen(by_id: Making, access: Access, named: Iterable[int]) -> list[Any]:
    ids = sorted(named)
    return list(by_id(access.scope).rows({**access.parameters(), "ids": ids})) if ids else []


@cache
def _named_events(scope: Scope) -> Prepared:
    return _by_id(_events, (_events.c.id, _events.c.name), visible(scope, _events))


@cache
def _named_faqs(scope: Scope) -> Prepared:
    return _by_id(_faqs, (_faqs.c.id, _faqs.c.question), visible_with_event(scope, _faqs))


@cache
def _named_uploads(scope: Scope) -> Prepared:
    return _by_id(_uploads, _of_upload(), live_own(scope, _uploads))


@cache
def _own_events(_scope: Scope) -> Prepared:
    joined = _events.join(_roles, _roles.c.event_id == _events.c.id)
    mine = select(_events.c.id, _events.c.name).select_from(joined).where(_roles.c.user_id == VIEWER_ID)
    return _newest(mine, _events, MOST_EVENTS)


@cache
def _own_uploads(_scope: Scope) -> Prepared:
    return _newest(select(*_of_upload()).where(_uploads.c.owner_id == VIEWER_ID), _uploads, MOST_UPLOADS)


@cache
def _own_sets(scope: Scope, limit: int, is_older: bool) -> Prepared:
    statement = _counted(scope).where(_sets.c.owner_id == VIEWER_ID)
    if is_older:
        statement = statement.where(_sets.c.id < bindparam("older", type_=BigInteger))
    return _newest(statement, _sets, limit)


@cache
def _named_sets(scope: Scope) -> Prepared:
    return Prepared(_counted(scope).where(among(_sets.c.id), live_own(scope, _sets)))


def _of_upload() -> tuple[ColumnElement[Any], ...]:
    return tuple(_uploads.c[name] for name in Sent._fields)


def _by_id(table: FromClause, columns: tuple[Any, ...], seen: ColumnElement[bool]) -> Prepared:
    return Prepared(select(*columns).where(among(table.c.id), seen).order_by(table.c.id.desc()))


def _newest(statement: Select[Any], table: FromClause, limit: int) -> Prepared:
    live = statement.where(table.c.deleted_at.is_(None)).order_by(table.c.id.desc())
    return Prepared(live.limit(literal_column(str(limit), Integer)))


def _counted(scope: Scope) -> Select[Any]:
    counts = (
        _count(scope, SET_EVENTS, _events, visible),
        _count(scope, SET_FAQS, _faqs, visible_with_event),
        _count(scope, SET_UPLOADS, _uploads, live_own),
    )
    return select(_sets.c.id, _sets.c.title, _sets.c.created_at, *counts)


def _count(scope: Scope, between: Table, table: FromClause, seen: Criterion) -> ColumnElement[int]:
    near, far = between.c
    joined = between.join(table, table.c.id == far)
    counted = select(func.count()).select_from(joined).where(near == _sets.c.id, seen(scope, table))
    return counted.correlate(_sets).scalar_subquery()
