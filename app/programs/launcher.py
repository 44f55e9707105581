"""The process between a worker and a program: `child` runs this file, nothing imports it.

It ends all that descends from the program when it is told so, and when nobody is there any more to tell it: then its
standard input has ended, as it does when the worker is killed. It has no settings and no secrets but those it passes
on, and nothing is imported but what each start is worth.

Standard input is a line of JSON (`command`, `environment`, `directory`, `limits`, `user`), then a byte for each SIGTERM
that the program is to get. The descriptor named by its one argument gets a line of JSON: `errno` where the program
could not be started, or `returncode` when it has ended, negative for a signal.
"""

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

KILL_TIMEOUT_SECONDS = 5.0
"""Seconds for processes to be gone after SIGKILL; one that hangs in the kernel is left to it."""

CONTROL_FD = 0
CHUNK_SIZE = 2**16
TERMINATION_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

libc = ctypes.CDLL(None)


def main() -> None:
    """Run one program."""
    status = int(sys.argv[1])
    os.set_inheritable(status, False)
    for number in TERMINATION_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # what goes to each process of a service is for the worker to hear
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    plan, told = read_launch_spec()
    leader = start_program(plan, status)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)  # its streams end with it, not with us
    if told:
        os.killpg(leader, signal.SIGTERM)
    watch_program(leader, status)
    kill_descendants()


def read_launch_spec() -> tuple[dict[str, Any], bytes]:
    """What is to be done, and what was told after it already."""
    parts = []
    while piece := os.read(CONTROL_FD, CHUNK_SIZE):
        line, end, told = piece.partition(b"\n")
        parts.append(line)
        if end:
            return json.loads(b"".join(parts)), told
    sys.exit(os.EX_NOINPUT)


def start_program(plan: dict[str, Any], status: int) -> int:
    """The process that leads the program's session; where it cannot be started, this is the end."""
    hearing, saying = os.pipe()
    try:
        leader = os.fork()
    except OSError as error:
        report_start_error(error.errno, status)
    if leader == 0:
        exec_program(plan, saying)
    os.close(saying)
    said = os.read(hearing, CHUNK_SIZE)
    os.close(hearing)
    if said:
        os.waitpid(leader, 0)
        report_start_error(int(said), status)
    return leader


def report_start_error(number: int | None, status: int) -> NoReturn:
    """Say why nothing was started."""
    os.write(status, json.dumps({"errno": number}).encode() + b"\n")
    sys.exit(os.EX_OSERR)


def exec_program(plan: dict[str, Any], saying: int) -> NoReturn:
    """Be the program, or say the number of the error that keeps us from it."""
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), CONTROL_FD)
        for number in (*TERMINATION_SIGNALS, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(plan["directory"])
        set_limits(plan["limits"])
        if plan["user"]:
            switch_user(*plan["user"])
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user would have cleared it
        command = [word.encode() for word in plan["command"]]
        environment = {name.encode(): value.encode() for name, value in plan["environment"].items()}
        os.execve(command[0], command, environment)  # noqa: S606  # no shell, and the operator's own program
    except OSError as error:
        os.write(saying, str(error.errno).encode())
    finally:
        os._exit(os.EX_OSERR)


def switch_user(user: int, group: int) -> None:
    """Give up all rights but those of this user."""
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_limits(limits: dict[str, int]) -> None:
    """No more of each than this; what we may not have ourselves it does not get either."""
    for name, wanted in limits.items():
        number = getattr(resource, name)
        _, most = resource.getrlimit(number)
        allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(number, (allowed, allowed))


def watch_program(leader: int, status: int) -> None:
    """Pass on what is told, and say when the program has ended; return when there is nobody to tell anything."""
    ended = os.pidfd_open(leader)
    poll = select.poll()
    poll.register(CONTROL_FD, select.POLLIN)
    poll.register(ended, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if ended in ready:
            poll.unregister(ended)
            report_exit(leader, status)
        if CONTROL_FD in ready:
            if not os.read(CONTROL_FD, CHUNK_SIZE):
                return
            with suppress(ProcessLookupError):
                os.killpg(leader, signal.SIGTERM)


def report_exit(leader: int, status: int) -> None:
    """How the program has ended; it is not buried yet, so that nobody else gets the number of its group."""
    found = os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT)
    if found is None:
        return
    returncode = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
    with suppress(BrokenPipeError):
        os.write(status, json.dumps({"returncode": returncode}).encode() + b"\n")


def kill_descendants() -> None:
    """SIGKILL for all that descends from us, in whatever group; orphans come to us and are buried here."""
    until = time.monotonic() + KILL_TIMEOUT_SECONDS
    while time.monotonic() < until:
        for process, group in list_descendants():
            kill_process_group(process, group)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        time.sleep(0.005)


def kill_process_group(process: int, group: int) -> None:
    """A whole group at once: none of it can fork faster than that."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(process, signal.SIGKILL)
        if group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)


def list_descendants() -> list[tuple[int, int]]:
    """Process and group of all that we, or our children, have started."""
    children: dict[int, list[tuple[int, int]]] = {}
    for process in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{process}/stat", "rb") as file:
            _, parent, group = file.read().rpartition(b")")[2].split()[:3]  # proc_pid_stat(5)
            children.setdefault(int(parent), []).append((int(process), int(group)))
    found: list[tuple[int, int]] = []
    below = [os.getpid()]
    while below:
        made = children.get(below.pop(), [])
        found += made
        below += [process for process, _ in made]
    return found


if __name__ == "__main__":
    main()
