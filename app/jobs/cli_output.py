"""What people see of jobs on a terminal, what goes into a pipe, and what programs read."""

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
"""States in which what a job says is more than the state."""

MAX_ROW_WIDTH = 1_000
"""Characters of a row on a terminal."""

STYLES = {RUNNING: "cyan", SUCCEEDED: "green", FAILED: "red", CANCELED: "yellow"}


class TextOutput:
    """A line for each thing that happens: how far it is, and what the job says."""

    def __init__(self) -> None:
        self.shown: JobUpdate | None = None
        self._remarks: set[str] = set()

    def __enter__(self) -> "TextOutput":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to put back."""

    def show_update(self, news: JobUpdate) -> None:
        """Write down what is new."""
        if news != self.shown:
            self.shown = news
            self.write_update(news)

    def write_update(self, news: JobUpdate) -> None:
        """Write down what somebody waits for."""
        click.echo(format_update(news))

    def show_notice(self, text: str) -> None:
        """Say once what is no news of the job."""
        if text not in self._remarks:
            self._remarks.add(text)
            self.print_notice(text)

    def print_notice(self, text: str) -> None:
        """Write a remark down where it is in nobody's way."""
        click.echo(text, err=True)


class JsonOutput(TextOutput):
    """The elements that a stream has, for programs."""

    def show_update(self, news: JobUpdate) -> None:
        """Write an element down; nobody waits for a place in the queue."""
        super().show_update(news._replace(ahead=None))

    def write_update(self, news: JobUpdate) -> None:
        write_json(news.element.to_dict())


class ProgressBarOutput(TextOutput):
    """A progress bar; one that moves to and fro as long as nobody knows how far the job is."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = _make_progress_bar()
        self.task = self.progress.add_task("", total=None)

    def __enter__(self) -> "ProgressBarOutput":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def write_update(self, news: JobUpdate) -> None:
        fraction = news.element.fraction
        total = None if fraction is None else 1.0
        self.progress.update(self.task, total=total, completed=fraction or 0, description=status_text(news))

    def print_notice(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False)


def _make_progress_bar() -> "Progress":
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn  # noqa: PLC0415  # for terminals only
    from rich.table import Column  # noqa: PLC0415  # same

    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    text = TextColumn("{task.description}", markup=False, table_column=rest)
    return Progress(BarColumn(30), TaskProgressColumn(), text, expand=True)


def choose_output(*, as_json: bool) -> TextOutput:
    """What fits stdout."""
    if as_json:
        return JsonOutput()
    return ProgressBarOutput() if is_terminal() else TextOutput()


def is_terminal() -> bool:
    """Whether stdout is one that can move its cursor."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def format_update(news: JobUpdate) -> str:
    """How far a job is, and what it says."""
    return f"{news.element.fraction or 0:.2f} {status_text(news)}"


def status_text(news: JobUpdate) -> str:
    """What a job says, or else the state that it is in."""
    element = news.element
    if element.state in MESSAGE_STATES:
        return to_one_line(element.message or element.state)
    ahead = f", {news.ahead} ahead" if element.state == QUEUED and news.ahead is not None else ""
    return to_one_line(f"{element.state}{ahead}{_format_reason(element)}")


def _format_reason(element: ProgressEvent) -> str:
    return f": {element.message}" if element.message and element.level != "info" else ""


def to_one_line(text: str) -> str:
    """Text from anywhere, on one line and without what moves a cursor."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def write_json(value: Any) -> None:
    """One document on a line of its own."""
    click.echo(orjson.dumps(value))


def write_table(titles: Sequence[str], rows: Iterable[Sequence[object]], *, wraps: bool = False) -> None:
    """Rows below their titles: aligned, and on a terminal no wider than it is, cut off unless the table wraps."""
    cells = [[format_cell(value) for value in row] for row in rows]
    if is_terminal():
        _write_rich(titles, cells, wraps=wraps)
        return
    lines = [titles, *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for each in lines:
        click.echo("  ".join(map(str.ljust, each, widths)).rstrip())


def write_details(facts: Mapping[str, Any]) -> None:
    """Names and values; a list of objects is a table of its own, where nobody needs their ids."""
    tables = {name: value for name, value in facts.items() if isinstance(value, list)}
    width = max(map(len, facts))
    for name, value in facts.items():
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
        # As wide as it is by itself, then cut off on the right: squeezed, it would lose whole columns.
        table.width = console.measure(table, options=console.options.update(max_width=MAX_ROW_WIDTH)).maximum
    console.print(table)


def format_cell(value: object) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    return to_one_line(orjson.dumps(value).decode() if isinstance(value, dict | list) else str(value))
