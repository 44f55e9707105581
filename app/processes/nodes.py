"""The worker as people start it: Celery nodes for its queues, each in a process of its own.

Long work never keeps a mail waiting. The nodes are forks of a parent that has made the app: it is imported once, and
its memory is shared.
"""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from time import monotonic

from app.processes.orphans import dying_with_parent

EVENTS_QUEUE = "events"
"""Celery queue of short work, such as calendar files."""

MAILS_QUEUE = "mails"
"""Celery queue of mails: they wait for no other work, and no other work waits for a slow mail server."""

JOBS_QUEUE = "jobs"
"""Celery queue of long work."""

REMOTE_QUEUE = "remote"
"""Celery queue of talk with other servers, which may keep us waiting: neither a mail nor a job waits for that."""

QUEUES = (EVENTS_QUEUE, MAILS_QUEUE, JOBS_QUEUE, REMOTE_QUEUE)

END_SECONDS = 25.0
"""What a node gets to end after another has: longer than its soft shutdown takes."""

POLL_INTERVAL_SECONDS = 0.5
"""How soon it is noticed at the latest that a node has ended."""


def nodes_for(*, has_processor: bool) -> list[tuple[str, ...]]:
    """The queues of each node: talk has one of its own where there is somebody to talk to."""
    if has_processor:
        return [(queue,) for queue in QUEUES]
    return [(EVENTS_QUEUE, REMOTE_QUEUE), (MAILS_QUEUE,), (JOBS_QUEUE,)]


def run_nodes(serve: Callable[[Sequence[str]], None], served: Sequence[Sequence[str]]) -> int:
    """Call `serve` with the queues of each node, in a fork for each, until SIGTERM or SIGINT; return the exit status.

    When one ends, so do all. Each gets one signal: at a second one Celery hands back what still had time to end.
    """
    die_with_parent = dying_with_parent()

    def run(queues: Sequence[str]) -> None:
        die_with_parent()
        serve(queues)

    context = multiprocessing.get_context("fork")
    nodes = [context.Process(target=run, args=(queues,)) for queues in served]
    for node in nodes:
        node.start()
    unsignalled = list(nodes)

    def end(*_: object) -> None:
        while unsignalled:
            unsignalled.pop().terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    while all(node.is_alive() for node in nodes):
        # With a timeout: what a node has started may hold its sentinel open after it has ended.
        wait([node.sentinel for node in nodes], timeout=POLL_INTERVAL_SECONDS)
    status = next(node.exitcode for node in nodes if node.exitcode is not None)
    end()
    deadline = monotonic() + END_SECONDS
    for node in nodes:
        _join(node, deadline)
    return status


def _join(node: BaseProcess, deadline: float) -> None:
    """Kill what does not end: frozen, it would keep all the others from being started again."""
    node.join(max(deadline - monotonic(), 0.0))
    if node.is_alive():
        node.kill()
        node.join()
