"""Health reports: all checks at once, as JSON in the format of py-healthcheck."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from healthcheck import HealthCheck
from healthcheck.healthcheck import json_failed_handler, json_success_handler

from app.health.probes import Probe

CACHE_SECONDS = 2.0

FAILING_CACHE_SECONDS = 0.3
"""Seconds for which a failing report is cached; short, because `make run` and load balancers wait for success."""

# The library logs every failed probe; `Probe` logs only when a check begins to fail and when it passes again.
logging.getLogger("healthcheck.healthcheck").setLevel(logging.CRITICAL)


class HealthReport(HealthCheck):  # type: ignore[misc]  # the library carries no types
    """A cached report; only one thread at a time runs the probes, so many clients cost no more than one."""

    def __init__(self, probes: Sequence[Probe], hostname: str = "open-event") -> None:
        super().__init__(checkers=list(probes), success_ttl=CACHE_SECONDS, failed_ttl=CACHE_SECONDS, failed_status=503)
        self._hostname = hostname
        self._lock = threading.Lock()
        self._answer: tuple[str, int, dict[str, str]] | None = None
        self._stale_at = 0.0

    def run(self, check: str | None = None) -> tuple[str, int, dict[str, str]]:
        """Return body, status and headers; the parameter `check` of the base class (a single check) is ignored."""
        with self._lock:
            if self._answer is None or time.monotonic() >= self._stale_at:
                self._answer = self._run_probes()
                is_failing = any(probe.failing_since is not None for probe in self.checkers)
                self._stale_at = time.monotonic() + (FAILING_CACHE_SECONDS if is_failing else CACHE_SECONDS)
            return self._answer

    def _run_probes(self) -> tuple[str, int, dict[str, str]]:
        started = time.monotonic()
        for probe in self.checkers:
            probe.start_check()
        results = [self.run_check(probe) for probe in self.checkers]
        # Override the hostname: the library would publish the name of the machine.
        more = {"hostname": self._hostname, "response_time": round(time.monotonic() - started, 6)}
        # A check that fails within its grace period has `passed: false`, and the report is still a success.
        if all(probe.is_within_grace for probe in self.checkers):
            return json_success_handler(results, **more), self.success_status, self.success_headers
        return json_failed_handler(results, **more), self.failed_status, self.failed_headers

    def run_check(self, checker: Probe) -> dict[str, Any]:
        """Return the result of one probe, with the duration of the check instead of the time spent waiting for it."""
        result: dict[str, Any] = super().run_check(checker)
        return {**result, "response_time": checker.response_time}
