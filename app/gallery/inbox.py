"""The inbox of an event: files that others leave below `inbox/<identifier>/` in storage, and that stay theirs."""

from hashlib import sha256

from obstore.exceptions import BaseError

from app.images.image_info import ImageRejected, ImageTooLarge
from app.images.inspection import MAX_IMAGE_BYTES
from app.storage import FileInfo, current_storage

READ_ERRORS = (BaseError, FileNotFoundError)
"""What a file raises that is there no more, is another one by now, or lies in a storage that does not answer."""

MAX_PRINTABLE_LENGTH = 100


class UnusableName(ImageRejected):
    """The file has a name by which it cannot be read."""

    code = "unusable-name"


def list_files(identifier: str) -> list[FileInfo]:
    """All files in an inbox, by name; ValueError where one has a name that storage cannot even list."""
    return current_storage().list_files(_get_folder(identifier))


def listing_digest(listed: list[FileInfo]) -> str:
    """What tells this listing from every other, without reading a file."""
    hashed = sha256()
    for file in listed:
        hashed.update(f"{file.name}\n{file.etag}\n{file.size}\n".encode())  # no name has a line break
    return hashed.hexdigest()


def read_file(file: FileInfo) -> bytes:
    """The content of the very file that was listed; `Refused` without a look at it where it cannot be an image."""
    if file.size > MAX_IMAGE_BYTES:
        raise ImageTooLarge(f"An image may have at most {MAX_IMAGE_BYTES // 2**20} MiB.")
    try:
        return b"".join(current_storage().stream_file(file))
    except ValueError:
        raise UnusableName("A file with this name cannot be read: rename it.") from None


def get_relative_name(identifier: str, file: FileInfo) -> str:
    """The name of a file as its owner knows it: below the inbox."""
    return file.name.removeprefix(f"{_get_folder(identifier)}/")


def printable_name(name: str) -> str:
    """A name in a sentence: names are free text, and may be long or move the cursor."""
    printable = "".join(character if character.isprintable() else "?" for character in name)
    return printable if len(printable) <= MAX_PRINTABLE_LENGTH else f"{printable[: MAX_PRINTABLE_LENGTH - 1]}…"


def _get_folder(identifier: str) -> str:
    return f"inbox/{identifier}"
