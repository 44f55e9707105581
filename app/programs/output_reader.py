"""Reader of the output of a program: reports progress and a few warnings, and keeps the end of stderr.

While the database does not answer, the last report is kept and stored later; `LeaseKeeper` limits how long.
"""

from collections import deque
from collections.abc import Iterable
from time import monotonic

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.jobs.context import MAX_REPORTS_PER_SECOND, JobContext
from app.programs import progress_parser
from app.programs.line_buffer import MAX_LINE_BYTES, MAX_STDERR_BYTES, LineBuffer, TailBuffer
from app.programs.process import STDERR
from app.programs.redaction import SecretRedactor

MAX_WARNINGS = 20
"""Warnings of one attempt that are stored."""
MAX_LINES_PER_SECOND = 1000
"""Lines of stdout that are parsed per second, the last ones."""
MAX_MESSAGE_LENGTH = 500
"""Characters of a message."""

WARNINGS_OMITTED = "Further lines that cannot be parsed are not stored."

log = structlog.get_logger(__name__)


class OutputReader:
    """Reader of the output of one attempt."""

    def __init__(self, context: JobContext, secrets: Iterable[str]) -> None:
        self._context = context
        self._redactor = SecretRedactor(secrets)
        self._lines = LineBuffer()
        self._tail = TailBuffer(MAX_STDERR_BYTES)
        self._pending_report: progress_parser.ProgressReport | None = None
        self._pending_warnings: deque[str] = deque()
        self._reported_at = self._second = 0.0
        self._lines_left = 0
        self._warnings = 0

    def feed(self, stream: str, data: bytes) -> None:
        """Process output: parse stdout as progress, keep the end of stderr."""
        if stream == STDERR:
            self._tail.feed(data)
            return
        now = monotonic()
        if now - self._second >= 1:
            self._second, self._lines_left = now, MAX_LINES_PER_SECOND
        lines = self._lines.feed(data, max(self._lines_left, 1))
        self._lines_left -= len(lines)
        for line in lines:
            self._parse_line(line)

    def feed_stderr(self, stream: str, data: bytes) -> None:
        """Keep the end of stderr and ignore stdout, while the program is being terminated."""
        if stream == STDERR:
            self._tail.feed(data)

    def report_progress(self) -> None:
        """Store the warnings, else the last report, unless one was stored just now; raise if the job is ending."""
        if monotonic() - self._reported_at < 1 / MAX_REPORTS_PER_SECOND:
            return
        if self._pending_warnings:
            self._report_warnings()
        else:
            self._report_last()

    def report_rest(self) -> None:
        """Parse the last line and store all pending warnings and the last report."""
        for line in self._lines.get_last_line():
            self._parse_line(line)
        self._report_warnings()
        self._report_last()

    def get_stderr(self) -> str:
        """Return the end of stderr as text, without secrets."""
        content = self._tail.get_content()
        return self._redactor.redact_text(content, is_cut=self._tail.is_cut, most=MAX_STDERR_BYTES)

    def _parse_line(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        is_cut = len(line) == MAX_LINE_BYTES
        try:
            fraction, message = progress_parser.parse_progress(text)
        except progress_parser.ProgressParseError:
            self._add_warning(self._redactor.redact_line(text, most=MAX_MESSAGE_LENGTH, is_cut=is_cut))
            return
        message = message and self._redactor.redact_line(message, most=MAX_MESSAGE_LENGTH, is_cut=is_cut)
        if self._pending_report is not None:
            fraction = self._pending_report.fraction if fraction is None else fraction
            message = message or self._pending_report.message
        self._pending_report = progress_parser.ProgressReport(fraction, message)

    def _add_warning(self, line: str) -> None:
        self._warnings += 1
        if self._warnings <= MAX_WARNINGS + 1:
            self._pending_warnings.append(
                f"Cannot parse: {line}" if self._warnings <= MAX_WARNINGS else WARNINGS_OMITTED
            )

    def _report_warnings(self) -> None:
        while self._pending_warnings and self._try_report(None, self._pending_warnings[0], "warning"):
            self._pending_warnings.popleft()

    def _report_last(self) -> None:
        fraction, message = self._pending_report or (None, None)
        if (fraction is None and not message) or self._try_report(fraction, message, "info"):
            self._pending_report = None

    def _try_report(self, fraction: float | None, message: str | None, level: str) -> bool:
        """Store a report; return False if the database does not answer."""
        try:
            self._context.report_progress(fraction, message, level=level)
        except SQLAlchemyError as error:
            log.warning("program progress not stored", error=type(error).__name__)
            return False
        finally:
            self._reported_at = monotonic()
        return True
