"""Probes: checks that run in threads, with a deadline and a grace period."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread

import structlog

CHECK_TIMEOUT_SECONDS = 0.8

START_GRACE_SECONDS = 10.0
"""Seconds that a check which has never passed may fail before an error is logged; the response is 503 at once."""

log = structlog.get_logger(__name__)


class Unhealthy(Exception):
    """A failed check; the message is public."""


class Probe:
    """A check with its last result and the time since which it fails.

    A check that hangs is not started again, so a server that hangs for hours costs one thread, not one for each probe.
    """

    def __init__(self, name: str, check: Callable[[], str], grace_seconds: int = 0) -> None:
        self.__name__ = name
        self.check = check
        self.grace_seconds = grace_seconds
        self.failing_since: float | None = None
        self.has_passed = False
        self.deadline = 0.0
        self.response_time = 0.0
        self._answer: Future[str] | None = None
        self._is_reported = False

    def start_check(self) -> None:
        """Start the check in a thread, unless it is still running."""
        self.deadline = time.monotonic() + CHECK_TIMEOUT_SECONDS
        if self._answer is None or self._answer.done():
            self._answer = Future()
            # Not an executor: the interpreter waits for its threads when it exits.
            Thread(target=self._run_check, args=(self._answer,), name=self.__name__, daemon=True).start()

    def _run_check(self, answer: Future[str]) -> None:
        started = time.monotonic()
        try:
            answer.set_result(self.check())
        except Exception as error:  # noqa: BLE001  # re-raised where the result is read
            answer.set_exception(error)
        self.response_time = round(time.monotonic() - started, 6)

    def __call__(self) -> tuple[bool, str]:
        """Return whether the check passed, and its output; wait for the check until the deadline."""
        if self._answer is None:
            raise RuntimeError("call start_check() first")
        try:
            output = self._answer.result(max(0.0, self.deadline - time.monotonic()))
        except TimeoutError:
            self.response_time = CHECK_TIMEOUT_SECONDS
            return self._record_failure("no answer in time", None)
        except Unhealthy as error:
            return self._record_failure(str(error), None)
        except Exception as error:  # noqa: BLE001  # any error is a failed check; its text is only for the log
            return self._record_failure("does not answer", error)
        if self.failing_since is not None:
            write = log.info if self.has_passed or self._is_reported else log.debug
            write("health check passes again", check=self.__name__)
            self.failing_since = None
        self.has_passed = True
        return True, output

    def _record_failure(self, output: str, error: Exception | None) -> tuple[bool, str]:
        if self.failing_since is None:
            self.failing_since = time.monotonic()
            self._is_reported = False
            write = log.warning if self.has_passed else log.debug
            write("health check fails", check=self.__name__, output=output, exc_info=error)
        if not self.is_within_grace and not self._is_starting and not self._is_reported:  # once, not at every probe
            self._is_reported = True
            log.error("health check failed", check=self.__name__, output=output, exc_info=error)
        return False, output

    @property
    def _is_starting(self) -> bool:
        since = self.failing_since
        return not self.has_passed and since is not None and time.monotonic() - since < START_GRACE_SECONDS

    @property
    def is_within_grace(self) -> bool:
        """Return whether the check passes, or fails for less than the grace period."""
        return self.failing_since is None or time.monotonic() - self.failing_since < self.grace_seconds
