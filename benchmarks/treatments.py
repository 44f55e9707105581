"""`python -m benchmarks.treatments [--quick]`: measure treatments from the POST request to the last stored result.

The processor responds at once, so only the server is measured. Web, relay and worker are separate processes.
"""

import argparse
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import track

from benchmarks.jobs import (
    COUNT_UNFINISHED_JOBS,
    BenchmarkClient,
    format_percentiles,
    query_value,
    run_command,
    wait_for_value,
)
from benchmarks.processes import BenchmarkSite, run_site

DOCUMENT_COUNT = 10
REGION_RESULT = {"source": "a", "crops": [{"absolute": {"x": 1, "y": 2, "width": 3, "height": 4}}]}
COUNT_WAITING_JOBS = "SELECT count(*) FROM jobs WHERE state = 'waiting'"


class BenchmarkProcessor(ThreadingHTTPServer):
    """Processor that accepts every task and has a result for every document."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.starts_by_experiment: dict[str, tuple[float, dict[str, Any]]] = {}
        """Start time and request body by experiment id."""

    @property
    def url(self) -> str:
        """Return the PROCESSOR_URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: BenchmarkProcessor

    def do_POST(self) -> None:
        """Accept the start of a run."""
        begun = perf_counter()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.starts_by_experiment[body["experiment_id"]] = (begun, body)
        self._send_json({"tracking_id": body["experiment_id"]})

    def do_GET(self) -> None:
        """Return a result."""
        self._send_json([REGION_RESULT])

    def _send_json(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


@contextmanager
def run_processor() -> Iterator[BenchmarkProcessor]:
    """Run a processor until the block ends."""
    with BenchmarkProcessor() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def create_document_set(client: BenchmarkClient) -> str:
    """Create a document set with DOCUMENT_COUNT FAQs, and return its id."""
    faqs, _ = client.request_data("GET", f"/v1/faqs?page[size]={DOCUMENT_COUNT}")
    linkage = {"faqs": {"data": [{"type": "faq", "id": each["id"]} for each in faqs]}}
    data = {"type": "document-set", "attributes": {"title": "Ten"}, "relationships": linkage}
    made, _ = client.request_data("POST", "/v1/document-sets", {"data": data})
    return str(made["id"])


def measure_creation(
    place: BenchmarkSite, client: BenchmarkClient, remote: BenchmarkProcessor, count: int
) -> tuple[list[float], list[float]]:
    """Return the milliseconds until each 201, and from each request to the start at the processor, one at a time."""
    linkage = {"document-set": {"data": {"type": "document-set", "id": create_document_set(client)}}}
    data = {"type": "treatment", "attributes": {"task-type": "regions"}, "relationships": linkage}
    client.request_data("POST", "/v1/treatments", {"data": data})
    wait_for_value(place, COUNT_WAITING_JOBS, 1)  # the worker is ready
    answered, reached = [], []
    for number in track(range(1, count + 1), "creating", transient=True):
        begun = perf_counter()
        made, took = client.request_data("POST", "/v1/treatments", {"data": data})
        answered.append(took)
        wait_for_value(place, COUNT_WAITING_JOBS, number + 1)
        reached.append((remote.starts_by_experiment[made["id"]][0] - begun) * 1000)
    return answered, reached


def measure_callbacks(port: int, remote: BenchmarkProcessor) -> list[float]:
    """Return the milliseconds of each callback with the URLs of all results."""
    took = []
    for _begun, body in track(list(remote.starts_by_experiment.values()), "calling back", transient=True):
        url = urlsplit(body["notify_url"])
        results = [{"doc_id": each["uid"], "result_url": f"{remote.url}/{each['uid']}"} for each in body["documents"]]
        callback = {"event": "SUCCESS", "output": {"results_url": results}}
        client = BenchmarkClient(port, {"Content-Type": "application/json"})
        took.append(client.request_document("POST", f"{url.path}?{url.query}", callback)[1])
    return took


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.treatments", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="rougher")
    count = 20 if parser.parse_args().quick else 100
    console = Console()
    with ExitStack() as stack:
        remote = stack.enter_context(run_processor())
        place = stack.enter_context(run_site())
        place = replace(place, environment={**place.environment, "PROCESSOR_URL": remote.url})
        web = stack.enter_context(place.run_web("ours"))
        stack.enter_context(run_command(place, "relay"))
        stack.enter_context(run_command(place, "worker"))
        client = BenchmarkClient(web.port, place.build_headers())
        answered, reached = measure_creation(place, client, remote, count)
        console.print(f"201 of a treatment of {DOCUMENT_COUNT} documents: {format_percentiles(answered)}")
        console.print(f"from the request to the start at the processor: {format_percentiles(reached)}")
        begun = perf_counter()
        console.print(
            f"200 of a callback with {DOCUMENT_COUNT} results: "
            f"{format_percentiles(measure_callbacks(web.port, remote))}"
        )
        wait_for_value(place, COUNT_UNFINISHED_JOBS, 0)
        seconds = perf_counter() - begun
        kept = query_value(place, "SELECT count(*) FROM regions")
        console.print(f"{kept} results of {count} treatments in {seconds:.1f} s: {kept / seconds:.0f} results/s")


if __name__ == "__main__":
    main()
