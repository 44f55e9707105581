"""Memory that a large answer took goes back to the system when its request has ended.

Threads allocate in arenas of their own, and glibc keeps what they have freed there: after some large answers at once a
process would hold hundreds of megabytes for good.
"""

import ctypes
import threading

from flask import Flask, g

_libc = ctypes.CDLL(None)
_trimming = threading.Lock()


def install(app: Flask) -> None:
    """Return memory after each request that asked for it."""
    app.teardown_request(_release)


def release_after_request() -> None:
    """Let this request, which holds much, return its memory when it has ended."""
    g.holds_much = True


def _release(_error: BaseException | None) -> None:
    if g.pop("holds_much", False) and hasattr(_libc, "malloc_trim"):  # of glibc; musl keeps little
        with _trimming:
            _libc.malloc_trim(0)
