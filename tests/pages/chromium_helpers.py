"""A real browser for tests, which records errors of pages, and helpers for the keyboard."""

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
    """Start a browser; each test opens its own context in it."""
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@dataclass(kw_only=True)
class VisitedServer:
    """A server whose pages are opened in a browser, with the errors that the browser reports."""

    base_url: str
    complaints: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Return the URL of the list of jobs."""
        return f"{self.base_url}/jobs"

    def open_page(self, context: BrowserContext, path: str = "") -> Page:
        """Open a page below /jobs."""
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.add_init_script(REPORTS_VIOLATIONS)
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(f"{self.url}{path}")
        return page


def is_alive(base_url: str) -> bool:
    """Return whether the web process responds."""
    try:
        return httpx.get(f"{base_url}/livez", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def open_context(chromium: Browser, **options: object) -> BrowserContext:
    """Open a context with reduced motion, as animations cost CPU time."""
    return chromium.new_context(reduced_motion="reduce", **options)  # type: ignore[arg-type]  # whatever Playwright takes


def tab_to(page: Page, words: str, tag: str = "BUTTON") -> None:
    """Press Tab until the button, or another element, with this text has a visible focus."""
    for _ in range(MAX_TABS):
        page.keyboard.press("Tab")
        if page.evaluate(FOCUSED).startswith(f"{tag} {words}"):
            assert page.evaluate(OUTLINE) != "none"
            return
    pytest.fail(f"the keyboard does not reach {words!r}")


def sign_in_by_keyboard(page: Page, name: str = "stranger") -> None:
    """Sign in with the keyboard; the form gets the focus when it is loaded."""
    expect(page.locator("[name=email]")).to_be_focused()
    page.keyboard.type(f"{name}@example.com")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
