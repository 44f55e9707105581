"""Return of free memory to the system after requests with large bodies or responses.

Each thread has its own arena, in which glibc keeps freed memory: after several large responses at the same time, a
process would keep hundreds of megabytes.
"""

import ctypes
import threading

from flask import Flask, g

LARGE_BLOCK_BYTES = 2**20
"""Size from which a freed block, such as a large body, is returned to the system at once."""

M_MMAP_THRESHOLD = -3
"""Parameter of mallopt(3)."""

_libc = ctypes.CDLL(None)
_trim_lock = threading.Lock()


def init_app(app: Flask) -> None:
    """Configure the allocator of glibc (musl keeps little memory); release memory after requests that schedule it."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
    app.teardown_request(_release_if_scheduled)


def schedule_memory_release() -> None:
    """Release memory after this request."""
    g.releases_memory = True


def release_memory() -> None:
    """Return free memory to the system (malloc_trim(3))."""
    if hasattr(_libc, "malloc_trim"):
        with _trim_lock:
            _libc.malloc_trim(0)


def _release_if_scheduled(_error: BaseException | None) -> None:
    if "releases_memory" in g:
        release_memory()
