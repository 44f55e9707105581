"""All checks at once, in the JSON that py-healthcheck gives."""

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
"""While a check fails it is looked at more often: `make run` and load balancers wait for it to pass."""

# It logs every failed probe; ours log when a check begins to fail and when it passes again.
logging.getLogger("healthcheck.healthcheck").setLevel(logging.CRITICAL)


class HealthReport(HealthCheck):  # type: ignore[misc]  # the library carries no types
    """One run at a time, kept for a moment: many askers cost the servers no more than one."""

    def __init__(self, probes: Sequence[Probe], hostname: str = "open-event") -> None:
        super().__init__(checkers=list(probes), success_ttl=CACHE_SECONDS, failed_ttl=CACHE_SECONDS, failed_status=503)
        self._hostname = hostname
        self._lock = threading.Lock()
        self._answer: tuple[str, int, dict[str, str]] | None = None
        self._stale_at = 0.0

    def run(self, check: str | None = None) -> tuple[str, int, dict[str, str]]:
        """Body, status and headers; `check` of the library, one check alone, is not used here."""
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
        # The library would say the name of the machine, to everybody.
        more = {"hostname": self._hostname, "response_time": round(time.monotonic() - started, 6)}
        # A check within its grace says `passed: false` and the whole still says success.
        if all(probe.is_within_grace for probe in self.checkers):
            return json_success_handler(results, **more), self.success_status, self.success_headers
        return json_failed_handler(results, **more), self.failed_status, self.failed_headers

    def run_check(self, checker: Probe) -> dict[str, Any]:
        """The library times how long it waited; what the check took is what counts."""
        result: dict[str, Any] = super().run_check(checker)
        return {**result, "response_time": checker.response_time}
