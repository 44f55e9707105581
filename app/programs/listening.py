"""What a program says becomes what its job says: progress, a few warnings, and the end of its stderr.

While the database is away it is kept, and said later: how long that may take is for the heart of the job to know.
"""

from collections import deque
from collections.abc import Iterable
from time import monotonic

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.jobs.context import REPORTS_A_SECOND, Running
from app.programs import reports
from app.programs.child import STDERR
from app.programs.lines import LONGEST_LINE, MOST_STDERR, Lines, Tail
from app.programs.words import Words

MOST_WARNINGS = 20
"""Of one attempt."""
LINES_A_SECOND = 1000
"""That are looked at; of what comes faster, only the last ones are."""
LONGEST_MESSAGE = 500
"""Characters."""

NO_MORE = "It says more that is not understood; no more of it is kept."

log = structlog.get_logger(__name__)


class Listener:
    """Hears one attempt."""

    def __init__(self, running: Running, secrets: Iterable[str]) -> None:
        self._running = running
        self._words = Words(secrets)
        self._lines = Lines()
        self._tail = Tail(MOST_STDERR)
        self._unsaid: reports.Report | None = None
        self._unsaid_warnings: deque[str] = deque()
        self._said_at = self._second = 0.0
        self._lines_left = 0
        self._warnings = 0

    def hear(self, stream: str, data: bytes) -> None:
        """What was said on a stream."""
        if stream == STDERR:
            self._tail.feed(data)
            return
        now = monotonic()
        if now - self._second >= 1:
            self._second, self._lines_left = now, LINES_A_SECOND
        lines = self._lines.feed(data, max(self._lines_left, 1))
        self._lines_left -= len(lines)
        for line in lines:
            self._understand(line)

    def overhear(self, stream: str, data: bytes) -> None:
        """The same when nobody asks any more how far it is."""
        if stream == STDERR:
            self._tail.feed(data)

    def tell(self) -> None:
        """Pass on the warnings, else the last report, unless there was one just now; raises as `Running.check` does."""
        if monotonic() - self._said_at < 1 / REPORTS_A_SECOND:
            return
        if self._unsaid_warnings:
            self._pass_warnings_on()
        else:
            self._pass_on()

    def end(self) -> None:
        """Pass on the last word."""
        for line in self._lines.end():
            self._understand(line)
        self._pass_warnings_on()
        self._pass_on()

    def stderr(self) -> str:
        """The end of what was said there."""
        content = self._tail.content()
        return self._words.text(content, is_cut=self._tail.is_cut, most=MOST_STDERR)

    def _understand(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        is_cut = len(line) == LONGEST_LINE
        try:
            fraction, message = reports.read(text)
        except reports.NotUnderstood:
            self._warn(self._words.line(text, most=LONGEST_MESSAGE, is_cut=is_cut))
            return
        message = message and self._words.line(message, most=LONGEST_MESSAGE, is_cut=is_cut)
        if self._unsaid is not None:
            fraction = self._unsaid.fraction if fraction is None else fraction
            message = message or self._unsaid.message
        self._unsaid = reports.Report(fraction, message)

    def _warn(self, words: str) -> None:
        self._warnings += 1
        if self._warnings <= MOST_WARNINGS + 1:
            self._unsaid_warnings.append(f"Not understood: {words}" if self._warnings <= MOST_WARNINGS else NO_MORE)

    def _pass_warnings_on(self) -> None:
        while self._unsaid_warnings and self._say(None, self._unsaid_warnings[0], "warning"):
            self._unsaid_warnings.popleft()

    def _pass_on(self) -> None:
        fraction, message = self._unsaid or (None, None)
        if (fraction is None and not message) or self._say(fraction, message, "info"):
            self._unsaid = None

    def _say(self, fraction: float | None, message: str | None, level: str) -> bool:
        """Whether it could be said."""
        try:
            self._running.progress(fraction, message, level=level)
        except SQLAlchemyError as error:
            log.warning("program is not heard", error=type(error).__name__)
            return False
        finally:
            self._said_at = monotonic()
        return True
