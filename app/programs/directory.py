"""The directory of programs: what lies in it, and which version of it; nothing here leads out of it."""

import os
import re
import stat
from hashlib import file_digest, sha256
from pathlib import Path
from typing import NamedTuple

MANIFEST_SUFFIX = ".json"
NAME_RE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
MAX_MANIFEST_BYTES = 256 * 1024


class FileStat(NamedTuple):
    """Which version of a file there is, without reading it."""

    device: int
    inode: int
    mode: int
    size: int
    modified: int
    changed: int


Version = tuple[FileStat | None, FileStat | None]
"""Of a program and of what is said of it."""


class ManifestUnreadable(Exception):
    """There is a file, but its content is not to be had; the message says why."""


def is_name(name: str) -> bool:
    """Whether a program may be called this."""
    return NAME_RE.fullmatch(name) is not None and not name.endswith(MANIFEST_SUFFIX)


def list_names(directory: Path) -> list[str]:
    """Of all files that may be programs, and of those that something is said of, in order."""
    try:
        found = {name.removesuffix(MANIFEST_SUFFIX) for name in os.listdir(directory)}
    except OSError:
        return []
    return sorted(name for name in found if is_name(name))


def get_version(path: Path) -> Version:
    """What is there now, in two system calls."""
    return _stat_file(path), _stat_file(get_manifest_path(path))


def get_manifest_path(path: Path) -> Path:
    """The file that says something of this program, where there is one."""
    return path.with_name(path.name + MANIFEST_SUFFIX)


def _stat_file(path: Path) -> FileStat | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return FileStat(found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def is_program(path: Path) -> bool:
    """Whether this is a regular file of the directory that we may run."""
    return is_within(path) and path.is_file() and os.access(path, os.X_OK)


def is_within(path: Path) -> bool:
    """Whether a file is in its directory, or below it, also when it is a symbolic link; not when it is not there."""
    try:
        return path.resolve(strict=True).is_relative_to(path.parent.resolve(strict=True))
    except (OSError, RuntimeError):  # a loop of links
        return False


def read_manifest(path: Path) -> bytes:
    """What the file says; raises Unreadable."""
    if not is_within(path):
        raise ManifestUnreadable("it leads out of the directory")
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ManifestUnreadable("it is no regular file")
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestUnreadable(f"it cannot be read: {error.strerror}") from None
    if len(content) > MAX_MANIFEST_BYTES:
        raise ManifestUnreadable(f"it has more than {MAX_MANIFEST_BYTES} bytes")
    return content


def compute_digest(path: Path, seen: Version) -> str:
    """Of the content of a program and of what is said of it: the same wherever and whenever it was installed.

    A program that we may run but not read goes by size and time.
    """
    parts = [
        _compute_content_digest(each, known) for each, known in zip((path, get_manifest_path(path)), seen, strict=True)
    ]
    return sha256("\n".join(parts).encode()).hexdigest()


def _compute_content_digest(path: Path, known: FileStat | None) -> str:
    if known is None or not is_within(path) or not path.is_file():
        return ""
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError:
        return f"{known.size} {known.modified}"
