"""Job that imports the images in the inbox of an event into its gallery."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import structlog
from obstore.exceptions import BaseError

from app import quotas
from app.database import open_transaction
from app.errors import NotFound, Unavailable, Unprocessable
from app.gallery import image_import, inbox
from app.images.image_info import ImageRejected
from app.jobs.context import JobContext, JobFailed
from app.jobs.kinds import EVENT_PARAMETERS, job_kind
from app.storage import FileInfo

EVENT_POINTER = "/data/attributes/parameters/event"

MAX_IMAGES_PER_RUN = 1000
"""New images that one job imports; the next job imports the rest."""
MAX_REPORTED_FILES = 100
"""Rejected or unreadable files that one job reports by name; further ones are only counted."""
MAX_CONSECUTIVE_READ_ERRORS = 3
"""Read errors in a row after which the storage is considered unavailable."""

UNUSABLE_NAME = "A file in the inbox has a name that storage cannot read: rename it."
STORAGE_UNAVAILABLE = "The storage does not answer. Try again."

log = structlog.get_logger(__name__)


def compute_input_digest(parameters: Mapping[str, Any]) -> str:
    """Return a digest of the inbox: an import of the same files is the same work and returns the earlier job.

    An inbox with more than MAX_IMAGES_PER_RUN files is new work after each MAX_IMAGES_PER_RUN imported images. Raise
    NotFound without the event, Unavailable when the storage does not respond, Unprocessable for an unusable name.
    """
    event_id = int(parameters["event"])
    identifier = image_import.get_event_identifier(event_id)
    if identifier is None:
        raise NotFound("There is no such event here.", pointer=EVENT_POINTER)
    try:
        files = inbox.list_files(identifier)
    except BaseError as error:
        log.warning("inbox listing failed", error=type(error).__name__)
        raise Unavailable(STORAGE_UNAVAILABLE, headers={"Retry-After": "2"}) from error
    except ValueError as error:
        raise Unprocessable(UNUSABLE_NAME, pointer=EVENT_POINTER) from error
    shares = image_import.count_images(event_id) // MAX_IMAGES_PER_RUN if len(files) > MAX_IMAGES_PER_RUN else 0
    return f"{inbox.listing_digest(files)} {shares}"


@job_kind(
    "import-images",
    parameters=EVENT_PARAMETERS,
    dedupe="once",
    belongs_to_event=True,
    input_digest=compute_input_digest,
    time_limit=timedelta(hours=1),
)
def import_images(running: JobContext) -> dict[str, Any]:
    """Import the images in the inbox of an event into its gallery, each once."""
    event_id = int(running.parameters["event"])
    with open_transaction(is_read=True):
        identifier = image_import.get_event_identifier(event_id)
    if identifier is None:
        raise JobFailed("gone", "The event has been deleted.")
    files = _list_files(identifier)
    if quotas.is_storage_full():
        raise JobFailed("storage-full", "The server has no room for further files at the moment.")
    run = _ImportSummary(running, event_id)
    for number, file in enumerate(files):
        if run.imported == MAX_IMAGES_PER_RUN:
            run.report_remaining(len(files) - number)
            break
        name = inbox.get_relative_name(identifier, file)
        running.report_progress(number / len(files), f"{number + 1} of {len(files)}: {inbox.printable_name(name)}")
        run.import_file(name, file)
    return run.build_result()


def _list_files(identifier: str) -> list[FileInfo]:
    try:
        return inbox.list_files(identifier)
    except BaseError as error:
        raise JobFailed("storage-unavailable", STORAGE_UNAVAILABLE) from error
    except ValueError as error:
        raise JobFailed(inbox.UnusableName.code, UNUSABLE_NAME) from error


class _ImportSummary:
    """Outcome of the files that a job has processed."""

    def __init__(self, running: JobContext, event_id: int) -> None:
        self.running = running
        self.event_id = event_id
        self.imported = self.known = self.left = 0
        self.refused: list[dict[str, str]] = []
        self.refused_count = 0
        self.unreadable: list[str] = []
        self.unreadable_in_a_row = 0

    def import_file(self, name: str, file: FileInfo) -> None:
        """Import a file, or report why it is not imported; raise JobFailed after MAX_CONSECUTIVE_READ_ERRORS."""
        try:
            is_new = image_import.import_image(self.event_id, name, file)
        except inbox.READ_ERRORS as error:
            self._record_unreadable(name, error)
            return
        except ImageRejected as refused:
            self._reject_file(name, refused)
        else:
            self.imported += is_new
            self.known += not is_new
        self.unreadable_in_a_row = 0

    def report_remaining(self, left: int) -> None:
        """Record and report the number of files that are left for the next job."""
        self.left = left
        self._report_warning(f"{MAX_IMAGES_PER_RUN} images were imported, {left} files are left: import again.")

    def build_result(self) -> dict[str, Any]:
        """Return the result of the job; raise JobFailed when files could not be read, so that it can be repeated."""
        if self.unreadable:
            first, count = inbox.printable_name(self.unreadable[0]), len(self.unreadable)
            detail = f"{count} files could not be read, the first is {first}. All others are imported: import again."
            raise JobFailed("unreadable-files", detail)
        counts = {"imported": self.imported, "known": self.known, "refused-count": self.refused_count}
        return {**counts, "refused": self.refused, "left": self.left}

    def _reject_file(self, name: str, refused: ImageRejected) -> None:
        self.refused_count += 1
        if self.refused_count > MAX_REPORTED_FILES:
            return
        self.refused.append({"name": name, "code": refused.code})
        self._report_warning(f"{inbox.printable_name(name)}: {refused}")

    def _record_unreadable(self, name: str, error: Exception) -> None:
        log.warning("inbox file read failed", error=type(error).__name__)
        self.unreadable.append(name)
        self.unreadable_in_a_row += 1
        if self.unreadable_in_a_row == MAX_CONSECUTIVE_READ_ERRORS:
            raise JobFailed("storage-unavailable", STORAGE_UNAVAILABLE) from error
        if len(self.unreadable) <= MAX_REPORTED_FILES:
            self._report_warning(f"{inbox.printable_name(name)}: The file could not be read.")

    def _report_warning(self, words: str) -> None:
        self.running.report_progress(message=words, level="warning")
