"""`python -m benchmarks.memory [--requests N]`: measure the memory of the web process over 100,000 mixed requests.

Mixed means reads and writes with all kinds of pagination, sparse fieldsets, includes, and errors. Caches grow during
the first tenth; afterwards the memory should be constant.
"""

import argparse
import itertools
import random
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.progress import Progress

from app.jsonapi.resource_type import TYPES
from benchmarks import dataset
from benchmarks.cases import CASES
from benchmarks.cpu_affinity import get_resident_bytes
from benchmarks.load import Request, send_all
from benchmarks.processes import run_site

STEP_COUNT = 10
MB = 2**20


def generate_requests(headers: Mapping[str, str], dice: random.Random) -> Iterator[Request]:
    """Yield requests for ever, most of them different."""
    names = [attribute.key for attribute in TYPES["event"].attributes.values()]
    writes = [case for case in CASES if case.request.body]
    while True:
        row, size, number = dice.randint(1, dataset.USER_COUNT), dice.randint(1, 100), dice.randint(1, 99)
        fields = ",".join(dice.sample(names, dice.randint(1, 6)))
        yield Request("GET", f"/v1/events/{row}", headers=headers)
        yield Request("GET", f"/v1/events/{row}?fields[event]={fields}", headers=headers)
        yield Request("GET", f"/v1/events?page[size]={size}&page[number]={number}", headers=headers)
        yield Request("GET", f"/v1/events?include=owner,faqs&page[size]={size // 5 + 1}", headers=headers)
        yield Request("GET", f"/v1/faqs?filter[question][like]={row}%25&sort=-position,id", headers=headers)
        yield Request("GET", f"/v1/events/{row + dataset.USER_COUNT}", status=404, headers=headers)
        yield Request("GET", f"/v1/events?filter[no-{row}]=x", status=400, headers=headers)
        yield Request("POST", "/v1/faqs", b'{"data": {"type": "faq"}}', 422, headers)
        yield dice.choice(writes).next_request("ours", headers)


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Memory of the web process.")
    parser.add_argument("--requests", type=int, default=100_000)
    requests = parser.parse_args().requests
    seen = []
    with run_site() as place, place.run_web("ours") as web, Progress(transient=True) as progress:
        task = progress.add_task("asking", total=requests)
        while (sent := progress.tasks[0].completed) < requests:
            # A new token for each step: it is valid for 15 minutes, and a step takes less.
            generator = random.Random(sent)  # noqa: S311  # no secret
            step = itertools.islice(generate_requests(place.build_headers(), generator), max(requests // STEP_COUNT, 1))
            progress.advance(task, send_all(web.port, step))
            seen.append(get_resident_bytes(web.pid))
            progress.update(task, description=f"{seen[-1] / MB:.1f} MB")
    console = Console()
    console.print("MB after each tenth: " + " ".join(f"{size / MB:.1f}" for size in seen))
    console.print(f"growth from the first tenth to the last: {(seen[-1] - seen[0]) / MB:.1f} MB")


if __name__ == "__main__":
    main()
