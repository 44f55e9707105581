"""No process is left behind: children end with their parent, and a group ends with its leader."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1

# Loaded here: a forked child must not import anything before it runs its program.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def dying_with_parent(how: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """A `preexec_fn`: the kernel sends `how` to the child once the thread that started it is gone, kill -9 included."""
    parent = os.getpid()

    def ask() -> None:
        if _libc is None:
            return
        _libc.prctl(PR_SET_PDEATHSIG, how)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask


def forks_die_with_parent() -> None:
    """The same for all that this process forks from now on: the workers of granian, the pool of Celery."""
    asks: list[Callable[[], None]] = []
    os.register_at_fork(
        before=lambda: asks.append(dying_with_parent()),
        after_in_parent=asks.clear,
        after_in_child=lambda: asks.pop()(),
    )


def kill_group(leader: int) -> None:
    """SIGKILL for what is left of the process group that this process led."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
