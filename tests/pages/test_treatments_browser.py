"""Treatments in a real browser, with a real processor: from two pictures to the regions drawn over them."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from flask import Flask
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect

from tests.images.pictures import Image, encode
from tests.pages.browser import PASSWORD, give_passwords
from tests.pages.window import Visited, needs_chromium, quiet
from tests.treatments.office import Office
from tests.treatments.test_processor import listening
from tests.world import World

pytestmark = needs_chromium

BOXES = {"one": [(200, 100, 100, 80), (10, 20, 50, 40)], "two": [(30, 200, 60, 30)]}
"""Largest first."""
WIDTH_OF_PICTURES, HEIGHT_OF_PICTURES = 400, 300
A_MINUTE = 60_000


def picture(name: str) -> FilePayload:
    """White rectangles on black."""
    image = Image.black(WIDTH_OF_PICTURES, HEIGHT_OF_PICTURES)
    for box in BOXES[name]:
        image = image.draw_rect(255, *box, fill=True)
    return {"name": f"{name}.png", "mimeType": "image/png", "buffer": encode(image, "png")}


@pytest.fixture(scope="module")
def office(app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """Web, relay and worker beside the reference processor, for all tests of this module."""
    with ExitStack() as stack:
        _, url = stack.enter_context(listening(tmp_path_factory.mktemp("processor")))
        yield Office(environment, tmp_path_factory.mktemp("office"), stack, PROCESSOR_URL=url)


@pytest.fixture
def site(office: Office, world: World) -> Iterator[Visited]:
    """The pages, and people who may sign in."""
    give_passwords(world)
    yield Visited(base_url=str(office.app.config["PUBLIC_URL"]))
    office.rest()


def sign_in(page: Page, name: str = "stranger") -> None:
    """With the mouse."""
    page.fill("[name=email]", f"{name}@example.com")
    page.fill("[name=password]", PASSWORD)
    page.click("main button")
    page.wait_for_url("**/jobs*")


def make_set(page: Page, site: Visited, title: str, *names: str) -> None:
    """From the list of jobs to the form of treatments, with a set of these pictures chosen."""
    page.goto(f"{site.url}/document-sets/new")
    page.fill("[name=title]", title)
    page.set_input_files("[name=file]", [picture(name) for name in names])
    page.click("button:has-text('Make the set')")
    page.wait_for_url("**/jobs/treatments/new?document-set=*")


def drawn(figure: Locator) -> list[tuple[int, ...]]:
    """Where the rectangles are on the image as it is shown, in pixels of the image."""
    shown = figure.locator("img").bounding_box()
    assert shown is not None
    scale = WIDTH_OF_PICTURES / shown["width"]
    # What is drawn of a rectangle besides its border, which is on the line.
    places = figure.locator("rect").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect()).map(({x, y, width, height}) => ({x, y, width, height}))"
    )
    return [
        tuple(
            round(pixels * scale) for pixels in (at["x"] - shown["x"], at["y"] - shown["y"], at["width"], at["height"])
        )
        for at in places
    ]


def assert_near(found: list[tuple[int, ...]], meant: list[tuple[int, ...]]) -> None:
    """The same but for the width of a border."""
    assert len(found) == len(meant)
    for one, other in zip(found, meant, strict=True):
        assert all(abs(a - b) <= 4 for a, b in zip(one, other, strict=True)), (found, meant)


def test_two_pictures_become_regions_while_one_looks_on(chromium: Browser, site: Visited) -> None:
    page = site.visit(quiet(chromium))
    sign_in(page)
    page.click("text=Document sets")
    page.click("text=New document set")
    make_set(page, site, "Two pictures", "one", "two")
    page.click("a:has-text('regions')")
    expect(page.locator("#document-set option:checked")).to_have_text("Two pictures (2)")
    expect(page.locator("[name=model]")).to_have_value("illustration_extraction")

    page.click("button:has-text('Start the treatment')")
    page.evaluate("window.stayed = true")
    expect(page.locator("#job[data-state=succeeded]")).to_be_visible(timeout=A_MINUTE)

    expect(page.locator("#regions .count")).to_have_text("3 regions in 2 images")
    assert_near(drawn(page.locator("figure").nth(0)), BOXES["one"])
    assert_near(drawn(page.locator("figure").nth(1)), BOXES["two"])
    expect(page.locator("[data-text=remote_status]")).to_have_text("SUCCESS")
    assert page.evaluate("window.stayed")
    assert site.complaints == []
