"""No process is left behind: children end with their parent, and a group ends with its leader."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from time import monotonic

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

KILL_TIMEOUT_SECONDS = 5.0
"""Seconds for processes to be gone after SIGKILL; one that hangs in the kernel is left to it."""

# Loaded here: a forked child must not import anything before it runs its program.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def set_pdeathsig(how: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """A `preexec_fn`: the kernel sends `how` to the child once the thread that started it is gone, kill -9 included."""
    parent = os.getpid()

    def ask() -> None:
        if _libc is None:
            return
        _libc.prctl(PR_SET_PDEATHSIG, how)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask


def set_pdeathsig_on_fork() -> None:
    """The same for all that this process forks from now on: the workers of granian, the pool of Celery."""
    asks: list[Callable[[], None]] = []
    os.register_at_fork(
        before=lambda: asks.append(set_pdeathsig()),
        after_in_parent=asks.clear,
        after_in_child=lambda: asks.pop()(),
    )


def become_subreaper() -> None:
    """From now on whatever descends from this process stays below it, whoever between them ends (prctl(2))."""
    if _libc is not None:
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)


def kill_descendants() -> int:
    """SIGKILL for all that this process has started, and for what that has started; how many there were."""
    killed: set[int] = set()
    until = monotonic() + KILL_TIMEOUT_SECONDS
    while _has_children() and monotonic() < until:
        found = psutil.Process().children(recursive=True)  # again, for those that were being made meanwhile
        for process in found:
            process.kill()  # psutil does not mistake another process with the same number for it
            killed.add(process.pid)
        psutil.wait_procs(found, timeout=0.5)
        _reap_orphans()
    return len(killed)


def _has_children() -> bool:
    """One system call, where there are none as ever."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _reap_orphans() -> None:
    """Wait for orphans that came to us and have ended: nobody else will."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def kill_group(leader: int) -> None:
    """SIGKILL for what is left of the process group that this process led."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
