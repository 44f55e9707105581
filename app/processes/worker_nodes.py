"""The worker as people start it: Celery nodes for its queues, each in a process of its own.

Long work never keeps a mail waiting. The nodes are forks of a parent that has made the app: it is imported once, and
its memory is shared.
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
"""Celery queue of mails: they wait for no other work, and no other work waits for a slow mail server."""

JOBS_QUEUE = "jobs"
"""Celery queue of long work."""

REMOTE_QUEUE = "remote"
"""Celery queue of talk with other servers, which may keep us waiting: neither a mail nor a job waits for that."""

QUEUES = (EVENTS_QUEUE, MAILS_QUEUE, JOBS_QUEUE, REMOTE_QUEUE)

RESTART_EXIT_STATUS = os.EX_TEMPFAIL
"""Exit status of a node that has to be started again, and could do its work then."""

STOP_TIMEOUT_SECONDS = 25.0
"""What a node gets to end after another has: longer than its soft shutdown takes."""

POLL_INTERVAL_SECONDS = 0.5
"""How soon it is noticed at the latest that a node has ended."""


def list_node_queues(*, has_processor: bool) -> list[tuple[str, ...]]:
    """The queues of each node: talk has one of its own where there is somebody to talk to."""
    if has_processor:
        return [(queue,) for queue in QUEUES]
    return [(EVENTS_QUEUE, REMOTE_QUEUE), (MAILS_QUEUE,), (JOBS_QUEUE,)]


def run_nodes(serve: Callable[[Sequence[str]], None], served: Sequence[Sequence[str]]) -> int:
    """Call `serve` with the queues of each node, in a fork for each, until SIGTERM or SIGINT; return the exit status.

    A node that ends with RESTART_EXIT_STATUS is started again. When another one ends, so do all. Each gets one
    signal: at a second one Celery hands back what still had time to end.
    """
    return _NodeGroup(serve).run(served)


class _NodeGroup:
    """The forks of this process."""

    def __init__(self, serve: Callable[[Sequence[str]], None]) -> None:
        self.serve_queues = serve
        self.set_pdeathsig = set_pdeathsig()
        self.handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self.nodes: list[BaseProcess] = []
        self.unsignalled: list[BaseProcess] = []
        self.is_ending = False

    def run(self, served: Sequence[Sequence[str]]) -> int:
        """Start all nodes, start some again, and end all when one has ended; return its exit status."""
        self.nodes = [self._start_node(queues) for queues in served]
        for number in self.handlers:
            signal.signal(number, self._terminate_nodes)
        while (status := self._find_final_status()) is None:
            self._restart_nodes(served)
            # With a timeout: what a node has started may hold its sentinel open after it has ended.
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
        if self.is_ending:  # a signal came before it was in the list
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
        """Return the exit status of a node that has ended and is not to be started again; None while there is none."""
        ended = (node.exitcode for node in self.nodes if node.exitcode is not None)
        return next((status for status in ended if self.is_ending or status != RESTART_EXIT_STATUS), None)

    def _restart_nodes(self, served: Sequence[Sequence[str]]) -> None:
        for index, node in enumerate(self.nodes):
            if node.exitcode == RESTART_EXIT_STATUS and not self.is_ending:
                self.unsignalled = [each for each in self.unsignalled if each is not node]
                self.nodes[index] = self._start_node(served[index])


def _join_or_kill(node: BaseProcess, deadline: float) -> None:
    """Kill what does not end: frozen, it would keep all the others from being started again."""
    node.join(max(deadline - monotonic(), 0.0))
    if node.is_alive():
        node.kill()
        node.join()
