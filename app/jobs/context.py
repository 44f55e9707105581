"""The context that a job function receives, and the exceptions that end an attempt."""

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
"""Stored progress events of one attempt per second; further reports are dropped."""


class Canceled(Exception):
    """Cancellation of the job was requested."""


class LeaseLost(Exception):
    """The attempt no longer owns the job: another attempt does, or the job has ended. It must write nothing more."""


class Interrupted(Exception):
    """The worker is stopping: the job is requeued."""


class JobFailed(Exception):
    """The job cannot be completed; `code`, `detail` and the members `more` become the error that its owner sees."""

    def __init__(self, code: str, detail: str, **more: Any) -> None:
        self.code = code
        self.detail = detail
        self.more = more
        super().__init__(detail)


def charge_output(job: JobRow, size: int) -> None:
    """Count bytes of files that a job is about to store, in the current transaction.

    Raise JobFailed if the owner has reached the daily output limit. Jobs of the operator are not counted.
    """
    if job.owner_id is None and job.share == OPERATOR_SHARE:
        return
    is_triggered = (
        job.trigger == "signal" and not job.retained
    )  # a kept job belongs to a treatment, which a user started
    if not quotas.charge_output(job.owner_id, size, is_triggered=is_triggered):
        raise JobFailed("too-many-bytes", quotas.describe_output_limit(job.owner_id))


class Postponed(Exception):
    """The work could not begin now: the job is queued again, and at the last attempt fails with this code."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)


class HandedOff(Exception):
    """The work continues on another server; `note` stores where, in the transaction that frees the worker."""

    def __init__(self, note: Callable[[JobRow], None]) -> None:
        self.note = note
        super().__init__()


class JobContext:
    """The job of a job function, its working directory, and the methods to report progress and publish files."""

    def __init__(self, job: JobRow, work_dir: Path) -> None:
        self.job = job
        self.work_dir = work_dir
        self.end_reason: type[Exception] | None = None
        """Exception that the function must raise; None while it may continue."""
        self.pending_message: str | None = None
        """Last message that was dropped because of the rate limit; stored if the job succeeds."""
        self._end_event = threading.Event()
        self._reported_at = 0.0

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Return the validated parameters, including secrets; raise JobFailed if the secrets cannot be decrypted."""
        try:
            return {
                **self.job.parameters,
                **decrypt_values(self.job.encrypted_secrets, build_associated_data("jobs", "sealed", self.job.id)),
            }
        except DecryptionError:
            raise JobFailed("lost-secrets", "The secret parameters of the job cannot be decrypted.") from None

    def report_progress(
        self, fraction: float | None = None, message: str | None = None, *, level: str = "info"
    ) -> None:
        """Report progress (0 to 1) and a message; raise Canceled, LeaseLost or Interrupted if the attempt must end."""
        self.raise_if_ending()
        now = time.monotonic()
        if now - self._reported_at < 1 / MAX_REPORTS_PER_SECOND and level == "info":
            self.pending_message = message or self.pending_message
            return
        self._reported_at = now
        self.pending_message = None
        progress = fraction if fraction is None else min(max(fraction, 0.0), 1.0)
        with open_transaction(is_read=False):
            if lifecycle.record_progress(self.job, progress, message, level) is None:
                self.request_end(Canceled if lifecycle.is_attempt_active(self.job.id, self.job.attempt) else LeaseLost)
            commit()
        self.raise_if_ending()

    def wait(self, seconds: float) -> None:
        """Wait; raise Canceled, LeaseLost or Interrupted as soon as the attempt must end."""
        self._end_event.wait(seconds)
        self.raise_if_ending()

    def request_end(self, why: type[Exception]) -> None:
        """Make the function raise this exception at its next call of a method of the context."""
        self.end_reason = why
        self._end_event.set()

    def raise_if_ending(self) -> None:
        """Raise Canceled, LeaseLost or Interrupted if the attempt must end."""
        if self.end_reason is not None:
            raise self.end_reason

    def charge_output(self, size: int) -> None:
        """Count bytes of files that are about to be stored; raise JobFailed above a storage limit."""
        self.raise_if_ending()
        if quotas.is_storage_full():
            raise JobFailed("storage-full", "The storage of the server is full.")
        with open_transaction(is_read=False):
            charge_output(self.job, size)
            commit()

    def publish_file(self, name: str, content: bytes | IO[bytes], media_type: str, *, partial: bool = False) -> None:
        """Store and publish a file as an artifact, replacing one of the same name."""
        self.charge_output(_count_remaining_bytes(content))
        if not artifacts.publish_file(self.job, name, content, media_type, partial=partial):
            raise LeaseLost


def _count_remaining_bytes(content: bytes | IO[bytes]) -> int:
    """Return the number of bytes between the current position and the end."""
    if isinstance(content, bytes):
        return len(content)
    start = content.tell()
    end = content.seek(0, os.SEEK_END)
    content.seek(start)
    return end - start
