"""`python -m benchmarks.outbox [--quick]`: measure a write with and without a consumer of its outbox entry.

The name of a published event changes, for which the calendar has a consumer: one entry and one NOTIFY per PATCH.
"""

import argparse

from rich.console import Console

from benchmarks.cases import CASES
from benchmarks.runner import compare_systems, compute_medians, compute_ratio

WITH, WITHOUT = SYSTEMS = ("ours", "no-outbox")
PATCH_CASE = next(case for case in CASES if case.letter == "f")
MAX_RATIO = 1.2


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outbox", description="The cost of the outbox.")
    parser.add_argument("--quick", action="store_true", help="rougher")
    quick = parser.parse_args().quick
    samples = compare_systems(SYSTEMS, [PATCH_CASE], rounds=5 if quick else 30, seconds=0.5 if quick else 1)
    console = Console()
    for system in SYSTEMS:
        one = compute_medians(samples[PATCH_CASE.letter, system])
        console.print(f"{PATCH_CASE.name}, {system}: {one.milliseconds:.2f} ms of CPU, {one.rate:.0f} requests/s")
    console.print(
        f"with the outbox / without: {compute_ratio(samples, PATCH_CASE, WITH, WITHOUT):.2f} (bar: {MAX_RATIO})"
    )


if __name__ == "__main__":
    main()
