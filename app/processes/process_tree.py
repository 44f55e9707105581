"""Process trees: children end with their parent, and process groups with their leader."""

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
"""Time to wait for processes to end after SIGKILL; a process may hang in the kernel."""

# Loaded here: a forked child must not import anything before it runs its program.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def set_pdeathsig(number: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """Return a `preexec_fn` with which the child gets this signal when the thread that started it ends (prctl(2))."""
    parent = os.getpid()

    def set_signal() -> None:
        if _libc is None:
            return
        _libc.prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it ended before prctl
            os._exit(1)

    return set_signal


def set_pdeathsig_on_fork() -> None:
    """Call `set_pdeathsig` for all later forks of this process: the workers of Granian, the pool of Celery."""
    setters: list[Callable[[], None]] = []
    os.register_at_fork(
        before=lambda: setters.append(set_pdeathsig()),
        after_in_parent=setters.clear,
        after_in_child=lambda: setters.pop()(),
    )


def become_subreaper() -> None:
    """Make this process the new parent of its orphaned descendants (PR_SET_CHILD_SUBREAPER, prctl(2))."""
    if _libc is not None:
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)


def kill_descendants() -> int:
    """Send SIGKILL to all descendants of this process; return their number."""
    killed: set[int] = set()
    deadline = monotonic() + KILL_TIMEOUT_SECONDS
    while _has_children() and monotonic() < deadline:
        descendants = psutil.Process().children(recursive=True)  # again: they may have started others
        for process in descendants:
            process.kill()  # psutil checks that the pid was not reused
            killed.add(process.pid)
        psutil.wait_procs(descendants, timeout=0.5)
        _reap_orphans()
    return len(killed)


def _has_children() -> bool:
    """Return whether this process has children; this takes one system call if there are none, the usual case."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _reap_orphans() -> None:
    """Reap adopted orphans that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def kill_group(leader: int) -> None:
    """Send SIGKILL to the rest of a process group, if there is any."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
