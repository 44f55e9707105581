"""Number of connections to PostgreSQL that the processes of a server open at most, and what PostgreSQL permits."""

from collections.abc import Mapping
from typing import Any

import psycopg
import structlog

WEB_EXTRA_CONNECTIONS = 8
"""Connections of a web process besides its pool: notifications, probes."""

WORKER_EXTRA_CONNECTIONS = 60
"""Connections of the nodes besides those of jobs, of the relay, of commands and of the operator."""

SLOT_CONNECTIONS = 3
"""Connections of a slot for jobs: the job, its lease, its heartbeat."""

DEFAULT_MAX_CONNECTIONS = 100
"""The default of PostgreSQL."""

CONNECT_TIMEOUT_SECONDS = 3

log = structlog.get_logger(__name__)


def count_connections(settings: Mapping[str, Any]) -> int:
    """Return how many connections one web, worker and relay with these settings open at most."""
    web = settings["WEB_WORKERS"] * (settings["DATABASE_POOL"] + WEB_EXTRA_CONNECTIONS)
    return int(web + SLOT_CONNECTIONS * settings["WORKER_CONCURRENCY"] + WORKER_EXTRA_CONNECTIONS)


def warn_of_few_connections(settings: Mapping[str, Any]) -> None:
    """Log a warning, with the figures, where PostgreSQL permits fewer connections than the settings may need."""
    needed = count_connections(settings)
    try:
        with psycopg.connect(
            settings["DATABASE_URL"].replace("+psycopg", "", 1), connect_timeout=CONNECT_TIMEOUT_SECONDS
        ) as connection:
            row = connection.execute("SELECT current_setting('max_connections')::int").fetchone()
    except psycopg.OperationalError as error:
        log.warning("max_connections of PostgreSQL unknown", error=type(error).__name__, needed=needed)
        return
    permitted = row[0] if row else 0
    if permitted < needed:
        log.warning(
            "PostgreSQL permits too few connections",
            max_connections=permitted,
            needed=needed,
            web_workers=settings["WEB_WORKERS"],
            database_pool=settings["DATABASE_POOL"],
        )
