"""Output of `manage.py jobs`: progress bars and tables on a terminal, text in a pipe, JSON for programs."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import orjson

from app.jobs.cli_watch import JobUpdate
from app.jobs.models import CANCELED, FAILED, FINALIZING, QUEUED, RUNNING, SUCCEEDED, WAITING
from app.jobs.progress_stream import ProgressEvent

if TYPE_CHECKING:
    from rich.progress import Progress

MESSAGE_STATES = (RUNNING, WAITING, FINALIZING)
"""States in which the message of a job is shown instead of the state."""

MAX_ROW_WIDTH = 1_000
"""Maximum characters of a row on a terminal."""

STYLES = {RUNNING: "cyan", SUCCEEDED: "green", FAILED: "red", CANCELED: "yellow"}


class TextOutput:
    """Output of one line for each update, with the progress and the message."""

    def __init__(self) -> None:
        self.last_update: JobUpdate | None = None
        self._notices: set[str] = set()

    def __enter__(self) -> "TextOutput":
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: there is no terminal state to restore."""

    def show_update(self, update: JobUpdate) -> None:
        """Write an update that differs from the last one."""
        if update != self.last_update:
            self.last_update = update
            self.write_update(update)

    def write_update(self, update: JobUpdate) -> None:
        """Write an update to stdout."""
        click.echo(format_update(update))

    def show_notice(self, text: str) -> None:
        """Write a notice about something other than the progress of the job, once."""
        if text not in self._notices:
            self._notices.add(text)
            self.print_notice(text)

    def print_notice(self, text: str) -> None:
        """Write a notice where it does not disturb the output."""
        click.echo(text, err=True)


class JsonOutput(TextOutput):
    """Output of progress events as JSON lines, as in the stream of the API."""

    def show_update(self, update: JobUpdate) -> None:
        """Write an update that differs from the last one in more than the queue position."""
        super().show_update(update._replace(ahead=None))

    def write_update(self, update: JobUpdate) -> None:
        write_json(update.event.to_dict())


class ProgressBarOutput(TextOutput):
    """Output as a progress bar, without a percentage while the progress is unknown."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = _make_progress_bar()
        self.task = self.progress.add_task("", total=None)

    def __enter__(self) -> "ProgressBarOutput":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def write_update(self, update: JobUpdate) -> None:
        fraction = update.event.fraction
        total = None if fraction is None else 1.0
        self.progress.update(self.task, total=total, completed=fraction or 0, description=status_text(update))

    def print_notice(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False)


def _make_progress_bar() -> "Progress":
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn  # noqa: PLC0415  # for terminals only
    from rich.table import Column  # noqa: PLC0415  # same

    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    text = TextColumn("{task.description}", markup=False, table_column=rest)
    return Progress(BarColumn(30), TaskProgressColumn(), text, expand=True)


def choose_output(*, as_json: bool) -> TextOutput:
    """Return the output for stdout: JSON, a progress bar on a terminal, or text."""
    if as_json:
        return JsonOutput()
    return ProgressBarOutput() if is_terminal() else TextOutput()


def is_terminal() -> bool:
    """Return whether stdout is a terminal that can move its cursor."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def format_update(update: JobUpdate) -> str:
    """Return the progress (0.00 to 1.00) and the status text of a job."""
    return f"{update.event.fraction or 0:.2f} {status_text(update)}"


def status_text(update: JobUpdate) -> str:
    """Return the message of a job that is active, otherwise its state, with queue position and reason."""
    event = update.event
    if event.state in MESSAGE_STATES:
        return to_one_line(event.message or event.state)
    ahead = f", {update.ahead} ahead" if event.state == QUEUED and update.ahead is not None else ""
    return to_one_line(f"{event.state}{ahead}{_format_reason(event)}")


def _format_reason(event: ProgressEvent) -> str:
    return f": {event.message}" if event.message and event.level != "info" else ""


def to_one_line(text: str) -> str:
    """Return untrusted text on one line, without control characters."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def write_json(value: Any) -> None:
    """Write one JSON document on one line."""
    click.echo(orjson.dumps(value))


def write_table(titles: Sequence[str], rows: Iterable[Sequence[object]], *, wraps: bool = False) -> None:
    """Write a table with aligned columns; on a terminal, wrap or cut off rows at its width."""
    cells = [[format_cell(value) for value in row] for row in rows]
    if is_terminal():
        _write_rich(titles, cells, wraps=wraps)
        return
    lines = [titles, *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(map(str.ljust, line, widths)).rstrip())


def write_details(attributes: Mapping[str, Any]) -> None:
    """Write names and values, and each list of objects as a table below, without the ids of the objects."""
    tables = {name: value for name, value in attributes.items() if isinstance(value, list)}
    width = max(map(len, attributes))
    for name, value in attributes.items():
        if name not in tables:
            click.echo(f"{name:<{width}}  {format_cell(value)}")
    for name, items in tables.items():
        click.echo(f"\n{name}: {len(items)}")
        if items:
            columns = [column for column in items[0] if column != "id"]
            write_table([column.upper() for column in columns], [[item[each] for each in columns] for item in items])


def _write_rich(titles: Sequence[str], rows: Sequence[Sequence[str]], *, wraps: bool) -> None:
    from rich.console import Console  # noqa: PLC0415  # for terminals only
    from rich.table import Table  # noqa: PLC0415  # same
    from rich.text import Text  # noqa: PLC0415  # same

    console = Console()
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, title in enumerate(titles):
        table.add_column(title, no_wrap=number == 0 or not wraps)
    for row in rows:
        table.add_row(*(Text(text, style=STYLES.get(text, "")) for text in row))
    if not wraps:
        # Use the natural width, so that rich cuts off the right side instead of dropping whole columns.
        table.width = console.measure(table, options=console.options.update(max_width=MAX_ROW_WIDTH)).maximum
    console.print(table)


def format_cell(value: object) -> str:
    """Return a value as text for people."""
    if value is None:
        return "-"
    return to_one_line(orjson.dumps(value).decode() if isinstance(value, dict | list) else str(value))
