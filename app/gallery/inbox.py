"""The inbox of an event: files that others leave below `inbox/<identifier>/` in storage, and that stay theirs."""

from hashlib import sha256

from obstore.exceptions import BaseError

from app.images.headers import MOST_BYTES
from app.images.picture import Refused, TooLarge
from app.storage import Stored, current_storage

UNREADABLE = (BaseError, FileNotFoundError)
"""What a file raises that is there no more, is another one by now, or lies in a storage that does not answer."""

LONGEST_SHOWN = 100


class UnusableName(Refused):
    """The file has a name by which it cannot be read."""

    code = "unusable-name"


def files(identifier: str) -> list[Stored]:
    """All files in an inbox, by name; ValueError where one has a name that storage cannot even list."""
    return current_storage().list(_folder(identifier))


def digest(listed: list[Stored]) -> str:
    """What tells this listing from every other, without reading a file."""
    hashed = sha256()
    for file in listed:
        hashed.update(f"{file.name}\n{file.etag}\n{file.size}\n".encode())  # no name has a line break
    return hashed.hexdigest()


def read(file: Stored) -> bytes:
    """The content of the very file that was listed; `Refused` without a look at it where it cannot be an image."""
    if file.size > MOST_BYTES:
        raise TooLarge(f"An image may have at most {MOST_BYTES // 2**20} MiB.")
    try:
        return b"".join(current_storage().stream(file))
    except ValueError:
        raise UnusableName("A file with this name cannot be read: rename it.") from None


def name_within(identifier: str, file: Stored) -> str:
    """The name of a file as its owner knows it: below the inbox."""
    return file.name.removeprefix(f"{_folder(identifier)}/")


def shown(name: str) -> str:
    """A name in a sentence: names are free text, and may be long or move the cursor."""
    printable = "".join(character if character.isprintable() else "?" for character in name)
    return printable if len(printable) <= LONGEST_SHOWN else f"{printable[: LONGEST_SHOWN - 1]}…"


def _folder(identifier: str) -> str:
    return f"inbox/{identifier}"
