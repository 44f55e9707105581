"""The worker as people start it: Celery nodes for its queues, each in a process of its own.

Long work never keeps a mail waiting. This parent imports nothing of the app, so it costs next to nothing.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from time import monotonic

from app.processes.orphans import dying_with_parent

EVENTS_QUEUE = "events"
"""Celery queue of short work: mails, calendars."""

JOBS_QUEUE = "jobs"
"""Celery queue of long work."""

REMOTE_QUEUE = "remote"
"""Celery queue of talk with other servers, which may keep us waiting: neither a mail nor a job waits for that."""

QUEUES = (EVENTS_QUEUE, JOBS_QUEUE, REMOTE_QUEUE)


END_SECONDS = 25.0
"""What a node gets to end after another has: longer than its soft shutdown takes."""


def nodes_for(*, has_processor: bool) -> list[tuple[str, ...]]:
    """The queues of each node: talk has one of its own where there is somebody to talk to."""
    if has_processor:
        return [(queue,) for queue in QUEUES]
    return [(EVENTS_QUEUE, REMOTE_QUEUE), (JOBS_QUEUE,)]


def run_nodes(command: Sequence[str], served: Sequence[Sequence[str]]) -> int:
    """Run `command` with the queues of each node until SIGTERM or SIGINT; when one ends, so do all. Its exit status.

    Each is told once: at a second signal Celery hands back what still had time to end.
    """
    nodes = [subprocess.Popen([*command, *queues], preexec_fn=dying_with_parent()) for queues in served]  # noqa: S603  # our own command
    untold = list(nodes)

    def end(*_: object) -> None:
        while untold:
            untold.pop().terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    pid, status = os.wait()
    end()
    deadline = monotonic() + END_SECONDS
    for node in nodes:
        if node.pid != pid:
            _await(node, deadline)
    return os.waitstatus_to_exitcode(status)


def _await(node: subprocess.Popen[bytes], deadline: float) -> None:
    """Kill what does not end: frozen, it would keep all the others from being started again."""
    try:
        node.wait(max(deadline - monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()
