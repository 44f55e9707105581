"""`python -m benchmarks [--quick]`: ours beside the limit, stock flask-rest-jsonapi-next and constant bytes.

All systems answer in turn, round after round, so that whatever else the machine does meanwhile meets all of them.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import documents
from benchmarks.cases import CASES, Case
from benchmarks.cores import cpu_seconds
from benchmarks.load import send_for
from benchmarks.servers import Site, Web, site

WARM_UP_SECONDS = 0.3
WIDTH = 130
OURS, LIMIT, STOCK, CONSTANT = SYSTEMS = ("ours", "limit", "stock", "constant")


@dataclass(frozen=True)
class Sample:
    """What one system did with one case in one round."""

    milliseconds: float
    """Processor time of the web process for one request."""

    rate: float
    """Requests per second."""


Samples = dict[tuple[str, str], list[Sample]]
"""By letter of the case and system, one for each round."""


def measure(site: Site, web: Web, case: Case, seconds: float) -> Sample:
    """Ask a system for so long."""
    headers = site.headers()
    before = cpu_seconds(web.pid)
    answered, took = send_for(web.port, seconds, lambda: case.next(web.system, headers))
    return Sample((cpu_seconds(web.pid) - before) * 1000 / answered, answered / took)


def compare(systems: Sequence[str], cases: Sequence[Case], rounds: int, seconds: float) -> Samples:
    """Measure every system with every case in every round."""
    samples: Samples = {(case.letter, system): [] for case in cases for system in systems}
    with ExitStack() as stack, Progress(transient=True) as progress:
        task = progress.add_task("starting", total=(rounds + 1) * len(samples))
        place = stack.enter_context(site())
        webs = []
        for system in systems:
            webs.append(stack.enter_context(place.web(system)))
            documents.check(place, webs[-1], cases)
        for number in range(rounds + 1):
            progress.update(task, description=f"round {number} of {rounds}" if number else "warming up")
            for case in cases:
                for web in webs:
                    sample = measure(place, web, case, seconds if number else WARM_UP_SECONDS)
                    if number:
                        samples[case.letter, web.system].append(sample)
                    progress.advance(task)
    return samples


def ratio(samples: Samples, case: Case, above: str, below: str) -> float:
    """How many times as much processor time one system takes as another: the median over the rounds."""
    pairs = zip(samples[case.letter, above], samples[case.letter, below], strict=True)
    return median(one.milliseconds / other.milliseconds for one, other in pairs)


def table(samples: Samples) -> Table:
    """The result beside the bar."""
    made = Table(title="CPU ms of the web process per request (requests/s), medians")
    for heading in ("", *SYSTEMS, "ours/limit", "bar", "stock/ours", "bar"):
        made.add_column(heading, justify="right" if heading else "left")
    for case in CASES:
        cells = []
        for system in SYSTEMS:
            taken = samples[case.letter, system]
            spent, rate = median(one.milliseconds for one in taken), median(one.rate for one in taken)
            cells.append(f"{spent:.2f} ({rate:.0f})")
        own, ahead = ratio(samples, case, OURS, LIMIT), ratio(samples, case, STOCK, OURS)
        cells += [_marked(own, own <= case.bar), f"<= {case.bar:g}"]
        cells += [_marked(ahead, case.ahead is None or ahead >= case.ahead), f">= {case.ahead:g}" if case.ahead else ""]
        made.add_row(f"{case.letter}  {case.name}", *cells)
    return made


def _marked(value: float, is_met: bool) -> str:
    return f"[{'green' if is_met else 'red'}]{value:.2f}[/]"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ours beside the alternatives.")
    parser.add_argument("--quick", action="store_true", help="less than a minute, rougher")
    quick = parser.parse_args().quick
    samples = compare(SYSTEMS, CASES, rounds=3 if quick else 9, seconds=0.3 if quick else 1)
    Console(width=WIDTH).print(table(samples))


if __name__ == "__main__":
    main()
