"""The page of all jobs: those that run, those that wait and those that have ended, narrowed by kind and state."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from app.errors import InvalidParameter
from app.jobs.kinds import KINDS
from app.jobs.models import ACTIVE_STATES, ALL_STATES, QUEUED, TERMINAL_STATES
from app.jobs.submission import is_offered
from app.jsonapi.json_parsing import INVALID_TEXT_RE
from app.jsonapi.permissions import AccessContext
from app.jsonapi.resource_type import parse_uuid
from app.pages import job_presenter, job_queries

RUNNING_STATES = tuple(state for state in ACTIVE_STATES if state != QUEUED)
QUEUED_STATES = (QUEUED,)
MAX_KIND_LENGTH = 200


@dataclass(frozen=True)
class JobListFilters:
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
class JobListSection:
    """Some of the jobs; where there are more of them, `more` leads to those."""

    title: str
    states: tuple[str, ...]
    jobs: list[job_presenter.TemplateData]
    more: str = ""


def parse_filters(asked: Mapping[str, str]) -> JobListFilters:
    """The filters in a query string; 400 for a state or a page that cannot be."""
    kind, state, older = (asked.get(name, "") for name in ("kind", "state", "older"))
    if len(kind) > MAX_KIND_LENGTH or INVALID_TEXT_RE.search(kind):
        raise InvalidParameter("There is no such kind of job.", parameter="kind")
    if state and state not in ALL_STATES:
        raise InvalidParameter("There is no such state of a job.", parameter="state")
    if older and parse_uuid(older) is None:
        raise InvalidParameter("There is no such page.", parameter="older")
    return JobListFilters(kind, state, parse_uuid(older))


def list_sections(access: AccessContext, filters: JobListFilters) -> list[JobListSection]:
    """What the page shows: beside those that live, the newest that have ended; of one state, or further on, a page."""
    if filters.state:
        return [_build_page_section(access, filters, job_presenter.STATE_LABELS[filters.state], (filters.state,))]
    ended = _build_page_section(access, filters, "Finished", TERMINAL_STATES)
    if filters.older:
        return [ended]
    return [
        _build_active_section(access, filters, "Running", RUNNING_STATES),
        _build_active_section(access, filters, "Waiting", QUEUED_STATES),
        ended,
    ]


def list_kinds(filters: JobListFilters) -> list[str]:
    """The kinds to choose from; one that is asked for is among them."""
    offered = {kind.name for kind in KINDS.values() if is_offered(kind)}
    return sorted(offered | ({filters.kind} if filters.kind else set()))


def _build_page_section(
    access: AccessContext, filters: JobListFilters, title: str, states: tuple[str, ...]
) -> JobListSection:
    found, has_more = _read_job_rows(access, filters, states, job_queries.PAGE_SIZE)
    more = filters.url(older=found[-1]["id"]) if has_more else ""
    return JobListSection(title, states, found, more)


def _build_active_section(
    access: AccessContext, filters: JobListFilters, title: str, states: tuple[str, ...]
) -> JobListSection:
    found, has_more = _read_job_rows(access, filters, states, job_queries.MAX_ACTIVE_JOBS)
    more = filters.url(state=states[0]) if has_more else ""
    return JobListSection(title, states, found, more)


def _read_job_rows(
    access: AccessContext, filters: JobListFilters, states: tuple[str, ...], most: int
) -> tuple[list[dict[str, Any]], bool]:
    rows = job_queries.list_jobs(access, states, most + 1, kind=filters.kind or None, older=filters.older)
    return [job_presenter.job_row(row, access.viewer) for row in rows[:most]], len(rows) > most
