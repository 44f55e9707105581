"""`python -m benchmarks.scale [--quick]`: compare the time of a page of 20 FAQs of 10,000 with that of 1,000,000."""

import argparse
from collections.abc import Mapping
from contextlib import ExitStack
from http.client import HTTPConnection
from statistics import median
from time import perf_counter

import orjson
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.jsonapi.cursors import PROFILE
from benchmarks import dataset
from benchmarks.load import Request, send_request
from benchmarks.processes import BenchmarkSite, run_site

TABLE_SIZES = (10_000, 1_000_000)
FAQS_PER_EVENT = 100
EVENT_ID = 50
DEEP_PAGE = 250
MAX_RATIO = 1.5
CURSOR_HEADERS = {"Accept": f'application/vnd.api+json; profile="{PROFILE}"'}


class SizedSite:
    """The app with a table of `size` FAQs."""

    def __init__(self, stack: ExitStack, size: int) -> None:
        self.benchmark_site: BenchmarkSite = stack.enter_context(run_site())
        dataset.replace_faqs(
            self.benchmark_site.environment["DATABASE_URL"], events=size // FAQS_PER_EVENT, each=FAQS_PER_EVENT
        )
        self.connection = HTTPConnection(
            "127.0.0.1", stack.enter_context(self.benchmark_site.run_web("ours")).port, timeout=60
        )
        self.paths = {
            "first page": "/v1/faqs",
            "of one event": f"/v1/events/{EVENT_ID}/faqs",
            "filtered by event": f"/v1/faqs?filter[event]={EVENT_ID}",
            f"page {DEEP_PAGE}": f"/v1/faqs?page[number]={DEEP_PAGE}",
            "by cursor, first": "/v1/faqs",
            "by cursor, half-way": f"/v1/faqs?page[after]={self._find_cursor(size // 2)}",
        }

    def get_path(self, path: str, headers: Mapping[str, str]) -> bytes:
        """Return the body of the response to a GET request."""
        return send_request(
            self.connection, Request("GET", path, headers={**self.benchmark_site.build_headers(), **headers})
        )

    def measure_milliseconds(self, name: str, requests: int) -> float:
        """Return the median time of this many sequential requests."""
        headers = CURSOR_HEADERS if "cursor" in name else {}
        times = []
        for _ in range(requests):
            started = perf_counter()
            self.get_path(self.paths[name], headers)
            times.append((perf_counter() - started) * 1000)
        return median(times)

    def _find_cursor(self, number: int) -> str:
        """Return the cursor of a row in the middle of the list: rows are numbered by event, but sorted by position."""
        path = f"/v1/faqs?filter[id]={number + FAQS_PER_EVENT // 2}"
        (item,) = orjson.loads(self.get_path(path, CURSOR_HEADERS))["data"]
        return str(item["meta"]["page"]["cursor"])


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description="Pages of small and large tables.")
    parser.add_argument("--quick", action="store_true", help="rougher")
    rounds, requests = (3, 10) if parser.parse_args().quick else (10, 30)
    with ExitStack() as stack, Progress(transient=True) as progress:
        task = progress.add_task("starting", total=None)
        places = [SizedSite(stack, size) for size in TABLE_SIZES]
        names = list(places[0].paths)
        progress.update(task, description="measuring", total=rounds * len(names))
        times: dict[str, list[list[float]]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                times[name].append([place.measure_milliseconds(name, requests) for place in places])
                progress.advance(task)
    Console().print(build_table(times))


def build_table(times: Mapping[str, list[list[float]]]) -> Table:
    """Return the table of results and the required ratios."""
    made = Table(title="ms for one request, one after the other, medians")
    for heading in ("20 FAQs", *(f"of {size:,}" for size in TABLE_SIZES), "ratio", "bar"):
        made.add_column(heading, justify="right" if made.columns else "left")
    for name, rounds in times.items():
        small, large = (median(place) for place in zip(*rounds, strict=True))
        ratio = median(large / small for small, large in rounds)
        numbered = name.startswith("page")  # reads all skipped rows, which cursors avoid
        colour = "white" if numbered else "green" if ratio <= MAX_RATIO else "red"
        made.add_row(
            name, f"{small:.2f}", f"{large:.2f}", f"[{colour}]{ratio:.2f}[/]", "" if numbered else f"<= {MAX_RATIO}"
        )
    return made


if __name__ == "__main__":
    main()
