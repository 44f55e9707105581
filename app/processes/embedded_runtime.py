"""What this machine offers the embedded servers: somebody to run them, short names for their sockets."""

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
    """A server cannot run here; the message is one line that says what to do."""


def drop_root(directory: Path) -> tuple[list[str], dict[str, Any]]:
    """What makes a command run as somebody who is not root and can write this directory."""
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
    """A short name of our own: the path of a socket ends at 107 bytes, that of a checkout does not."""
    digest = hashlib.sha256(os.fsencode(var_dir.resolve())).hexdigest()[:16]
    return Path("/tmp") / f"open-event-{digest}"  # noqa: S108  # made with mode 0700, and its owner is checked


def create_socket_directory(path: Path) -> None:
    """Make it ours alone: whoever could enter it could reach the servers."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    ours = found.st_uid == os.geteuid() or os.geteuid() == 0
    if not ours or path.is_symlink() or found.st_mode & 0o077:
        raise EmbeddedError(f"{path} belongs to somebody else; remove it, or choose another VAR_DIR")


def kill_stale_servers(directory: Path, *names: str) -> None:
    """Kill servers that still run in this directory: their supervisor was killed, or they outlived their own parent."""

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

    wait_until(none_left, f"processes in {directory} cannot be ended", STOP_TIMEOUT_SECONDS)


def wait_until(condition: Callable[[], bool], complaint: str, seconds: float = START_TIMEOUT_SECONDS) -> None:
    """Return when the condition holds; raises EmbeddedError when it does not in time."""
    deadline = monotonic() + seconds
    while not condition():
        if monotonic() > deadline:
            raise EmbeddedError(complaint)
        sleep(0.02)
