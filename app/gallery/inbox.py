"""Inbox of an event: files below `inbox/<identifier>/` in storage, which imports read and do not change."""

from hashlib import sha256

from obstore.exceptions import BaseError

from app.images.image_info import ImageRejected, ImageTooLarge
from app.images.inspection import MAX_IMAGE_BYTES
from app.storage import FileInfo, current_storage

READ_ERRORS = (BaseError, FileNotFoundError)
"""Exceptions for a file that was deleted or changed, or whose storage does not respond."""

MAX_PRINTABLE_LENGTH = 100


class UnusableName(ImageRejected):
    """The name of the file is not one that storage can read."""

    code = "unusable-name"


def list_files(identifier: str) -> list[FileInfo]:
    """Return the files in an inbox, by name; raise ValueError when storage cannot list one of the names."""
    return current_storage().list_files(_get_folder(identifier))


def listing_digest(listed: list[FileInfo]) -> str:
    """Return a digest of the names, ETags and sizes of files."""
    hashed = sha256()
    for file in listed:
        hashed.update(f"{file.name}\n{file.etag}\n{file.size}\n".encode())  # names have no line breaks
    return hashed.hexdigest()


def read_file(file: FileInfo) -> bytes:
    """Return the content of a listed file; raise ImageRejected for a name or size that cannot be imported."""
    if file.size > MAX_IMAGE_BYTES:
        raise ImageTooLarge(f"An image may have at most {MAX_IMAGE_BYTES // 2**20} MiB.")
    try:
        return b"".join(current_storage().stream_file(file))
    except ValueError:
        raise UnusableName("Storage cannot read a file with this name: rename it.") from None


def get_relative_name(identifier: str, file: FileInfo) -> str:
    """Return the name of a file relative to the inbox."""
    return file.name.removeprefix(f"{_get_folder(identifier)}/")


def printable_name(name: str) -> str:
    """Return a name for use in messages: shortened, without characters that are not printable."""
    printable = "".join(character if character.isprintable() else "?" for character in name)
    return printable if len(printable) <= MAX_PRINTABLE_LENGTH else f"{printable[: MAX_PRINTABLE_LENGTH - 1]}…"


def _get_folder(identifier: str) -> str:
    return f"inbox/{identifier}"
