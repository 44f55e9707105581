"""Memory that large bodies and answers took goes back to the system when their requests have ended.

Threads allocate in arenas of their own, and glibc keeps what they have freed there: after some large answers at once a
process would hold hundreds of megabytes for good.
"""

import ctypes
import threading

from flask import Flask, g

LARGE_BLOCK_BYTES = 2**20
"""A block of this size or more, such as a large body, goes back to the system when it is freed."""

M_MMAP_THRESHOLD = -3
"""Of mallopt(3)."""

_libc = ctypes.CDLL(None)
_trim_lock = threading.Lock()


def init_app(app: Flask) -> None:
    """Set up the allocator of glibc (musl keeps little), and return memory after each request that asked for it."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
    app.teardown_request(_release_if_scheduled)


def schedule_memory_release() -> None:
    """Let this request, which holds much, return its memory when it has ended."""
    g.holds_much = True


def release_memory() -> None:
    """Return memory that is free to the system."""
    if hasattr(_libc, "malloc_trim"):
        with _trim_lock:
            _libc.malloc_trim(0)


def _release_if_scheduled(_error: BaseException | None) -> None:
    if "holds_much" in g:
        release_memory()
