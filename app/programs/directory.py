"""The directory of programs: its files, their versions and their digests, without links that lead out of it."""

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
    """Metadata that changes with each version of a file."""

    device: int
    inode: int
    mode: int
    size: int
    modified: int
    changed: int


Version = tuple[FileStat | None, FileStat | None]
"""Metadata of a program and of its manifest; None for a file that does not exist."""


class ManifestUnreadable(Exception):
    """The manifest exists but cannot be read; the message gives the reason."""


def is_name(name: str) -> bool:
    """Return whether this is a valid name of a program."""
    return NAME_RE.fullmatch(name) is not None and not name.endswith(MANIFEST_SUFFIX)


def list_names(directory: Path) -> list[str]:
    """Return the sorted names of all files that may be programs, and of all manifests."""
    try:
        names = {name.removesuffix(MANIFEST_SUFFIX) for name in os.listdir(directory)}
    except OSError:
        return []
    return sorted(name for name in names if is_name(name))


def get_version(path: Path) -> Version:
    """Return the current version of a program, with two system calls."""
    return _stat_file(path), _stat_file(get_manifest_path(path))


def get_manifest_path(path: Path) -> Path:
    """Return the path of the manifest of a program, which need not exist."""
    return path.with_name(path.name + MANIFEST_SUFFIX)


def _stat_file(path: Path) -> FileStat | None:
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return None
    return FileStat(info.st_dev, info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def is_program(path: Path) -> bool:
    """Return whether this is an executable regular file of the directory."""
    return is_within(path) and path.is_file() and os.access(path, os.X_OK)


def is_within(path: Path) -> bool:
    """Return whether a file exists and, with symbolic links resolved, is in or below its directory."""
    try:
        return path.resolve(strict=True).is_relative_to(path.parent.resolve(strict=True))
    except (OSError, RuntimeError):  # a loop of links
        return False


def read_manifest(path: Path) -> bytes:
    """Return the content of a manifest; raise ManifestUnreadable if it cannot be read."""
    if not is_within(path):
        raise ManifestUnreadable("it is a link that leads out of the directory")
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ManifestUnreadable("it is not a regular file")
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestUnreadable(f"it cannot be read: {error.strerror}") from None
    if len(content) > MAX_MANIFEST_BYTES:
        raise ManifestUnreadable(f"it has more than {MAX_MANIFEST_BYTES} bytes")
    return content


def compute_digest(path: Path, version: Version) -> str:
    """Return the digest of the contents of a program and its manifest, independent of where they are installed.

    For a program that can be executed but not read, size and modification time are used.
    """
    parts = [
        _compute_content_digest(each, info) for each, info in zip((path, get_manifest_path(path)), version, strict=True)
    ]
    return sha256("\n".join(parts).encode()).hexdigest()


def _compute_content_digest(path: Path, info: FileStat | None) -> str:
    if info is None or not is_within(path) or not path.is_file():
        return ""
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError:
        return f"{info.size} {info.modified}"
