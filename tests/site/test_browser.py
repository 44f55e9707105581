"""The site in a real browser: pages fit their window, and the viewer of /openapi.json sends requests."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, Response, expect

from tests.conftest import Processes
from tests.dataset import JSONAPI, Dataset
from tests.pages.browser import PASSWORD, give_passwords
from tests.pages.chromium_helpers import REPORTS_VIOLATIONS, WIDTH, is_alive, launch_browser, needs_chromium

# Swagger UI resolves a large document: seconds on a machine that has nothing else to do.
pytestmark = [needs_chromium, pytest.mark.timeout(300), pytest.mark.faults, pytest.mark.long]

READY_MS = 90_000


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Start one browser for all tests."""
    with launch_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def web(app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Start one web process for all tests."""
    processes = Processes(environment, tmp_path_factory.mktemp("web"))
    processes.start("web")
    yield processes
    for process in processes.children:
        process.send_signal(signal.SIGTERM)
        processes.stop(process)


@pytest.fixture
def base_url(dataset: Dataset, web: Processes, wait_until: Callable[..., Any]) -> str:
    """Return the URL of the running web process; all users have a password."""
    give_passwords(dataset)
    wait_until(lambda: is_alive(web.base_url), 60)
    return web.base_url


class PageVisit:
    """A page, with the errors of the browser and the requests that it sends to other hosts."""

    def __init__(self, chromium: Browser, base_url: str, **options: Any) -> None:
        self.page: Page = chromium.new_context(reduced_motion="reduce", **options).new_page()
        self.page.set_default_timeout(READY_MS)
        self.complaints: list[str] = []
        self.page.add_init_script(REPORTS_VIOLATIONS)
        self.page.on("console", lambda message: self._add_complaint(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self._add_complaint(str(error)))
        self.allowed = (base_url, "data:")
        self.page.on("request", lambda request: self._check_host(request.url))

    def _check_host(self, url: str) -> None:
        if not url.startswith(self.allowed):
            self._add_complaint(f"a request to {url}")

    def _add_complaint(self, text: str) -> None:
        self.complaints.append(text)


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_load_nothing_from_elsewhere(chromium: Browser, base_url: str, width: int, scheme: str) -> None:
    visit = PageVisit(chromium, base_url, viewport={"width": width, "height": 800}, color_scheme=scheme)

    for path in ("/", "/docs", "/docs/openapi"):
        visit.page.goto(f"{base_url}{path}")
        if path == "/docs/openapi":
            expect(visit.page.locator(".opblock-tag").first).to_be_visible(timeout=READY_MS)
        visit.page.evaluate("scrollTo(1000, 0)")
        assert visit.page.evaluate("scrollX") == 0, path
    assert visit.complaints == []

    refused = visit.page.goto(f"{base_url}/v1/nowhere")
    assert refused is not None
    assert refused.status == 404
    assert visit.page.locator("html").evaluate(WIDTH) <= width
    expect(visit.page.get_by_role("heading", name="Not found")).to_be_visible()
    visit.page.get_by_role("link", name="Home").click()
    expect(visit.page.get_by_role("heading", name="Open Event API server")).to_be_visible()


def test_collection_opened_in_a_browser_is_shown_as_json(chromium: Browser, base_url: str) -> None:
    visit = PageVisit(chromium, base_url)

    visit.page.goto(base_url)
    visit.page.get_by_role("link", name="All coming events").click()

    expect(visit.page.locator("body")).to_contain_text('"type":"event"')


def test_viewer_lists_the_operations_by_tag(chromium: Browser, base_url: str) -> None:
    document = httpx.get(f"{base_url}/openapi.json").json()
    operations = [each for item in document["paths"].values() for name, each in item.items() if name != "parameters"]
    counted = Counter(tag for operation in operations for tag in operation["tags"])
    visit = PageVisit(chromium, base_url)

    visit.page.goto(f"{base_url}/docs/openapi")
    tags = visit.page.locator("h3.opblock-tag")
    expect(tags).to_have_count(len(counted), timeout=READY_MS)
    assert {tag.get_attribute("data-tag") for tag in tags.all()} == counted.keys()
    for name in ("events", "faqs"):
        tag = visit.page.locator(f"h3.opblock-tag[data-tag={name}]")
        tag.click()
        expect(visit.page.locator(".opblock")).to_have_count(counted[name], timeout=READY_MS)
        tag.click()
        expect(visit.page.locator(".opblock")).to_have_count(0, timeout=READY_MS)
    assert visit.complaints == []


def test_viewer_executes_a_request_with_the_token(chromium: Browser, base_url: str) -> None:
    credentials = {"email": "stranger@example.com", "password": PASSWORD}
    token = httpx.post(f"{base_url}/v1/auth/login", json=credentials).json()["access_token"]
    by_another_name = base_url.replace("127.0.0.1", "localhost")  # not that of PUBLIC_URL
    visit = PageVisit(chromium, by_another_name)
    page = visit.page

    page.goto(f"{by_another_name}/docs/openapi")
    expect(page.locator("h3.opblock-tag").first).to_be_visible(timeout=READY_MS)
    page.locator("button.authorize").first.click()
    page.locator(".auth-container input").first.fill(f"JWT {token}")
    page.locator(".auth-container button.authorize").first.click()
    page.locator(".auth-container .btn-done").first.click()
    page.locator("h3.opblock-tag[data-tag=jobs]").click()
    operation = page.locator("#operations-jobs-listJobs")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    with page.expect_response(lambda response: "/v1/jobs" in response.url) as received:
        operation.get_by_role("button", name="Execute").click()

    response: Response = received.value
    assert response.status == 200
    assert response.request.headers["accept"] == JSONAPI
    assert response.headers["content-type"] == JSONAPI
    expect(operation.locator(".live-responses-table")).to_contain_text("200", timeout=READY_MS)
    assert visit.complaints == []
