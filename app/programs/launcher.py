"""The process between a worker and a program; `process` runs this file, nothing imports it.

It kills all descendants of the program when its standard input ends, which also happens when the worker is killed. It
has no settings and no secrets except those that it passes on, and imports only the standard library, because it starts
for each program.

Standard input is a line of JSON (`command`, `environment`, `directory`, `limits`, `user`), then one byte for each
SIGTERM to send to the program. The file descriptor given as the only argument receives a line of JSON: `errno` if the
program could not be started, or `returncode` when it has ended, negative for a signal.
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
"""Seconds for processes to end after SIGKILL; a process that hangs in the kernel is left behind."""

CONTROL_FD = 0
CHUNK_SIZE = 2**16
TERMINATION_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

libc = ctypes.CDLL(None)


def main() -> None:
    """Run one program."""
    status = int(sys.argv[1])
    os.set_inheritable(status, False)
    for number in TERMINATION_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the worker handles signals that are sent to all processes of a service
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    spec, signals = read_launch_spec()
    leader = start_program(spec, status)
    devnull = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(devnull, stream)  # stdout and stderr must reach their end when the program ends, not the launcher
    if signals:
        os.killpg(leader, signal.SIGTERM)
    watch_program(leader, status)
    kill_descendants()


def read_launch_spec() -> tuple[dict[str, Any], bytes]:
    """Read the launch spec from standard input; return it with the signal bytes that were read after it."""
    parts = []
    while chunk := os.read(CONTROL_FD, CHUNK_SIZE):
        line, end, signals = chunk.partition(b"\n")
        parts.append(line)
        if end:
            return json.loads(b"".join(parts)), signals
    sys.exit(os.EX_NOINPUT)


def start_program(spec: dict[str, Any], status: int) -> int:
    """Start the program as the leader of a new session; return its process id, or report the error and exit."""
    error_reader, error_writer = os.pipe()
    try:
        leader = os.fork()
    except OSError as error:
        report_start_error(error.errno, status)
    if leader == 0:
        exec_program(spec, error_writer)
    os.close(error_writer)
    error_number = os.read(error_reader, CHUNK_SIZE)
    os.close(error_reader)
    if error_number:
        os.waitpid(leader, 0)
        report_start_error(int(error_number), status)
    return leader


def report_start_error(number: int | None, status: int) -> NoReturn:
    """Report the errno of a failed start and exit."""
    os.write(status, json.dumps({"errno": number}).encode() + b"\n")
    sys.exit(os.EX_OSERR)


def exec_program(spec: dict[str, Any], error_writer: int) -> NoReturn:
    """Replace this process with the program, or write the errno to `error_writer` and exit."""
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), CONTROL_FD)
        for number in (*TERMINATION_SIGNALS, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(spec["directory"])
        set_limits(spec["limits"])
        if spec["user"]:
            switch_user(*spec["user"])
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which clears it
        command = [word.encode() for word in spec["command"]]
        environment = {name.encode(): value.encode() for name, value in spec["environment"].items()}
        os.execve(command[0], command, environment)  # noqa: S606  # no shell, and the operator's own program
    except OSError as error:
        os.write(error_writer, str(error.errno).encode())
    finally:
        os._exit(os.EX_OSERR)


def switch_user(user: int, group: int) -> None:
    """Change to this user and group, without other groups and without new privileges."""
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_limits(limits: dict[str, int]) -> None:
    """Set resource limits (setrlimit(2)), but never above the hard limits of this process."""
    for name, limit in limits.items():
        number = getattr(resource, name)
        _, hard_limit = resource.getrlimit(number)
        new_limit = limit if hard_limit == resource.RLIM_INFINITY else min(limit, hard_limit)
        resource.setrlimit(number, (new_limit, new_limit))


def watch_program(leader: int, status: int) -> None:
    """Forward SIGTERM and report the exit of the program; return when standard input ends."""
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
    """Report the return code of the program, without reaping it, so that its process group id is not reused."""
    result = os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT)
    if result is None:
        return
    returncode = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
    with suppress(BrokenPipeError):
        os.write(status, json.dumps({"returncode": returncode}).encode() + b"\n")


def kill_descendants() -> None:
    """Send SIGKILL to all descendants, in any process group, and reap them: as a subreaper we are their parent."""
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
    """Kill a process and its whole group at once, so that a process of the group cannot fork in between."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(process, signal.SIGKILL)
        if group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)


def list_descendants() -> list[tuple[int, int]]:
    """Return the process id and process group id of all descendants of this process."""
    children: dict[int, list[tuple[int, int]]] = {}
    for process in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{process}/stat", "rb") as file:
            _, parent, group = file.read().rpartition(b")")[2].split()[:3]  # proc_pid_stat(5)
            children.setdefault(int(parent), []).append((int(process), int(group)))
    descendants: list[tuple[int, int]] = []
    parents = [os.getpid()]
    while parents:
        started = children.get(parents.pop(), [])
        descendants += started
        parents += [process for process, _ in started]
    return descendants


if __name__ == "__main__":
    main()
