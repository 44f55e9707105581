"""A real browser for tests: windows whose complaints are noted, and what somebody at the keyboard does."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.pages.browser import PASSWORD

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium, and /jobs is tried in a browser"
)

REPORTS_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => console.error(`refused: ${event.violatedDirective}`));
"""
FOCUSED = "[document.activeElement.tagName, document.activeElement.textContent.trim()].join(' ')"
OUTLINE = "getComputedStyle(document.activeElement).outlineStyle"
WIDTH = "page => page.scrollWidth"
MAX_TABS = 40
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>"

expect.set_options(timeout=15_000)


@contextmanager
def launch_browser() -> Iterator[Browser]:
    """One browser; each test has a window of its own in it."""
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@dataclass(kw_only=True)
class VisitedServer:
    """A server whose pages are looked at; what the browser complains of is noted."""

    base_url: str
    complaints: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The list of jobs."""
        return f"{self.base_url}/jobs"

    def open_page(self, context: BrowserContext, path: str = "") -> Page:
        """A window on a page below the list."""
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.add_init_script(REPORTS_VIOLATIONS)
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(f"{self.url}{path}")
        return page


def is_alive(base_url: str) -> bool:
    """Whether the web process answers."""
    try:
        return httpx.get(f"{base_url}/livez", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def open_context(chromium: Browser, **options: object) -> BrowserContext:
    """A window of its own in which nothing is animated, which costs a processor here."""
    return chromium.new_context(reduced_motion="reduce", **options)  # type: ignore[arg-type]  # whatever Playwright takes


def tab_to(page: Page, words: str, tag: str = "BUTTON") -> None:
    """Press Tab until a button, or another element, that says this has the focus, which shows."""
    for _ in range(MAX_TABS):
        page.keyboard.press("Tab")
        if page.evaluate(FOCUSED).startswith(f"{tag} {words}"):
            assert page.evaluate(OUTLINE) != "none"
            return
    pytest.fail(f"the keyboard does not reach {words!r}")


def sign_in_by_keyboard(page: Page, name: str = "stranger") -> None:
    """Sign in with the keyboard: the form has the focus, a moment after it was loaded."""
    expect(page.locator("[name=email]")).to_be_focused()
    page.keyboard.type(f"{name}@example.com")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
