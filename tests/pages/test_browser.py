"""/jobs in a real browser: live updates, keyboard access, and the pages without scripts."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, expect

from app.database import commit, open_transaction
from app.jobs import lifecycle, submission
from app.jobs.records import JobRow
from app.processes.worker_nodes import JOBS_QUEUE
from tests.conftest import Processes
from tests.dataset import Dataset
from tests.pages.browser import PASSWORD, give_passwords
from tests.pages.chromium_helpers import (
    MARKUP,
    VisitedServer,
    is_alive,
    needs_chromium,
    open_context,
    sign_in_by_keyboard,
    tab_to,
)

pytestmark = [needs_chromium, pytest.mark.faults]

LEASE = timedelta(minutes=5)


@dataclass(kw_only=True)
class Site(VisitedServer):
    """A web process, a worker and a relay, with users who have passwords."""

    dataset: Dataset
    processes: Processes

    def enqueue_job(self, **parameters: Any) -> JobRow:
        """Submit a job of the stranger outside of the browser."""
        with self.dataset.app.app_context(), open_transaction(is_read=False):
            owner_id = self.dataset.stranger.id
            job = submission.submit_job("sleep", parameters, trigger="api", owner_id=owner_id).job
            commit()
        return job

    def start_attempt(self) -> JobRow:
        """Submit a job that no worker executes: its attempt starts before the job is committed."""
        with self.dataset.app.app_context(), open_transaction(is_read=False):
            owner_id = self.dataset.stranger.id
            job = submission.submit_job("sleep", {"seconds": 1}, trigger="api", owner_id=owner_id).job
            claimed = lifecycle.claim_job(job.id, "tests", LEASE)
            commit()
        assert claimed is not None
        return claimed

    def commit_progress(self, job: JobRow, message: str) -> None:
        """Commit a progress report of the job."""
        with self.dataset.app.app_context(), open_transaction(is_read=False):
            lifecycle.record_progress(job, None, message)
            commit()


@pytest.fixture(scope="module")
def site_processes(
    app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Processes]:
    """Start the processes once for all tests, as their start takes longer than the tests."""
    processes = Processes(environment, tmp_path_factory.mktemp("site"))
    processes.start("web")
    processes.start("relay")
    processes.start("worker", JOBS_QUEUE)
    yield processes
    for process in processes.children:
        process.send_signal(signal.SIGTERM)
    for process in processes.children:
        processes.stop(process)


@pytest.fixture
def site_stack(dataset: Dataset, site_processes: Processes, chromium: Browser, wait_until: Callable[..., Any]) -> Site:
    """Return the running processes, with users who have passwords."""
    give_passwords(dataset)
    wait_until(lambda: is_alive(site_processes.base_url), 60)
    return Site(base_url=site_processes.base_url, dataset=dataset, processes=site_processes)


def sign_in(page: Page, site_stack: Site) -> None:
    """Sign in with the keyboard."""
    sign_in_by_keyboard(page)
    page.wait_for_url(site_stack.url)


def get_fraction(page: Page) -> float:
    """Return the value of the progress bar."""
    return float(page.locator("progress").first.evaluate("bar => bar.value"))


def test_a_job_is_started_watched_canceled_and_tried_again_by_keyboard(
    chromium: Browser, site_stack: Site, wait_until: Callable[..., Any]
) -> None:
    page = site_stack.open_page(open_context(chromium))
    sign_in(page, site_stack)

    tab_to(page, "Start")
    page.keyboard.press("Enter")
    id_ = str(page.locator(".job").get_attribute("data-id"))
    page.evaluate("window.stayed = true")
    expect(page.locator(".job[data-state=running] .message")).to_contain_text("step", timeout=60_000)
    wait_until(lambda: get_fraction(page) > 0)
    seen = get_fraction(page)
    wait_until(lambda: get_fraction(page) > seen)
    another = site_stack.enqueue_job(seconds=0)
    expect(page.locator(f'[data-states~=succeeded] .job[data-id="{another.id}"]')).to_be_visible()
    expect(page.locator("#announcement")).to_have_text(f"sleep {str(another.id)[-6:]}: Succeeded")
    assert page.evaluate("window.stayed")  # all this without loading it again

    tab_to(page, f"Cancel sleep {id_[-6:]}")
    page.keyboard.press("Enter")
    expect(page.locator(".job[data-state=canceled]")).to_be_visible()
    tab_to(page, f"Try again sleep {id_[-6:]}")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site_stack.url}/*")
    page.evaluate("window.stayed = true")
    expect(page.locator("#job[data-state=running]")).to_be_visible()
    expect(page.locator("[data-list=lines] li").nth(3)).to_be_visible()
    expect(page.locator("[data-list=attempts] tr")).to_have_count(1)
    assert page.title().startswith(page.locator(".now .percent").inner_text())

    tab_to(page, "Cancel")
    page.keyboard.press("Enter")
    expect(page.locator("#job[data-state=canceled]")).to_be_visible()
    tab_to(page, "Sign out")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site_stack.url}/sign-in")
    assert site_stack.complaints == []


def test_a_page_goes_on_when_the_server_comes_back(
    chromium: Browser, site_stack: Site, wait_until: Callable[..., Any]
) -> None:
    job = site_stack.enqueue_job(seconds=5, steps=10)
    page = site_stack.open_page(open_context(chromium))
    sign_in(page, site_stack)
    expect(page.locator(".job[data-state=running]")).to_be_visible()
    page.evaluate("window.stayed = true")
    web, *_ = site_stack.processes.children

    site_stack.processes.stop(web)
    expect(page.locator("#lost")).to_be_visible()
    site_stack.processes.start("web")
    wait_until(lambda: is_alive(site_stack.base_url), 60)

    expect(page.locator("#lost")).to_be_hidden()
    expect(page.locator(f'[data-states~=succeeded] .job[data-id="{job.id}"]')).to_be_visible()
    assert page.evaluate("window.stayed")
    assert {complaint.rpartition(": ")[2] for complaint in site_stack.complaints} <= {"net::ERR_CONNECTION_REFUSED"}


def test_streamed_message_is_escaped(chromium: Browser, site_stack: Site) -> None:
    job = site_stack.start_attempt()
    page = site_stack.open_page(open_context(chromium))
    sign_in(page, site_stack)
    expect(page.locator(".job[data-state=running]")).to_be_visible()

    site_stack.commit_progress(job, MARKUP)
    expect(page.locator(".job .message")).to_have_text(MARKUP)
    page.goto(f"{site_stack.url}/{job.id}")
    site_stack.commit_progress(job, f"{MARKUP} again")
    expect(page.locator(".log .text").first).to_have_text(f"{MARKUP} again")

    assert page.locator("img, main script").count() == 0
    assert site_stack.complaints == []


def test_without_a_script_everything_works_but_slower(chromium: Browser, site_stack: Site) -> None:
    page = site_stack.open_page(
        open_context(chromium, java_script_enabled=False, viewport={"width": 360, "height": 700})
    )
    page.fill("[name=email]", "stranger@example.com")
    page.fill("[name=password]", PASSWORD)
    page.click("main button")
    page.wait_for_url(site_stack.url)

    page.click(".watch button")
    page.wait_for_selector(".job[data-state=running] progress[value]", timeout=60_000)
    page.click(".job button:has-text('Cancel')")

    expect(page.locator(".job:is([data-state=canceling], [data-state=canceled])")).to_be_visible()
    assert page.locator("html").evaluate("page => page.scrollWidth") <= 360
    assert site_stack.complaints == []
