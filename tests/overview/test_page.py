"""/overview/show in a real browser: it submits the job, shows its progress, and then its output."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask import Flask
from playwright.sync_api import Page, Route, expect

from tests.overview.test_overview import SERVER, SLOW_PROGRAM, OverviewPlugin, plugin
from tests.pages.chromium_helpers import launch_browser, needs_chromium

pytestmark = [needs_chromium, pytest.mark.faults]

__all__ = ["plugin"]  # a fixture


@pytest.fixture
def page() -> Iterator[Page]:
    """Open a page; fail if it reports an error."""
    complaints: list[str] = []
    with ExitStack() as stack:
        window = stack.enter_context(launch_browser()).new_page(viewport={"width": 700, "height": 360})
        window.on("pageerror", lambda error: complaints.append(str(error)))
        window.on("console", lambda said: complaints.append(said.text) if "Security" in said.text else None)
        yield window
    assert complaints == []


def show_plugin(plugin: OverviewPlugin, document_set_id: str) -> str:
    """Return the URL that Overview opens."""
    return f"{plugin.url}/show?server={SERVER}&documentSetId={document_set_id}&apiToken=t0k3n"


def test_show_page_displays_progress_and_files(app: Flask, plugin: OverviewPlugin, page: Page, tmp_path: Path) -> None:
    plugin.programs.add_program("process-docset", SLOW_PROGRAM)
    done = tmp_path / "done"

    page.goto(show_plugin(plugin, f"{done}?<b>7</b>".replace("?", "%3F")))
    expect(page.locator("#message")).to_have_text("reading", timeout=20_000)
    assert page.locator("#bar").evaluate("bar => bar.value") == 0.25
    page.screenshot(path=tmp_path / "running.png")
    done.touch()

    expect(page.locator("#title")).to_have_text("Ready", timeout=20_000)
    assert json.loads(page.locator("#output").inner_text()) == {"set": "<b>7</b>", "length": 5}
    expect(page.locator("#output b")).to_have_count(0)


def test_show_page_displays_error_and_retries(app: Flask, plugin: OverviewPlugin, page: Page) -> None:
    plugin.programs.add_program("process-docset", 'echo "<i>no such set</i>" >&2; exit 3')

    page.goto(show_plugin(plugin, "8"))

    expect(page.locator("#message")).to_have_text("<i>no such set</i>", timeout=20_000)
    plugin.programs.add_program("process-docset", "printf [] > $3")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#title")).to_have_text("Ready", timeout=20_000)
    expect(page.locator("#output")).to_have_text("[]")


def test_show_page_without_parameters_displays_error(app: Flask, plugin: OverviewPlugin, page: Page) -> None:
    page.goto(f"{plugin.url}/show")

    expect(page.locator("#message")).to_contain_text("Expected form data", timeout=20_000)


def test_show_page_with_non_ascii_token_displays_error(app: Flask, plugin: OverviewPlugin, page: Page) -> None:
    page.goto(show_plugin(plugin, "9").replace("t0k3n", "%E2%82%AC"))

    expect(page.locator("#message")).to_contain_text("api_token", timeout=20_000)


def test_show_page_displays_lost_connection(app: Flask, plugin: OverviewPlugin, page: Page) -> None:
    cut_off = b'[{"n_ahead_in_queue":0,"fraction":0.5,"message":"reading","returncode":null,"error":null}]'
    answers = [cut_off]

    def answer(route: Route) -> None:
        if answers:
            route.fulfill(body=answers.pop())
        else:
            route.abort()

    page.route("**/overview/generate", answer)
    page.goto(show_plugin(plugin, "10"))

    expect(page.locator("#message")).to_have_text("The server does not respond.", timeout=20_000)
