"""Celery app whose tasks run in the Flask app context, and the worker process.

Redis only wakes the workers; PostgreSQL has the state. A lost message is published again from the outbox, so every
setting here prefers to stop early and run again.
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
"""Nice value of the node for jobs."""

REMOTE_SLOTS = 4
"""Pool size of the node for requests to other servers."""

MAIL_SLOTS = 2
"""Pool size of the node for mail: a slow mail server must not delay the next mail."""

TASK_TIMEOUT_SECONDS = 120
"""Hard time limit of a task; the soft limit is 20 s shorter."""

SOFT_SHUTDOWN_SECONDS = {"production": 20, "development": 8, "testing": 2}
"""Seconds by APP_ENV that running tasks get at SIGTERM before they are requeued; less than the supervisor waits.

Celery sleeps for the whole time if any task is running.
"""

JOBS_SOFT_SHUTDOWN_SECONDS = 5
"""The same for the node for jobs, which are notified of the shutdown and requeued within 3 s."""


def make_celery(app: Flask) -> Celery:
    """Return the Celery app of this Flask app and make it the default for tasks declared with `shared_task`."""
    # Celery reads this when it first imports billiard. With it, SIGTERM waits for running tasks for the soft shutdown
    # only and then requeues them.
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
        """A task with its own app context and therefore its own database session, which ends with the task.

        This also applies to a task called inside a request: the session of the caller and its rows do not change.
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
            # BRPOP returns within 1 s; it is given up after 3 to 5 s. A node restarts itself after 8 s.
            "health_check_interval": 2,
        },
        # Retry if Redis refuses writes (memory full, disk full, read-only), as if it did not answer.
        "broker_channel_error_retry": True,
        # The pool already counts tasks that were running when the connection was lost; with this setting on, the
        # prefetch count would stay reduced after they have ended.
        "worker_enable_prefetch_count_reduction": False,
        "task_default_queue": EVENTS_QUEUE,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_ignore_result": True,
        "task_publish_retry": False,
        "task_time_limit": TASK_TIMEOUT_SECONDS,
        "task_soft_time_limit": TASK_TIMEOUT_SECONDS - 20,
        "worker_prefetch_multiplier": 1,
        "worker_max_tasks_per_child": 1000,  # replacing a child was measured to leave its slot idle for up to 4.6 s
        "worker_soft_shutdown_timeout": SOFT_SHUTDOWN_SECONDS[config["APP_ENV"]],
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


def build_worker_arguments(config: dict[str, Any], queues: Sequence[str]) -> list[str]:
    """Return the `celery` command-line arguments that serve these queues."""
    return [
        "--quiet",  # no banner among the log lines
        "worker",
        f"--queues={','.join(queues)}",
        f"--concurrency={_count_slots(config, queues)}",
        # Node names must be unique, or one node answers commands to another.
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
    """Import the Celery modules of a worker before nodes are forked; web and relay processes do not need them."""
    for module in ("celery.bin.celery", "celery.apps.worker", "celery.concurrency.prefork", "celery.worker.consumer"):
        importlib.import_module(module)


def run_worker(app: Flask, *queues: str) -> None:
    """Serve these queues until SIGTERM or SIGINT; if this process is killed, its pool is killed with it."""
    # Imported here because only workers need it and the import is slow.
    from celery.apps import worker as celery_worker  # noqa: PLC0415
    from celery.platforms import SecurityWarning  # noqa: PLC0415

    celery: Celery = app.extensions["celery"]
    log_uncaught_exceptions()
    # Celery warns about running as root because of pickled tasks; ours are JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # Celery prints hints about Ctrl-C to stdout instead of the log.
    celery_worker.safe_say = lambda *_: None
    set_pdeathsig_on_fork()
    if JOBS_QUEUE in queues and EVENTS_QUEUE not in queues:
        os.nice(NICENESS)
        celery.conf.worker_soft_shutdown_timeout = min(
            celery.conf.worker_soft_shutdown_timeout, JOBS_SOFT_SHUTDOWN_SECONDS
        )

    def forget_connections(**_: Any) -> None:
        """Discard connections that were opened before the fork: they belong to the parent."""
        with app.app_context():
            for engine in db.engines.values():
                engine.dispose(close=False)

    def own_children(**_: Any) -> None:
        """Become the subreaper of processes that jobs start, so that they can be killed with the job."""
        become_subreaper()
        app.extensions["owns_children"] = True

    app.extensions["stopping"], stop = os.pipe()  # inherited by every child of the pool
    signals.worker_process_init.connect(forget_connections, weak=False)
    signals.worker_process_init.connect(own_children, weak=False)
    # Not the signal `worker_shutting_down`: Celery sends it after the soft shutdown.
    signals.worker_ready.connect(lambda **_: _notify_children_before_shutdown(stop), weak=False)
    celery.worker_main(build_worker_arguments(app.config, queues))
    if heartbeat.restart_requested.is_set():
        sys.exit(RESTART_EXIT_STATUS)


def _notify_children_before_shutdown(stop: int) -> None:
    """Wrap the handlers of SIGTERM and SIGINT so that they first make the read end of the pipe readable."""
    for number in (signal.SIGTERM, signal.SIGINT):
        celery_handler: Any = signal.getsignal(number)

        def handle_signal(number: int, frame: FrameType | None, celery_handler: Any = celery_handler) -> None:
            broker.consumer_state.is_ending = True
            os.write(stop, b".")
            celery_handler(number, frame)

        signal.signal(number, handle_signal)


@signals.setup_logging.connect  # type: ignore[untyped-decorator]  # Celery carries no types
def _disable_celery_logging(**_: Any) -> None:
    """Do nothing: with a receiver for this signal, Celery installs no log handlers; `app.logs` has its own."""
