"""Celery nodes of `manage.py worker`, each with its queues and in its own process, so that mails never wait for jobs.

The nodes are forks of a parent that has created the app, so it is imported once and its memory is shared.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from time import monotonic

from app.processes.process_tree import set_pdeathsig

EVENTS_QUEUE = "events"
"""Celery queue of short work, such as calendar files."""

MAILS_QUEUE = "mails"
"""Celery queue of mails: they do not wait for other work, and other work does not wait for a slow mail server."""

JOBS_QUEUE = "jobs"
"""Celery queue of long work."""

REMOTE_QUEUE = "remote"
"""Celery queue of requests to other servers, which may be slow: neither mails nor jobs wait for them."""

QUEUES = (EVENTS_QUEUE, MAILS_QUEUE, JOBS_QUEUE, REMOTE_QUEUE)

RESTART_EXIT_STATUS = os.EX_TEMPFAIL
"""Exit status of a node that must be restarted."""

STOP_TIMEOUT_SECONDS = 25.0
"""Time for the other nodes to stop after one has ended; longer than their soft shutdown."""

POLL_INTERVAL_SECONDS = 0.5
"""Maximum time until the end of a node is noticed."""


def list_node_queues(*, has_processor: bool) -> list[tuple[str, ...]]:
    """Return the queues of each node; requests to other servers have their own node if there is a processor."""
    if has_processor:
        return [(queue,) for queue in QUEUES]
    return [(EVENTS_QUEUE, REMOTE_QUEUE), (MAILS_QUEUE,), (JOBS_QUEUE,)]


def run_nodes(serve: Callable[[Sequence[str]], None], node_queues: Sequence[Sequence[str]]) -> int:
    """Call `serve` with the queues of each node, in a fork for each, until SIGTERM or SIGINT; return the exit status.

    A node that ends with RESTART_EXIT_STATUS is restarted. If a node ends with another status, all nodes are stopped.
    Each gets one signal only: at a second one Celery aborts tasks that could still finish.
    """
    return _NodeGroup(serve).run(node_queues)


class _NodeGroup:
    """Forks of this process, one for each node."""

    def __init__(self, serve: Callable[[Sequence[str]], None]) -> None:
        self.serve_queues = serve
        self.set_pdeathsig = set_pdeathsig()
        self.handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self.nodes: list[BaseProcess] = []
        self.unsignalled: list[BaseProcess] = []
        self.is_ending = False

    def run(self, node_queues: Sequence[Sequence[str]]) -> int:
        """Run all nodes until one has ended for good; return its exit status."""
        self.nodes = [self._start_node(queues) for queues in node_queues]
        for number in self.handlers:
            signal.signal(number, self._terminate_nodes)
        while (status := self._find_final_status()) is None:
            self._restart_nodes(node_queues)
            # With a timeout: a child of an ended node may keep the sentinel open.
            wait([node.sentinel for node in self.nodes], timeout=POLL_INTERVAL_SECONDS)
        self._terminate_nodes()
        deadline = monotonic() + STOP_TIMEOUT_SECONDS
        for node in self.nodes:
            _join_or_kill(node, deadline)
        return status

    def _start_node(self, queues: Sequence[str]) -> BaseProcess:
        node = multiprocessing.get_context("fork").Process(target=self._serve_queues, args=(queues,))
        node.start()
        self.unsignalled.append(node)
        if self.is_ending:  # a signal arrived before the node was in the list
            self._terminate_nodes()
        return node

    def _serve_queues(self, queues: Sequence[str]) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.set_pdeathsig()
        self.serve_queues(queues)

    def _terminate_nodes(self, *_: object) -> None:
        self.is_ending = True
        while self.unsignalled:
            self.unsignalled.pop().terminate()

    def _find_final_status(self) -> int | None:
        """Return the exit status of a node that has ended and must not be restarted; None if there is none."""
        ended = (node.exitcode for node in self.nodes if node.exitcode is not None)
        return next((status for status in ended if self.is_ending or status != RESTART_EXIT_STATUS), None)

    def _restart_nodes(self, node_queues: Sequence[Sequence[str]]) -> None:
        for index, node in enumerate(self.nodes):
            if node.exitcode == RESTART_EXIT_STATUS and not self.is_ending:
                self.unsignalled = [each for each in self.unsignalled if each is not node]
                self.nodes[index] = self._start_node(node_queues[index])


def _join_or_kill(node: BaseProcess, deadline: float) -> None:
    """Wait for a node until the deadline, then kill it: a frozen node would block the restart of the worker."""
    node.join(max(deadline - monotonic(), 0.0))
    if node.is_alive():
        node.kill()
        node.join()
