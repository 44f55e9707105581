"""VAR_DIR: locks, so that it has one owner process at a time, and the state file with its running processes."""

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
"""Time to wait for an owner that is stopping."""


class VarDirLocked(Exception):
    """Another process owns this VAR_DIR."""


class VarDirNotWritable(Exception):
    """This VAR_DIR cannot be written."""


class DiskFull(Exception):
    """The disk of VAR_DIR has too little space; the message is one line with the needed space."""


MIN_FREE_BYTES = 20 * 2**20
"""Free space that PostgreSQL needs to start and recover: its write-ahead log grows by files of 16 MiB."""

MIN_FREE_BYTES_FOR_NEW_DATABASE = 100 * 2**20
"""Free space for a new database: with its write-ahead log it takes 41 MiB."""

FULL_DISK_BYTES = 2**20
"""Free space below which a failure to start is attributed to a full disk."""


SERVER_DIRECTORIES = ("postgres", "redis")
"""Directories of the embedded servers in VAR_DIR; they may have another owner, and their mode is not changed."""


def make_private(var_dir: Path) -> None:
    """Remove the permissions of other users from VAR_DIR and its files; raise VarDirNotWritable if this fails.

    As root, VAR_DIR itself keeps its execute permission, because the embedded PostgreSQL runs as another user.
    """
    if not var_dir.is_dir():
        return
    try:
        var_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
        for path in var_dir.iterdir():
            # Not recursive: a directory without execute permission protects everything in it.
            if not path.is_symlink() and path.name.partition(".")[0] not in SERVER_DIRECTORIES:
                _remove_shared_permissions(path)
    except OSError as error:
        raise VarDirNotWritable(f"VAR_DIR {var_dir} cannot be made private: {error.strerror}") from None


def _remove_shared_permissions(path: Path) -> None:
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            path.chmod(mode & 0o7700)
    except FileNotFoundError:  # a temporary file that another process has renamed
        return


def check_free_space(var_dir: Path, needed: int) -> None:
    """Raise DiskFull if the disk of VAR_DIR has less than `needed` bytes free."""
    free = shutil.disk_usage(var_dir).free
    if free < needed:
        raise DiskFull(
            f"the disk of VAR_DIR {var_dir} is full: {free // 2**20} MiB are free, {needed // 2**20} MiB are needed"
        )


@contextmanager
def hold_exclusive_lock(var_dir: Path) -> Iterator[None]:
    """Own the directory until the block ends; raise VarDirLocked if another process owns it.

    The kernel releases the lock when the process ends, even by SIGKILL.
    """
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
def hold_shared_lock(var_dir: Path) -> Iterator[None]:
    """Use the servers of the owner until the block ends; the owner waits for this lock before it stops them."""
    with _open_lock_file(var_dir, "users.lock") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def wait_for_shared_locks(var_dir: Path) -> None:
    """Wait until no other process uses the servers of this one."""
    with _open_lock_file(var_dir, "users.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def _open_lock_file(var_dir: Path, name: str) -> TextIO:
    try:
        var_dir.mkdir(parents=True, exist_ok=True)
        return (var_dir / name).open("a")
    except OSError as error:
        raise VarDirNotWritable(f"VAR_DIR {var_dir} cannot be used: {error.strerror}") from None


def write_state(var_dir: Path, state: dict[str, Any]) -> None:
    """Write the running processes atomically: `{name: get_process_identity(pid), ...}`."""
    draft = var_dir / "running.json.new"
    draft.write_text(json.dumps({"owner": get_process_identity(os.getpid()), **state}))
    draft.replace(_get_state_file(var_dir))


def read_owner_state(var_dir: Path) -> dict[str, Any] | None:
    """Return the state that the owner wrote; None if the directory has no owner."""
    try:
        with (var_dir / "owner.lock").open() as file:
            return None if _try_lock(file.fileno(), fcntl.LOCK_SH) else _read_state_file(var_dir)
    except FileNotFoundError:
        return None


def get_process_identity(pid: int) -> dict[str, Any]:
    """Return pid and start time, which identify a process even if its pid is reused."""
    return {"pid": pid, "started": psutil.Process(pid).create_time()}


def is_alive(process: Any) -> bool:
    """Return whether `process`, a value of `get_process_identity` or anything else, is a running process."""
    try:
        current = psutil.Process(process["pid"])
        return bool(current.create_time() == process["started"] and current.status() != psutil.STATUS_ZOMBIE)
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
    """Kill the process groups that a killed owner has left."""
    for name, process in _read_state_file(var_dir).items():
        if name != "owner" and is_alive(process):
            kill_group(process["pid"])
