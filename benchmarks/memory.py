"""`python -m benchmarks.memory [--requests N]`: what the web process holds in RAM over 100,000 mixed requests.

Mixed: reads and writes, all kinds of pages, field sets and includes, and requests that are refused. Caches fill in the
first tenth; after it the figure should stay where it is.
"""

import argparse
import itertools
import random
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.progress import Progress

from app.jsonapi.resource_type import TYPES
from benchmarks import world
from benchmarks.cases import CASES
from benchmarks.cores import resident_bytes
from benchmarks.load import Request, send_all
from benchmarks.servers import site

STEPS = 10
MB = 2**20


def mixed(headers: Mapping[str, str], dice: random.Random) -> Iterator[Request]:
    """Requests without end, few of them alike."""
    names = [attribute.key for attribute in TYPES["event"].attributes.values()]
    writes = [case for case in CASES if case.request.body]
    while True:
        row, size, number = dice.randint(1, world.USERS), dice.randint(1, 100), dice.randint(1, 99)
        fields = ",".join(dice.sample(names, dice.randint(1, 6)))
        yield Request("GET", f"/v1/events/{row}", headers=headers)
        yield Request("GET", f"/v1/events/{row}?fields[event]={fields}", headers=headers)
        yield Request("GET", f"/v1/events?page[size]={size}&page[number]={number}", headers=headers)
        yield Request("GET", f"/v1/events?include=owner,faqs&page[size]={size // 5 + 1}", headers=headers)
        yield Request("GET", f"/v1/faqs?filter[question][like]={row}%25&sort=-position,id", headers=headers)
        yield Request("GET", f"/v1/events/{row + world.USERS}", status=404, headers=headers)
        yield Request("GET", f"/v1/events?filter[no-{row}]=x", status=400, headers=headers)
        yield Request("POST", "/v1/faqs", b'{"data": {"type": "faq"}}', 422, headers)
        yield dice.choice(writes).next("ours", headers)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Memory of the web process.")
    parser.add_argument("--requests", type=int, default=100_000)
    requests = parser.parse_args().requests
    seen = []
    with site() as place, place.web("ours") as web, Progress(transient=True) as progress:
        task = progress.add_task("asking", total=requests)
        while (sent := progress.tasks[0].completed) < requests:
            # One token lives for 15 minutes, a step for less.
            step = itertools.islice(mixed(place.headers(), random.Random(sent)), max(requests // STEPS, 1))  # noqa: S311  # no secret
            progress.advance(task, send_all(web.port, step))
            seen.append(resident_bytes(web.pid))
            progress.update(task, description=f"{seen[-1] / MB:.1f} MB")
    console = Console()
    console.print("MB after each tenth: " + " ".join(f"{size / MB:.1f}" for size in seen))
    console.print(f"growth from the first tenth to the last: {(seen[-1] - seen[0]) / MB:.1f} MB")


if __name__ == "__main__":
    main()
