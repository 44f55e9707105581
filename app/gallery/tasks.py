"""The job that takes the images in the inbox of an event into its gallery."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import structlog
from obstore.exceptions import BaseError

from app import quotas
from app.database import transaction
from app.errors import NotFound, Unavailable, Unprocessable
from app.gallery import inbox, intake
from app.images.picture import Refused
from app.jobs.context import JobFailed, Running
from app.jobs.kinds import EVENT_ALONE, job_kind
from app.storage import Stored

POINTER = "/data/attributes/parameters/event"

MOST_IMAGES = 1000
"""New ones of one run; what is left is for the next."""
MOST_NAMED = 100
"""Files of which a run says that they are not taken; the others are counted."""
MOST_UNREADABLE = 3
"""In a row: then it is the storage, not the files."""

UNUSABLE_NAME = "A file in the inbox has a name that cannot be read: rename it."
NO_STORAGE = "The storage does not answer. Try again."

log = structlog.get_logger(__name__)


def listing(parameters: Mapping[str, Any]) -> str:
    """What the import will find: new files are new work, the same ones the same.

    An inbox that is again as it was gives the job that took it then: what came into the gallery stays there. An inbox
    that one run cannot empty is other work once a run has taken its share.
    """
    event_id = int(parameters["event"])
    identifier = intake.identifier(event_id)
    if identifier is None:
        raise NotFound("There is no such event here.", pointer=POINTER)
    try:
        files = inbox.files(identifier)
    except BaseError as error:
        log.warning("the storage does not answer", error=type(error).__name__)
        raise Unavailable(NO_STORAGE, headers={"Retry-After": "2"}) from error
    except ValueError as error:
        raise Unprocessable(UNUSABLE_NAME, pointer=POINTER) from error
    shares = intake.count(event_id) // MOST_IMAGES if len(files) > MOST_IMAGES else 0
    return f"{inbox.digest(files)} {shares}"


@job_kind(
    "import-images",
    parameters=EVENT_ALONE,
    dedupe="once",
    about_event=True,
    inputs=listing,
    time_limit=timedelta(hours=1),
)
def import_images(running: Running) -> dict[str, Any]:
    """Take the images in the inbox of an event into its gallery, each once."""
    event_id = int(running.parameters["event"])
    with transaction(is_read=True):
        identifier = intake.identifier(event_id)
    if identifier is None:
        raise JobFailed("gone", "There is no such event any more.")
    files = _files(identifier)
    if quotas.is_full():
        raise JobFailed("storage-full", "The server has no room for further files at the moment.")
    run = _Run(running, event_id)
    for number, file in enumerate(files):
        if run.imported == MOST_IMAGES:
            run.leave(len(files) - number)
            break
        name = inbox.name_within(identifier, file)
        running.progress(number / len(files), f"{number + 1} of {len(files)}: {inbox.shown(name)}")
        run.take(name, file)
    return run.result()


def _files(identifier: str) -> list[Stored]:
    try:
        return inbox.files(identifier)
    except BaseError as error:
        raise JobFailed("storage-unavailable", NO_STORAGE) from error
    except ValueError as error:
        raise JobFailed(inbox.UnusableName.code, UNUSABLE_NAME) from error


class _Run:
    """What has become of the files so far."""

    def __init__(self, running: Running, event_id: int) -> None:
        self.running = running
        self.event_id = event_id
        self.imported = self.known = self.left = 0
        self.refused: list[dict[str, str]] = []
        self.refused_count = 0
        self.unreadable: list[str] = []
        self.unreadable_in_a_row = 0

    def take(self, name: str, file: Stored) -> None:
        """Take a file, or say why it is not taken: no file ends the others' import."""
        try:
            is_new = intake.take(self.event_id, name, file)
        except inbox.UNREADABLE as error:
            self._miss(name, error)
            return
        except Refused as refused:
            self._refuse(name, refused)
        else:
            self.imported += is_new
            self.known += not is_new
        self.unreadable_in_a_row = 0

    def leave(self, left: int) -> None:
        """Say that there is more than one run takes."""
        self.left = left
        self._warn(f"{MOST_IMAGES} images were taken, {left} files are left: import again.")

    def result(self) -> dict[str, Any]:
        """What the job has done; JobFailed when some of it was not possible now, so that it can be asked for again."""
        if self.unreadable:
            first, count = inbox.shown(self.unreadable[0]), len(self.unreadable)
            detail = f"Files that could not be read: {count}, the first is {first}. All others are done: import again."
            raise JobFailed("unreadable-files", detail)
        counts = {"imported": self.imported, "known": self.known, "refused-count": self.refused_count}
        return {**counts, "refused": self.refused, "left": self.left}

    def _refuse(self, name: str, refused: Refused) -> None:
        self.refused_count += 1
        if self.refused_count > MOST_NAMED:
            return
        self.refused.append({"name": name, "code": refused.code})
        self._warn(f"{inbox.shown(name)}: {refused}")

    def _miss(self, name: str, error: Exception) -> None:
        log.warning("file not read", error=type(error).__name__)
        self.unreadable.append(name)
        self.unreadable_in_a_row += 1
        if self.unreadable_in_a_row == MOST_UNREADABLE:
            raise JobFailed("storage-unavailable", NO_STORAGE) from error
        if len(self.unreadable) <= MOST_NAMED:
            self._warn(f"{inbox.shown(name)}: The file cannot be read.")

    def _warn(self, words: str) -> None:
        self.running.progress(message=words, level="warning")
