"""Memory of a web process that serves the largest possible responses."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Processes
from tests.dataset import JSONAPI, Dataset, build_resource
from tests.jsonapi.test_operations import CONTENT_TYPE
from tests.jsonapi.test_size_limits import EMOJI, insert_events, insert_faqs
from tests.web_server import is_up

MAX_GROWTH_MB = 150
"""Bytes that Python and the arenas of new threads keep; the responses of the attack have ten times as much."""


def memory_mb(pid: int) -> int:
    """Return the resident memory of a process and its children."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return 0
    (resident,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return resident // 1024 + sum(memory_mb(int(child)) for child in children)


@pytest.mark.faults
def test_memory_of_large_answers_is_given_back(
    dataset: Dataset, processes: Processes, wait_until: Callable[..., Any], figure: Callable[[str], None]
) -> None:
    events = insert_events(dataset, 50)
    insert_faqs(dataset, 900, EMOJI)
    web = processes.start("web")
    wait_until(lambda: is_up(processes.base_url), 30, "the server did not come up")
    token = {"Authorization": f"JWT {dataset.owner.token}"}
    updates = [{"op": "update", "data": build_resource("event", str(id_), {"online": True}, {})} for id_ in events * 2]
    new_type = {"data": build_resource("faq-type", None, {"name": "New"}, {"event": dataset.events["published"]})}
    requests: list[tuple[str, str, Any, str]] = [
        ("GET", "/v1/events?page[size]=100", None, JSONAPI),
        ("GET", "/v1/events?page[size]=100&include=faqs,owner&sort=-name", None, JSONAPI),
        ("GET", "/v1/faqs?page[size]=100&include=event.faqs,faq-type.faqs", None, JSONAPI),
        ("POST", "/v1/operations", {"atomic:operations": updates}, CONTENT_TYPE),
        ("POST", "/v1/faq-types?include=event.faqs", new_type, JSONAPI),
    ]

    def send(number: int) -> int:
        method, path, document, media_type = requests[number % len(requests)]
        headers = {**token, "Accept": media_type, "Content-Type": media_type}
        if method == "POST":
            headers["Idempotency-Key"] = f"key-{number}"
        with httpx.Client(base_url=processes.base_url, timeout=120, headers=headers) as client:
            answer = client.request(method, path, json=document)
            return answer.status_code

    before = memory_mb(web.pid)
    with ThreadPoolExecutor(24) as pool:
        statuses = list(pool.map(send, range(120)))
    after = memory_mb(web.pid)

    figure(f"120 requests for the largest answers, 24 at once: {before} MB before, {after} MB after")
    assert {200, 400} <= set(statuses) <= {200, 400, 429}  # one user writes three at once
    assert after - before < MAX_GROWTH_MB
