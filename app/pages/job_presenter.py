"""Values of jobs for templates and for the script, which are the same: text, numbers, true or null, never markup."""

from datetime import datetime, timedelta
from math import floor
from typing import Any
from uuid import UUID

import orjson

from app.jobs.kinds import KINDS
from app.jobs.models import (
    ACTIVE_STATES,
    CANCELED,
    CANCELING,
    FAILED,
    FINALIZING,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    TERMINAL_STATES,
    WAITING,
)
from app.jobs.queue_position import MAX_QUEUE_POSITION
from app.jsonapi.current_user import CurrentUser
from app.pages.job_queries import ArtifactRow, AttemptRow, JobListItem, JobResult, LogLine

TemplateData = dict[str, Any]

STATE_LABELS = {
    QUEUED: "Waiting",
    RUNNING: "Running",
    WAITING: "Running elsewhere",
    FINALIZING: "Finishing",
    CANCELING: "Canceling",
    SUCCEEDED: "Succeeded",
    FAILED: "Failed",
    CANCELED: "Canceled",
}
TRIGGER_LABELS = {
    "api": "through the API",
    "page": "in a browser",
    "hook": "through a hook",
    "signal": "by a change",
    "cli": "on the command line",
    "retry": "by trying again",
    "schedule": "on schedule",
}
SERVER_LABEL = "the server"
"""Label of the owner of jobs without an owner."""


class _Blank(dict[str, Any]):
    def __missing__(self, name: str) -> str:
        return ""


BLANK: TemplateData = _Blank()
"""Data with "" for every name, for template elements that the script fills."""


def job_row(job: JobListItem, viewer: CurrentUser) -> TemplateData:
    """Return the values of a job in a list."""
    is_live = job.state in ACTIVE_STATES
    url = f"/jobs/{job.id}"
    verb, at = _get_last_step(job)
    return {
        "id": str(job.id),
        "url": url,
        "kind": job.kind,
        "label": format_short_id(job.id),
        "title": KINDS[job.kind].title if job.kind in KINDS else "",
        "state": job.state,
        "state_label": STATE_LABELS[job.state],
        "place": _format_queue_position(job.ahead),
        "fraction": job.progress,
        "percent": _format_percent(job.progress),
        "is_running": is_live and job.state != QUEUED,
        "message": job.message or "",
        "who": _format_owner(job, viewer),
        "how": TRIGGER_LABELS.get(job.trigger, job.trigger),
        "event": job.event_name or "",
        "event_url": f"/v1/events/{job.event_link}" if job.event_link else "",
        "verb": verb,
        "at": format_timestamp(at),
        "took": _format_elapsed(job.started_at, job.finished_at),
        "attempts": f"attempt {job.attempt} of {job.max_attempts}" if job.attempt > 1 else "",
        "can_cancel": is_live and job.state != CANCELING,
        "can_retry": not is_live,
        "cancel_url": f"{url}/cancel",
        "retry_url": f"{url}/retry",
    }


def job_detail(job: JobListItem, outcome: JobResult, viewer: CurrentUser) -> TemplateData:
    """Return the values of a job on its own page."""
    error = outcome.error or {}
    more = {name: value for name, value in error.items() if name not in ("code", "detail")}
    return {
        **job_row(job, viewer),
        "message": "" if error else job.message or "",  # the error repeats it
        "tab": " ".join(
            filter(
                None,
                (_format_percent(job.progress) if job.state not in TERMINAL_STATES else "", STATE_LABELS[job.state]),
            )
        ),
        "submitted_at": format_timestamp(job.created_at),
        "started_at": format_timestamp(job.started_at),
        "finished_at": format_timestamp(job.finished_at),
        "heartbeat_at": format_timestamp(outcome.heartbeat_at) if job.state in ACTIVE_STATES else "",
        "attempt": f"{job.attempt} of {job.max_attempts}",
        "result": format_json(outcome.result),
        "error_code": error.get("code", ""),
        "error_detail": error.get("detail", ""),
        "error_more": format_json(more or None),
        "retry_of": format_short_id(job.retry_of_id) if job.retry_of_id else "",
        "retry_of_url": f"/jobs/{job.retry_of_id}" if job.retry_of_id else "",
    }


def log_line(line: LogLine) -> TemplateData:
    """Return the values of a log line: its message, or the state, as events of these states repeat the last message."""
    has_own_message = line.message and line.state not in (CANCELING, CANCELED, SUCCEEDED)
    return {
        "seq": line.seq,
        "level": line.level,
        "at": format_timestamp(line.created_at),
        "percent": _format_percent(line.fraction),
        "text": line.message if has_own_message else STATE_LABELS[line.state],
    }


def attempt_row(attempt: AttemptRow) -> TemplateData:
    """Return the values of an attempt."""
    return {
        "number": attempt.number,
        "worker": attempt.worker,
        "started_at": format_timestamp(attempt.started_at),
        "took": _format_elapsed(attempt.started_at, attempt.ended_at),
        "outcome": STATE_LABELS.get(attempt.outcome or RUNNING, attempt.outcome),
    }


def artifact_row(artifact: ArtifactRow, job_id: UUID) -> TemplateData:
    """Return the values of an artifact, with its URL."""
    return {
        "name": artifact.name,
        "url": f"/jobs/{job_id}/artifacts/{artifact.id}",
        "media_type": artifact.media_type,
        "size": _format_size(artifact.size),
        "partial": artifact.partial,
    }


def format_short_id(job_id: UUID) -> str:
    """Return the last six characters of the id, which are random and distinguish jobs of a kind."""
    return str(job_id)[-6:]


def _format_queue_position(ahead: int | None) -> str:
    if ahead is None:
        return ""
    if ahead >= MAX_QUEUE_POSITION:
        return f"{MAX_QUEUE_POSITION} or more before it"
    return f"{ahead} before it" if ahead else "next in the queue"


def _format_owner(job: JobListItem, viewer: CurrentUser) -> str:
    if job.owner_id == viewer.id:
        return "you"
    return SERVER_LABEL if job.owner_id is None else job.owner_email or f"user {job.owner_id}"


def _get_last_step(job: JobListItem) -> tuple[str, datetime]:
    if job.finished_at is not None:
        return "ended", job.finished_at
    if job.state == QUEUED or job.started_at is None:
        return "waiting since", job.queued_at
    return "started", job.started_at


def _format_percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{floor(fraction * 100)} %"


def _format_elapsed(since: datetime | None, until: datetime | None) -> str:
    if since is None or until is None:
        return ""
    return format_duration(until - since)


def format_duration(duration: timedelta) -> str:
    """Format a duration in its two largest units, or in seconds below 10 s."""
    seconds = max(duration.total_seconds(), 0.0)
    if seconds < 10:
        return f"{seconds:.1f} s"
    parts = []
    left = round(seconds)
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if left >= length:
            parts.append(f"{left // length} {unit}")
            left %= length
    return " ".join(parts[:2])


def _format_size(size: int) -> str:
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1000:.1f} kB" if size < 10**6 else f"{size / 10**6:.1f} MB"


def format_json(value: Any) -> str:
    """Format a value as indented JSON, None as ""."""
    return "" if value is None else orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def format_timestamp(at: datetime | None) -> str:
    """Format a time as ISO 8601 with milliseconds, None as ""."""
    return "" if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
