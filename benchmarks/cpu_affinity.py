"""CPU affinity and usage: the web process has a core of its own, all other processes share the rest."""

import ctypes
import os
import time

import psutil

_libc = ctypes.CDLL(None, use_errno=True)
_available_cpus = sorted(os.sched_getaffinity(0))

WEB_CPUS = {_available_cpus[-1]}
OTHER_CPUS = set(_available_cpus[:-1]) or WEB_CPUS


def get_cpu_seconds(pid: int) -> float:
    """Return the processor time (user and system) of a process and its children, exact to a microsecond."""
    process = psutil.Process(pid)
    return sum(_read_cpu_clock(each.pid) for each in (process, *process.children(recursive=True)))


def get_resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and its children."""
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))


def _read_cpu_clock(pid: int) -> float:
    """Return the CPU clock of the process (clock_getcpuclockid(3)): /proc has a resolution of 10 ms."""
    clock = ctypes.c_int()
    if error := _libc.clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise OSError(error, os.strerror(error))
    return time.clock_gettime(clock.value)
