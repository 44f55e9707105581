"""The list of jobs: sections of running, queued and ended jobs, filtered by kind and state."""

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
    """Filters of the list, empty if not set; with `older` the list begins after the job with this id."""

    kind: str = ""
    state: str = ""
    older: UUID | None = None

    def url(self, path: str = "/jobs", **more: object) -> str:
        """Return the URL of the first page with these filters; `more` adds or replaces query parameters."""
        parameters = {"kind": self.kind, "state": self.state, **more}
        query = urlencode({name: value for name, value in parameters.items() if value})
        return f"{path}?{query}" if query else path


@dataclass(frozen=True)
class JobListSection:
    """Section of the list; `more` is the URL of its further jobs, if there are any."""

    title: str
    states: tuple[str, ...]
    jobs: list[job_presenter.TemplateData]
    more: str = ""


def parse_filters(parameters: Mapping[str, str]) -> JobListFilters:
    """Return the filters of a query string; raise InvalidParameter for an invalid kind, state or position."""
    kind, state, older = (parameters.get(name, "") for name in ("kind", "state", "older"))
    if len(kind) > MAX_KIND_LENGTH or INVALID_TEXT_RE.search(kind):
        raise InvalidParameter(f"A kind has at most {MAX_KIND_LENGTH} characters, none of them NUL.", parameter="kind")
    if state and state not in ALL_STATES:
        raise InvalidParameter(f"The state must be one of {', '.join(ALL_STATES)}.", parameter="state")
    if older and parse_uuid(older) is None:
        raise InvalidParameter("This must be the id of a job.", parameter="older")
    return JobListFilters(kind, state, parse_uuid(older))


def list_sections(access: AccessContext, filters: JobListFilters) -> list[JobListSection]:
    """Return the sections: active jobs and the newest ended ones, or one page of a state or of older ended jobs."""
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
    """Return the kinds for the filter: those that are offered, and the selected one."""
    offered = {kind.name for kind in KINDS.values() if is_offered(kind)}
    return sorted(offered | ({filters.kind} if filters.kind else set()))


def _build_page_section(
    access: AccessContext, filters: JobListFilters, title: str, states: tuple[str, ...]
) -> JobListSection:
    jobs, has_more = _read_job_rows(access, filters, states, job_queries.PAGE_SIZE)
    more = filters.url(older=jobs[-1]["id"]) if has_more else ""
    return JobListSection(title, states, jobs, more)


def _build_active_section(
    access: AccessContext, filters: JobListFilters, title: str, states: tuple[str, ...]
) -> JobListSection:
    jobs, has_more = _read_job_rows(access, filters, states, job_queries.MAX_ACTIVE_JOBS)
    more = filters.url(state=states[0]) if has_more else ""
    return JobListSection(title, states, jobs, more)


def _read_job_rows(
    access: AccessContext, filters: JobListFilters, states: tuple[str, ...], limit: int
) -> tuple[list[dict[str, Any]], bool]:
    rows = job_queries.list_jobs(access, states, limit + 1, kind=filters.kind or None, older=filters.older)
    return [job_presenter.job_row(row, access.viewer) for row in rows[:limit]], len(rows) > limit
