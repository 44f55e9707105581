"""Who computes where, and how much: the web process has a core of its own, all else shares the other."""

import ctypes
import os
import time

import psutil

_libc = ctypes.CDLL(None, use_errno=True)
_available = sorted(os.sched_getaffinity(0))

WEB = {_available[-1]}
OTHERS = set(_available[:-1]) or WEB


def cpu_seconds(pid: int) -> float:
    """Processor time, user and system, that a process and its children have used; exact to a microsecond."""
    process = psutil.Process(pid)
    return sum(_used(each.pid) for each in (process, *process.children(recursive=True)))


def resident_bytes(pid: int) -> int:
    """Memory of a process and its children that is in RAM."""
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))


def _used(pid: int) -> float:
    """By the kernel's own clock of the process (clock_getcpuclockid(3)): /proc counts in steps of 10 ms."""
    clock = ctypes.c_int()
    if error := _libc.clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise OSError(error, os.strerror(error))
    return time.clock_gettime(clock.value)
