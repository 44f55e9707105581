"""Log levels, colours, and the output of the supervisor and its child processes."""

import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from errno import ENOSPC
from typing import Any, TextIO

import orjson

LOG_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""Values of LOG_LEVEL with the numbers of the standard library."""

COLOR_VARIABLE = "OPEN_EVENT_COLOR"
"""Variable that the supervisor sets for its children, whose stdout is a pipe: 1 if its own stdout is a terminal."""

TEXT_TIMESTAMP = "%Y-%m-%d %H:%M:%SZ"

_CYAN, _YELLOW, _RED, _RESET = "\x1b[36m", "\x1b[33m", "\x1b[31m", "\x1b[0m"
_LEVEL_COLORS = {"warning": _YELLOW, "error": _RED}

LineParser = Callable[[str], tuple[str | None, str]]
"""Function that returns level and message of a server's log line; level None if it continues the previous line."""


def is_colored(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Return whether to colour lines on this stream: on a terminal, unless NO_COLOR is set."""
    if COLOR_VARIABLE in environ:
        return environ[COLOR_VARIABLE] == "1"
    is_wanted = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return is_wanted and stream is not None and stream.isatty()


class Console:
    """Writer of one line for each event to stdout: text prefixed by the component, or JSON with a field `component`."""

    def __init__(self, log_format: str, log_level: str, *, colored: bool = False) -> None:
        self.is_json = log_format == "json"
        self.min_level = LOG_LEVELS[log_level]
        self.colored = colored and not self.is_json

    def log_event(self, component: str, event: str, level: str = "info", **details: Any) -> None:
        """Write an event of this component, unless its level is below LOG_LEVEL."""
        if LOG_LEVELS[level] < self.min_level:
            return
        now = datetime.now(UTC)
        if self.is_json:
            timestamp = now.isoformat().replace("+00:00", "Z")
            record = {"component": component, "level": level, "timestamp": timestamp, "event": event, **details}
            self.write_line(orjson.dumps(record, default=str))
        else:
            shown = [now.strftime(TEXT_TIMESTAMP)]
            shown += [] if level == "info" else [self._colorize_text(f"[{level}]", _LEVEL_COLORS.get(level, ""))]
            shown += [event, *(f"{name}={value}" for name, value in details.items())]
            self.write_line(self._format_prefix(component) + " ".join(shown).encode(errors="replace"))

    def forward_line(self, component: str, line: bytes) -> None:
        """Write a line of one of our own processes, which has already applied LOG_LEVEL."""
        if not line.strip():
            return
        if not self.is_json:
            self.write_line(self._format_prefix(component) + line)
        elif _is_json_object(line):
            self.write_line(b'{"component":%b,%b' % (orjson.dumps(component), line.lstrip()[1:]))
        else:
            # It bypassed logging (a traceback of the interpreter, a message of a C library): its level is unknown.
            self.log_event(component, line.decode(errors="replace"), "error")

    def write_line(self, line: bytes) -> None:
        """Write a line unchanged; a closed stdout, such as a closed terminal, must not end the servers."""
        try:
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()
        except OSError as error:
            if error.errno != ENOSPC:  # a full disk may have space again for later lines
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _format_prefix(self, component: str) -> bytes:
        return f"{self._colorize_text(f'{component:<8}', _CYAN)} | ".encode()

    def _colorize_text(self, text: str, color: str) -> str:
        return f"{color}{text}{_RESET}" if self.colored and color else text


def _is_json_object(line: bytes) -> bool:
    with suppress(orjson.JSONDecodeError):
        return isinstance(record := orjson.loads(line), dict) and bool(record)
    return False


_POSTGRES_LINE = re.compile(r"[0-9-]+ [0-9:.]+ \w+ \[\d+\] (?P<severity>[A-Z]+\d?): +(?P<message>.*)", re.DOTALL)
_POSTGRES_LEVELS = {
    "LOG": "info",
    "INFO": "info",
    "NOTICE": "info",
    "WARNING": "warning",
    "ERROR": "error",
    "FATAL": "error",
    "PANIC": "error",
}
# Messages of every start, stop and checkpoint. All others matter: a crash of a backend, a recovery, checkpoints that
# are too frequent.
_POSTGRES_ROUTINE = re.compile(
    r"starting PostgreSQL |listening on |database system was shut down at |database system is ready to accept "
    r"|received (fast|smart|immediate) shutdown request|aborting any active transactions|shutting down$"
    r'|background worker "logical replication launcher" .* exited with exit code 1'
    r"|checkpoint (starting|complete): |database system is shut down"
)
# FATAL for a client whose connection was refused or ended because the server starts or stops as requested.
_POSTGRES_TRANSIENT = re.compile(
    r"the database system is (starting up|shutting down|not yet accepting connections)"
    r"|terminating connection due to administrator command"
)


def parse_postgres_line(line: str) -> tuple[str | None, str]:
    """Return the level and message of a line of PostgreSQL's log."""
    found = _POSTGRES_LINE.match(line)
    if found is None:
        return None, line
    severity, message = found["severity"], found["message"]
    level = _POSTGRES_LEVELS.get(severity)  # none for DETAIL, HINT, CONTEXT and STATEMENT
    if (severity == "LOG" and _POSTGRES_ROUTINE.match(message)) or _POSTGRES_TRANSIENT.match(message):
        level = "debug"
    return level, message if level else f"{severity}: {message}"


_REDIS_LINE = re.compile(r"\d+:\w (?:\d+ \w+ \d+ [0-9:.]+|[0-9T:.+-]+) (?P<mark>[.*#-]) (?P<message>.*)", re.DOTALL)
_REDIS_LEVELS = {".": "debug", "-": "debug", "*": "info", "#": "warning"}
# Logged at the level `warning` at every start and stop. Overcommit matters only for snapshots, which are disabled.
_REDIS_ROUTINE = re.compile(
    r"(oO0OoO0OoO0Oo )?(Redis|Valkey) (is starting|version=|is now ready to exit)|Configuration loaded"
    r"|Server initialized|Ready to accept connections|WARNING Memory overcommit must be enabled"
    r"|User requested shutdown|Received SIGTERM"
)
_REDIS_SIGNAL = re.compile(r"\d+:signal-handler \(\d+\) (?P<message>.*)")


def parse_redis_line(line: str) -> tuple[str | None, str]:
    """Return the level and message of a line of the log of Redis or Valkey."""
    if found := _REDIS_SIGNAL.match(line):
        return "debug", found["message"]
    if (found := _REDIS_LINE.match(line)) is None:
        return None, line
    level = "debug" if _REDIS_ROUTINE.match(found["message"]) else _REDIS_LEVELS[found["mark"]]
    return level, found["message"]


SERVER_LINE_PARSERS: dict[str, LineParser] = {"postgres": parse_postgres_line, "redis": parse_redis_line}
"""Parsers for the logs of the embedded servers."""
