"""`python -m benchmarks [--quick]`: compare the app with hand-written code, the stock library and static responses."""

import argparse

from rich.console import Console
from rich.table import Table

from benchmarks.cases import CASES
from benchmarks.runner import Samples, compare_systems, compute_medians, compute_ratio

OURS, HANDWRITTEN, STOCK, CONSTANT = SYSTEMS = ("ours", "limit", "stock", "constant")
MIN_WIDTH = 130


def build_table(samples: Samples) -> Table:
    """Return the table of results and the required ratios."""
    made = Table(title="CPU ms of the web process per request (requests/s), medians")
    made.add_column()
    for heading in (*SYSTEMS, "ours/limit", "bar", "stock/ours", "bar"):
        made.add_column(heading, justify="right")
    for case in CASES:
        taken = [compute_medians(samples[case.letter, system]) for system in SYSTEMS]
        own, ahead = compute_ratio(samples, case, OURS, HANDWRITTEN), compute_ratio(samples, case, STOCK, OURS)
        made.add_row(
            f"{case.letter}  {case.name}",
            *(f"{one.milliseconds:.2f} ({one.rate:.0f})" for one in taken),
            _format_ratio(own, own <= case.max_ratio),
            f"<= {case.max_ratio:g}",
            _format_ratio(ahead, case.min_stock_ratio is None or ahead >= case.min_stock_ratio),
            f">= {case.min_stock_ratio:g}" if case.min_stock_ratio else "",
        )
    return made


def _format_ratio(value: float, is_met: bool) -> str:
    return f"[{'green' if is_met else 'red'}]{value:.2f}[/]"


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare the app with alternatives.")
    parser.add_argument("--quick", action="store_true", help="take less than a minute, with less precision")
    quick = parser.parse_args().quick
    samples = compare_systems(SYSTEMS, CASES, rounds=3 if quick else 9, seconds=0.3 if quick else 1)
    console = Console()
    Console(width=max(console.width, MIN_WIDTH)).print(build_table(samples))


if __name__ == "__main__":
    main()
