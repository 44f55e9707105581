"""The page of all jobs: those that run, those that wait and those that have ended, narrowed by kind and state."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from app.errors import InvalidParameter
from app.jobs.kinds import KINDS
from app.jobs.models import ENDED, LIVE, QUEUED, STATES
from app.jobs.submission import is_offered
from app.jsonapi.body import UNSTORABLE
from app.jsonapi.permissions import Access
from app.jsonapi.resource_type import parse_uuid
from app.pages import reading, shown

BUSY = tuple(state for state in LIVE if state != QUEUED)
WAITING = (QUEUED,)
LONGEST_KIND = 200


@dataclass(frozen=True)
class Filters:
    """What is asked of the list: empty where it is not; `older` names the job where the page before ended."""

    kind: str = ""
    state: str = ""
    older: UUID | None = None

    def url(self, path: str = "/jobs", **more: object) -> str:
        """The list with these filters, from the newest job on unless `more` says otherwise."""
        asked = {"kind": self.kind, "state": self.state, **more}
        query = urlencode({name: value for name, value in asked.items() if value})
        return f"{path}?{query}" if query else path


@dataclass(frozen=True)
class Section:
    """Some of the jobs; where there are more of them, `more` leads to those."""

    title: str
    states: tuple[str, ...]
    jobs: list[shown.Shown]
    more: str = ""


def read_filters(asked: Mapping[str, str]) -> Filters:
    """The filters in a query string; 400 for a state or a page that cannot be."""
    kind, state, older = (asked.get(name, "") for name in ("kind", "state", "older"))
    if len(kind) > LONGEST_KIND or UNSTORABLE.search(kind):
        raise InvalidParameter("There is no such kind of job.", parameter="kind")
    if state and state not in STATES:
        raise InvalidParameter("There is no such state of a job.", parameter="state")
    if older and parse_uuid(older) is None:
        raise InvalidParameter("There is no such page.", parameter="older")
    return Filters(kind, state, parse_uuid(older))


def sections(access: Access, filters: Filters) -> list[Section]:
    """What the page shows: beside those that live, the newest that have ended; of one state, or further on, a page."""
    if filters.state:
        return [_paged(access, filters, shown.STATES[filters.state], (filters.state,))]
    ended = _paged(access, filters, "Finished", ENDED)
    if filters.older:
        return [ended]
    return [_live(access, filters, "Running", BUSY), _live(access, filters, "Waiting", WAITING), ended]


def kinds(filters: Filters) -> list[str]:
    """The kinds to choose from; one that is asked for is among them."""
    offered = {kind.name for kind in KINDS.values() if is_offered(kind)}
    return sorted(offered | ({filters.kind} if filters.kind else set()))


def _paged(access: Access, filters: Filters, title: str, states: tuple[str, ...]) -> Section:
    found, has_more = _read(access, filters, states, reading.PAGE)
    more = filters.url(older=found[-1]["id"]) if has_more else ""
    return Section(title, states, found, more)


def _live(access: Access, filters: Filters, title: str, states: tuple[str, ...]) -> Section:
    found, has_more = _read(access, filters, states, reading.MOST_LIVE)
    more = filters.url(state=states[0]) if has_more else ""
    return Section(title, states, found, more)


def _read(access: Access, filters: Filters, states: tuple[str, ...], most: int) -> tuple[list[dict[str, Any]], bool]:
    rows = reading.listed(access, states, most + 1, kind=filters.kind or None, older=filters.older)
    return [shown.listed(row, access.viewer) for row in rows[:most]], len(rows) > most
