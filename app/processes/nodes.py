"""The worker as people start it: a Celery node for each queue, in a process of its own.

Long work never keeps a mail waiting. This parent imports nothing of the app, so it costs next to nothing.
"""

import os
import signal
import subprocess
from collections.abc import Sequence

from app.processes.orphans import dying_with_parent

EVENTS_QUEUE = "events"
"""Celery queue of short work: mails, calendars."""

JOBS_QUEUE = "jobs"
"""Celery queue of long work."""

QUEUES = (EVENTS_QUEUE, JOBS_QUEUE)


def run_nodes(command: Sequence[str]) -> int:
    """Run `command` with the name of each queue until SIGTERM or SIGINT; when one ends, so do all. Its exit status."""
    nodes = [subprocess.Popen([*command, queue], preexec_fn=dying_with_parent()) for queue in QUEUES]  # noqa: S603  # our own command

    def end(*_: object) -> None:
        for node in nodes:
            node.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    pid, status = os.wait()
    end()
    for node in nodes:
        if node.pid != pid:
            node.wait()
    return os.waitstatus_to_exitcode(status)
