"""VAR_DIR has one owner at a time, who writes down what runs there."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TextIO

import psutil

from app.processes.process_tree import kill_group

LOCK_TIMEOUT_SECONDS = 1.0
"""Seconds to wait for an owner that is just going."""


class VarDirLocked(Exception):
    """Somebody else owns this VAR_DIR."""


class VarDirNotWritable(Exception):
    """Nothing can be written into this VAR_DIR."""


class DiskFull(Exception):
    """The disk of VAR_DIR has too little room; the message is one line that says how much is needed."""


MIN_FREE_BYTES = 20 * 2**20
"""What PostgreSQL needs to start and recover: its write-ahead log grows by files of 16 MiB."""

MIN_FREE_BYTES_FOR_NEW_DATABASE = 100 * 2**20
"""A new database with its write-ahead log takes 41 MiB, before anything is stored."""

FULL_DISK_BYTES = 2**20
"""With less room than this, whatever failed has failed for want of room."""


SERVER_DIRECTORIES = ("postgres", "redis")
"""What the embedded servers keep in VAR_DIR, perhaps as another user, with a mode of their own."""


def make_private(var_dir: Path) -> None:
    """Take the rights of other users of the machine away from VAR_DIR and all that is in it.

    As root the directory itself stays passable: the embedded PostgreSQL is another user then.
    """
    if not var_dir.is_dir():
        return
    try:
        var_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
        for path in var_dir.iterdir():
            # A directory that cannot be entered protects what is below it, however many files that are.
            if not path.is_symlink() and path.name.partition(".")[0] not in SERVER_DIRECTORIES:
                _remove_shared_permissions(path)
    except OSError as error:
        raise VarDirNotWritable(f"VAR_DIR {var_dir} cannot be made private: {error.strerror}") from None


def _remove_shared_permissions(path: Path) -> None:
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            path.chmod(mode & 0o7700)
    except FileNotFoundError:  # a draft of another process, which has its name by now
        return


def check_free_space(var_dir: Path, needed: int) -> None:
    """Raise DiskFull where the disk of VAR_DIR has less room than this."""
    free = shutil.disk_usage(var_dir).free
    if free < needed:
        raise DiskFull(
            f"the disk of VAR_DIR {var_dir} is full: {free // 2**20} MiB are free, {needed // 2**20} MiB are needed"
        )


@contextmanager
def exclusive_lock(var_dir: Path) -> Iterator[None]:
    """Own the directory; raises Busy while another process does. The lock goes with the process, however it ends."""
    with _open_lock_file(var_dir, "owner.lock") as file:
        deadline = monotonic() + LOCK_TIMEOUT_SECONDS
        while not _try_lock(file.fileno(), fcntl.LOCK_EX):
            if monotonic() > deadline:
                raise VarDirLocked(
                    f"{var_dir} is in use by process {_read_state_file(var_dir).get('owner', {}).get('pid', 'unknown')}"
                )
            sleep(0.05)
        _kill_leftovers(var_dir)
        try:
            yield
        finally:
            _get_state_file(var_dir).unlink(missing_ok=True)


@contextmanager
def shared_lock(var_dir: Path) -> Iterator[None]:
    """Use the servers of the owner; `wait_for_shared_locks` lets it end after us."""
    with _open_lock_file(var_dir, "users.lock") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def wait_for_shared_locks(var_dir: Path) -> None:
    """Return when nobody uses our servers any more."""
    with _open_lock_file(var_dir, "users.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def _open_lock_file(var_dir: Path, name: str) -> TextIO:
    try:
        var_dir.mkdir(parents=True, exist_ok=True)
        return (var_dir / name).open("a")
    except OSError as error:
        raise VarDirNotWritable(f"VAR_DIR {var_dir} cannot be used: {error.strerror}") from None


def write_state(var_dir: Path, state: dict[str, Any]) -> None:
    """Write down what runs: `{name: described(pid), ...}`, whole or not at all."""
    draft = var_dir / "running.json.new"
    draft.write_text(json.dumps({"owner": process_identity(os.getpid()), **state}))
    draft.replace(_get_state_file(var_dir))


def read_owner_state(var_dir: Path) -> dict[str, Any] | None:
    """What the owner wrote; None when nobody owns the directory."""
    try:
        with (var_dir / "owner.lock").open() as file:
            return None if _try_lock(file.fileno(), fcntl.LOCK_SH) else _read_state_file(var_dir)
    except FileNotFoundError:
        return None


def process_identity(pid: int) -> dict[str, Any]:
    """A process that can be told from a later one with the same number."""
    return {"pid": pid, "started": psutil.Process(pid).create_time()}


def is_alive(process: Any) -> bool:
    """Whether this is a described process that still runs."""
    try:
        found = psutil.Process(process["pid"])
        return bool(found.create_time() == process["started"] and found.status() != psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, TypeError, KeyError):
        return False


def _try_lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _get_state_file(var_dir: Path) -> Path:
    return var_dir / "running.json"


def _read_state_file(var_dir: Path) -> dict[str, Any]:
    try:
        state = json.loads(_get_state_file(var_dir).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _kill_leftovers(var_dir: Path) -> None:
    """End what an owner that was killed left behind; each led a process group."""
    for name, process in _read_state_file(var_dir).items():
        if name != "owner" and is_alive(process):
            kill_group(process["pid"])
