"""CORS in a real browser: pages of allowed origins can use the API, others cannot."""

import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser

from app.database import commit, open_transaction
from app.jobs import lifecycle, submission
from tests.conftest import Processes
from tests.dataset import Dataset
from tests.images.sample_images import encode_image, make_flag_image
from tests.jobs.test_streams import LEASE
from tests.pages.browser import PASSWORD, give_passwords
from tests.pages.chromium_helpers import is_alive, needs_chromium, open_context

pytestmark = [needs_chromium, pytest.mark.faults]

SESSION = """async ({ api, email, password, event, job, picture }) => {
  const type = "application/vnd.api+json";
  const send = (method, path, headers, body) =>
    fetch(api + path, { method, headers, body: body && JSON.stringify(body) });
  const found = {};

  const login = await send("POST", "/v1/auth/login", { "Content-Type": "application/json" }, { email, password });
  const auth = { Authorization: `JWT ${(await login.json()).access_token}`, Accept: type };
  const writing = { ...auth, "Content-Type": type };
  found.requestId = Boolean(login.headers.get("X-Request-ID"));

  const tag = (await send("GET", `/v1/events/${event}`, auth)).headers.get("ETag");
  const change = { data: { type: "event", id: event, attributes: { name: "From another origin" } } };
  found.changed = (await send("PATCH", `/v1/events/${event}`, { ...writing, "If-Match": tag }, change)).status;
  const stale = await send("PATCH", `/v1/events/${event}`, { ...writing, "If-Match": tag }, change);
  found.stale = (await stale.json()).errors[0].status;

  const draft = { data: { type: "event", attributes: { name: "Draft", timezone: "Europe/Berlin" } } };
  const keyed = { ...writing, "Idempotency-Key": "once" };
  const created = await send("POST", "/v1/events", keyed, draft);
  const replayed = await send("POST", "/v1/events", keyed, draft);
  found.located = created.headers.get("Location") === replayed.headers.get("Location");
  found.replayed = replayed.headers.get("Idempotent-Replayed");
  found.deleted = (await send("DELETE", new URL(created.headers.get("Location")).pathname, auth)).status;

  const refused = await send("GET", "/v1/jobs", { Accept: type });
  found.refused = [refused.status, (await refused.json()).errors[0].status];

  const streaming = { ...auth, Accept: "text/event-stream", "Last-Event-ID": "1" };
  found.stream = await (await send("GET", `/v1/jobs/${job}/progress`, streaming)).text();

  const upload = await send("POST", "/v1/upload/image", { ...auth, Accept: "*/*", "Content-Type": "application/json" },
    { data: picture });
  const image = new Image();
  image.crossOrigin = "anonymous";
  image.src = (await upload.json()).url;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.getContext("2d").drawImage(image, 0, 0);
  found.canvas = canvas.toDataURL().startsWith("data:image/png");
  return found;
}"""

FETCH = "url => fetch(url).then(() => 'read', (error) => error.name)"


class EmptyPage(BaseHTTPRequestHandler):
    """A page without content at every path."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


@contextmanager
def serve_pages() -> Iterator[str]:
    """Run a web server of another origin, and return that."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def create_succeeded_job(dataset: Dataset) -> str:
    """Return the id of a job of the owner that has succeeded."""
    with dataset.app.app_context(), open_transaction(is_read=False):
        job = submission.submit_job("sleep", {"seconds": 1}, trigger="api", owner_id=dataset.owner.id).job
        claimed = lifecycle.claim_job(job.id, "tests", LEASE)
        assert claimed is not None
        lifecycle.finish_succeeded(claimed, None)
        commit()
    return str(job.id)


@pytest.fixture
def origins() -> Iterator[tuple[str, str]]:
    """Return the origins of two servers with web pages."""
    with serve_pages() as one, serve_pages() as other:
        yield one, other


def test_page_of_an_allowed_origin_uses_the_api_and_another_cannot(
    dataset: Dataset,
    processes: Processes,
    chromium: Browser,
    origins: tuple[str, str],
    wait_until: Callable[..., Any],
) -> None:
    allowed, disallowed = origins
    give_passwords(dataset)
    event = str(dataset.events["published"])
    session = {
        "api": processes.base_url,
        "email": "owner@example.com",
        "password": PASSWORD,
        "event": event,
        "job": create_succeeded_job(dataset),
        "picture": b64encode(encode_image(make_flag_image(), "png")).decode(),
    }
    processes.start("web", CORS_ORIGINS=allowed)
    wait_until(lambda: is_alive(processes.base_url), 60)

    with open_context(chromium) as context:
        page = context.new_page()
        page.goto(allowed)
        found = page.evaluate(SESSION, session)
        page.goto(disallowed)
        denied = page.evaluate(FETCH, f"{processes.base_url}/v1/events/{event}")

    stream = found.pop("stream")
    assert found == {
        "requestId": True,
        "changed": 200,
        "stale": "412",
        "located": True,
        "replayed": "true",
        "deleted": 200,
        "refused": [401, "401"],
        "canvas": True,
    }
    assert stream.startswith("id: 2\n")
    assert '"state":"succeeded"' in stream
    assert denied == "TypeError"
