"""Benchmark runner: systems are measured alternately in several rounds, so that other load affects all of them."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from rich.progress import Progress

from benchmarks import compare_responses
from benchmarks.cases import Case
from benchmarks.cpu_affinity import get_cpu_seconds
from benchmarks.load import send_for_seconds
from benchmarks.processes import BenchmarkSite, WebProcess, run_site

WARM_UP_SECONDS = 0.3


@dataclass(frozen=True)
class Sample:
    """Result of one system for one case in one round."""

    milliseconds: float
    """Processor time of the web process per request."""

    rate: float
    """Requests per second."""


Samples = dict[tuple[str, str], list[Sample]]
"""Samples of all rounds by letter of the case and system."""


def compare_systems(systems: Sequence[str], cases: Sequence[Case], rounds: int, seconds: float) -> Samples:
    """Measure every system with every case for `seconds` in every round, and return the samples."""
    samples: Samples = {(case.letter, system): [] for case in cases for system in systems}
    with ExitStack() as stack, Progress(transient=True) as progress:
        task = progress.add_task("starting", total=(rounds + 1) * len(samples))
        place = stack.enter_context(run_site())
        webs = []
        for system in systems:
            webs.append(stack.enter_context(place.run_web(system)))
            compare_responses.check_responses(place, webs[-1], cases)
        for number in range(rounds + 1):
            progress.update(task, description=f"round {number} of {rounds}" if number else "warming up")
            for case in cases:
                for web in webs:
                    sample = _measure_sample(place, web, case, seconds if number else WARM_UP_SECONDS)
                    if number:
                        samples[case.letter, web.system].append(sample)
                    progress.advance(task)
    return samples


def compute_ratio(samples: Samples, case: Case, above: str, below: str) -> float:
    """Return the processor time of system `above` divided by that of `below`, the median over the rounds."""
    pairs = zip(samples[case.letter, above], samples[case.letter, below], strict=True)
    return median(one.milliseconds / other.milliseconds for one, other in pairs)


def compute_medians(taken: Sequence[Sample]) -> Sample:
    """Return the medians over the rounds."""
    return Sample(median(one.milliseconds for one in taken), median(one.rate for one in taken))


def _measure_sample(site: BenchmarkSite, web: WebProcess, case: Case, seconds: float) -> Sample:
    headers = site.build_headers()
    before = get_cpu_seconds(web.pid)
    answered, took = send_for_seconds(web.port, seconds, lambda: case.next_request(web.system, headers))
    return Sample((get_cpu_seconds(web.pid) - before) * 1000 / answered, answered / took)
