"""The Celery side: an app whose tasks run in the Flask app's context, and the process that runs them.

Celery on Redis is a wake-up, never the truth: a lost message is published again from the outbox, so every setting
here prefers to stop early and run again.
"""

import importlib
import os
import secrets
import signal
import sys
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import Any

from celery import Celery, Task, signals
from flask import Flask

from app import broker
from app.extensions import db
from app.health import heartbeat
from app.logs import log_uncaught_exceptions
from app.processes.process_tree import become_subreaper, set_pdeathsig_on_fork
from app.processes.worker_nodes import EVENTS_QUEUE, JOBS_QUEUE, REMOTE_QUEUE, RESTART_EXIT_STATUS
from app.redis_client import broker_url

NICENESS = 5
"""Of the node for long work."""

REMOTE_SLOTS = 4
"""Of the node for talk with other servers."""

MAIL_SLOTS = 2
"""Of the node for mails: one that the mail server keeps waiting does not hold up the next."""

TASK_TIMEOUT_SECONDS = 120
"""A task is killed after this; its soft limit comes 20 s earlier."""

SOFT_SHUTDOWN_SECONDS = {"production": 20, "development": 8, "testing": 2}
"""What tasks that run get at SIGTERM to finish, before they are handed back: less than the supervisor's patience.

Celery sleeps for all of it where anything runs.
"""

JOBS_SOFT_SHUTDOWN_SECONDS = 5
"""The same of the node for long work: jobs know that they must end, and are given back within 3 s."""


def make_celery(app: Flask) -> Celery:
    """The Celery app of this Flask app; tasks declared with `shared_task` belong to it from now on."""
    # Read once, when Celery first imports billiard: SIGTERM waits for running tasks no longer than the soft shutdown,
    # then hands them back.
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
    celery = Celery("open-event", task_cls=_make_task_class(app))
    celery.conf.update(_build_config(app.config))
    broker.init_app(celery)
    celery.steps["worker"].add(heartbeat.Heartbeat)
    celery.set_default()
    app.extensions["celery"] = celery
    return celery


def _make_task_class(app: Flask) -> type[Task]:
    class TaskInContext(Task):  # type: ignore[misc]  # Celery carries no types
        """Runs in an app context of its own, hence with a session of its own that ends with the task.

        That holds for a task called inside a request as well: the caller's session and the rows it loaded stay whole.
        """

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            with app.app_context():
                return self.run(*args, **kwargs)

    return TaskInContext


def _build_config(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "broker_url": broker_url(config["REDIS_URL"]),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "visibility_timeout": 2 * TASK_TIMEOUT_SECONDS,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 3,
            "socket_connect_timeout": 2,
            # A BRPOP, which is answered within a second, is given up after 3 to 5: a node restarts itself after 8.
            "health_check_interval": 2,
        },
        # A Redis that refuses (full memory, full disk, read-only) is waited for like one that does not answer.
        "broker_channel_error_retry": True,
        # What runs since before a lost connection is known to the pool; a smaller prefetch would last longer than that.
        "worker_enable_prefetch_count_reduction": False,
        "task_default_queue": EVENTS_QUEUE,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_ignore_result": True,
        "task_publish_retry": False,
        "task_time_limit": TASK_TIMEOUT_SECONDS,
        "task_soft_time_limit": TASK_TIMEOUT_SECONDS - 20,
        "worker_prefetch_multiplier": 1,
        "worker_max_tasks_per_child": 1000,  # a recycled child was measured to leave its slot idle for up to 4.6 s
        "worker_soft_shutdown_timeout": SOFT_SHUTDOWN_SECONDS[config["APP_ENV"]],
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


def build_worker_arguments(config: dict[str, Any], queues: Sequence[str]) -> list[str]:
    """What `celery` is called with to serve these queues."""
    return [
        "--quiet",  # no banner among the log lines
        "worker",
        f"--queues={','.join(queues)}",
        f"--concurrency={_count_slots(config, queues)}",
        # Two workers of one name would answer for each other.
        f"--hostname={'-'.join(queues)}-{secrets.token_hex(4)}@%h",
        "--pool=prefork",
        f"--loglevel={config['LOG_LEVEL'].upper()}",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ]


def _count_slots(config: dict[str, Any], queues: Sequence[str]) -> int:
    if JOBS_QUEUE in queues:
        return int(config["WORKER_CONCURRENCY"])
    if EVENTS_QUEUE in queues:
        return 1
    return REMOTE_SLOTS if REMOTE_QUEUE in queues else MAIL_SLOTS


def import_celery_worker() -> None:
    """Import what a node needs of Celery, so that nodes can be forked with it; web and relay do without."""
    for module in ("celery.bin.celery", "celery.apps.worker", "celery.concurrency.prefork", "celery.worker.consumer"):
        importlib.import_module(module)


def run_worker(app: Flask, *queues: str) -> None:
    """Serve these queues until SIGTERM or SIGINT; a kill -9 takes the pool along."""
    # Only a worker needs it, and it takes as long to import as the database driver.
    from celery.apps import worker as celery_worker  # noqa: PLC0415
    from celery.platforms import SecurityWarning  # noqa: PLC0415

    celery: Celery = app.extensions["celery"]
    log_uncaught_exceptions()
    # Celery warns of root, in eight lines, because of pickled tasks; ours are JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # It prints to stdout, past logging, what Ctrl-C does to a worker in a terminal.
    celery_worker.safe_say = lambda *_: None
    set_pdeathsig_on_fork()
    if JOBS_QUEUE in queues and EVENTS_QUEUE not in queues:
        os.nice(NICENESS)
        celery.conf.worker_soft_shutdown_timeout = min(
            celery.conf.worker_soft_shutdown_timeout, JOBS_SOFT_SHUTDOWN_SECONDS
        )

    def forget_connections(**_: Any) -> None:
        """A connection opened before the fork belongs to the parent."""
        with app.app_context():
            for engine in db.engines.values():
                engine.dispose(close=False)

    def own_children(**_: Any) -> None:
        """What a job has started ends with it."""
        become_subreaper()
        app.extensions["owns_children"] = True

    app.extensions["stopping"], stop = os.pipe()  # every child of the pool has it, and knows at once
    signals.worker_process_init.connect(forget_connections, weak=False)
    signals.worker_process_init.connect(own_children, weak=False)
    # Not `worker_shutting_down`: Celery sends it when the soft shutdown is over.
    signals.worker_ready.connect(lambda **_: _notify_children_before_shutdown(stop), weak=False)
    celery.worker_main(build_worker_arguments(app.config, queues))
    if heartbeat.restart_requested.is_set():
        sys.exit(RESTART_EXIT_STATUS)


def _notify_children_before_shutdown(stop: int) -> None:
    """At SIGTERM and SIGINT make the other end of the pipe readable, then do what Celery does."""
    for number in (signal.SIGTERM, signal.SIGINT):
        handle: Any = signal.getsignal(number)

        def tell(number: int, frame: FrameType | None, handle: Any = handle) -> None:
            broker.consumer_state.is_ending = True
            os.write(stop, b".")
            handle(number, frame)

        signal.signal(number, tell)


@signals.setup_logging.connect  # type: ignore[untyped-decorator]  # Celery carries no types
def _disable_celery_logging(**_: Any) -> None:
    """A receiver of this signal keeps Celery from setting up handlers of its own: `app.logs` has done it."""
