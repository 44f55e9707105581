"""What the function of a kind is given, and how it learns that it must end."""

import os
import threading
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from app import quotas
from app.database import commit, open_transaction
from app.encryption import DecryptionError, build_associated_data, decrypt_values
from app.jobs import artifacts, lifecycle
from app.jobs.models import OPERATOR_SHARE
from app.jobs.records import JobRow

MAX_REPORTS_PER_SECOND = 2
"""Stored events of one attempt; what is said more often is not kept."""


class Canceled(Exception):
    """Somebody asked the job to end."""


class LeaseLost(Exception):
    """The job belongs to another attempt now, or has ended: nothing may be written any more."""


class Interrupted(Exception):
    """The worker stops: another one begins the job again."""


class JobFailed(Exception):
    """The job cannot be done; what it says is shown to its owner, with whatever `more` there is to say."""

    def __init__(self, code: str, detail: str, **more: Any) -> None:
        self.code = code
        self.detail = detail
        self.more = more
        super().__init__(detail)


def charge_output(job: JobRow, size: int) -> None:
    """Count bytes of files that a job makes, in the transaction of the caller, before they are stored.

    Raise JobFailed where its owner has made as much as one may in a day. Jobs of operators are not counted.
    """
    if job.owner_id is None and job.share == OPERATOR_SHARE:
        return
    is_triggered = job.trigger == "signal" and not job.kept  # a job that is kept is a treatment, which a user starts
    if not quotas.charge_output(job.owner_id, size, is_triggered=is_triggered):
        raise JobFailed("too-many-bytes", quotas.describe_output_limit(job.owner_id))


class Postponed(Exception):
    """The work could not begin now: the job is queued again, and at the last attempt fails with this code."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)


class HandedOff(Exception):
    """The work goes on at another machine; `note` writes down where, in the transaction that frees the worker."""

    def __init__(self, note: Callable[[JobRow], None]) -> None:
        self.note = note
        super().__init__()


class JobContext:
    """What the function of a kind is given: its job, a directory of its own, and a way to say how far it is."""

    def __init__(self, job: JobRow, work_dir: Path) -> None:
        self.job = job
        self.work_dir = work_dir
        self.end_reason: type[Exception] | None = None
        """Why the attempt must end, once it must."""
        self.pending_message: str | None = None
        """What was said too soon after something else to be kept; at the end it is."""
        self._end_event = threading.Event()
        self._reported_at = 0.0

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """As they were checked when the job was submitted, with the secrets among them."""
        try:
            return {
                **self.job.parameters,
                **decrypt_values(self.job.sealed, build_associated_data("jobs", "sealed", self.job.id)),
            }
        except DecryptionError:
            raise JobFailed("lost-secrets", "Its secrets cannot be opened any more.") from None

    def report_progress(
        self, fraction: float | None = None, message: str | None = None, *, level: str = "info"
    ) -> None:
        """Say how far it is, 0 to 1, and what it does; raises as `check` does."""
        self.raise_if_ending()
        now = time.monotonic()
        if now - self._reported_at < 1 / MAX_REPORTS_PER_SECOND and level == "info":
            self.pending_message = message or self.pending_message
            return
        self._reported_at = now
        self.pending_message = None
        kept = fraction if fraction is None else min(max(fraction, 0.0), 1.0)
        with open_transaction(is_read=False):
            if lifecycle.record_progress(self.job, kept, message, level) is None:
                self.request_end(Canceled if lifecycle.is_attempt_active(self.job.id, self.job.attempt) else LeaseLost)
            commit()
        self.raise_if_ending()

    def wait(self, seconds: float) -> None:
        """Wait, but not when it must end."""
        self._end_event.wait(seconds)
        self.raise_if_ending()

    def request_end(self, why: type[Exception]) -> None:
        """Let the function end at its next report, with one of the exceptions above."""
        self.end_reason = why
        self._end_event.set()

    def raise_if_ending(self) -> None:
        """Raise Canceled, LeaseLost or Interrupted when it must end."""
        if self.end_reason is not None:
            raise self.end_reason

    def charge_output(self, size: int) -> None:
        """Count bytes of files that are about to be stored; raise JobFailed where there is no room for them."""
        self.raise_if_ending()
        if quotas.is_storage_full():
            raise JobFailed("storage-full", "The server has no room for further files at the moment.")
        with open_transaction(is_read=False):
            charge_output(self.job, size)
            commit()

    def publish_file(self, name: str, content: bytes | IO[bytes], media_type: str, *, partial: bool = False) -> None:
        """Keep a file that was made, in place of another of this name; from now on it can be fetched."""
        self.charge_output(_count_remaining_bytes(content))
        if not artifacts.publish_file(self.job, name, content, media_type, partial=partial):
            raise LeaseLost


def _count_remaining_bytes(content: bytes | IO[bytes]) -> int:
    """Return how many bytes are left to read."""
    if isinstance(content, bytes):
        return len(content)
    start = content.tell()
    end = content.seek(0, os.SEEK_END)
    content.seek(start)
    return end - start
