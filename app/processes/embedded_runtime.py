"""Operating system support for the embedded servers: unprivileged users, socket directories, stale processes."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil

NOBODY_UID = 65534
START_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 10


class EmbeddedError(Exception):
    """A server cannot run here; the message is one line with the reason and a remedy."""


def drop_root(directory: Path) -> tuple[list[str], dict[str, Any]]:
    """Return a command prefix, and keyword arguments for Popen, to run a command without root.

    As root use the owner of the directory; if that is root, a user namespace, or else uid 65534.
    """
    if os.geteuid() != 0:
        return [], {}
    if owner := directory.stat().st_uid:
        return [], _build_user_options(owner)
    wrapper = ["unshare", "-U", "--map-user=1000", "--map-group=1000"]
    if shutil.which("unshare") and _command_succeeds([*wrapper, "true"]):
        return wrapper, {}
    return [], _build_user_options(NOBODY_UID)


def _build_user_options(user: int) -> dict[str, Any]:
    return {"user": user, "group": user, "extra_groups": []}


def _command_succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603  # our own command line


def get_socket_directory(var_dir: Path) -> Path:
    """Return the directory in /tmp for the sockets of this VAR_DIR: a socket path has at most 107 bytes (unix(7))."""
    digest = hashlib.sha256(os.fsencode(var_dir.resolve())).hexdigest()[:16]
    return Path("/tmp") / f"open-event-{digest}"  # noqa: S108  # made with mode 0700, and its owner is checked


def create_socket_directory(path: Path) -> None:
    """Create a private directory: access to the sockets gives access to the servers.

    Raise EmbeddedError if the directory exists and is not private.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    ours = found.st_uid == os.geteuid() or os.geteuid() == 0
    if not ours or path.is_symlink() or found.st_mode & 0o077:
        raise EmbeddedError(
            f"{path} has another owner or permissions for other users; remove it, or choose another VAR_DIR"
        )


def kill_stale_servers(directory: Path, *names: str) -> None:
    """Kill servers that still run in this directory after their supervisor has ended."""

    def none_left() -> bool:
        found = [
            process
            for process in psutil.process_iter(["name", "cwd"])
            if process.info["name"] in names and process.info["cwd"] == str(directory.resolve())
        ]
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return not found

    wait_until(none_left, f"processes in {directory} cannot be killed", STOP_TIMEOUT_SECONDS)


def wait_until(condition: Callable[[], bool], message: str, seconds: float = START_TIMEOUT_SECONDS) -> None:
    """Return when the condition is true; raise EmbeddedError with the message after this many seconds."""
    deadline = monotonic() + seconds
    while not condition():
        if monotonic() > deadline:
            raise EmbeddedError(message)
        sleep(0.02)
