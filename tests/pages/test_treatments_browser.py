"""Treatments in a real browser, with the reference processor: from two images to the regions drawn over them."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

import pytest
from flask import Flask
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect
from sqlalchemy import insert, update

from app.database import commit, get_connection, open_transaction
from app.documents.models import DocumentSet
from app.documents.resolver import Document
from app.jobs import artifacts, lifecycle
from app.jobs.records import JobRow
from app.jsonapi.current_user import CurrentUser, Role
from app.jsonapi.data_layer import DATA_LAYERS
from app.jsonapi.document_parser import parse_create
from app.jsonapi.permissions import AccessContext, VisibilityScope
from app.processors import runs
from app.treatments.models import Region
from app.treatments.resources import TREATMENT
from tests.dataset import Dataset
from tests.images.sample_images import Image, encode_image
from tests.pages.browser import PASSWORD, give_passwords
from tests.pages.chromium_helpers import (
    MARKUP,
    WIDTH,
    VisitedServer,
    needs_chromium,
    open_context,
    sign_in_by_keyboard,
    tab_to,
)
from tests.pages.test_pages import LEASE
from tests.treatments.processor_stack import ProcessorStack
from tests.treatments.test_processor import run_processor

pytestmark = [needs_chromium, pytest.mark.faults, pytest.mark.long]

BOXES = {"one": [(200, 100, 100, 80), (10, 20, 50, 40)], "two": [(30, 200, 60, 30)]}
"""Rectangles of the images, largest first."""
WIDTH_OF_PICTURES, HEIGHT_OF_PICTURES = 400, 300
MINUTE_MS = 60_000

FIND_LOW_CONTRAST = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => parts(colour).slice(0, 3).map((value) => value / 255)
    .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if ((parts(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const faint = (node) => {
    const [one, other] = [light(getComputedStyle(node).color), light(ground(node))];
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05) < 4.5;
  };
  const says = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  return [...document.querySelectorAll("body *")]
    .filter((node) => says(node) && node.checkVisibility() && !node.closest("svg, select, option") && faint(node))
    .map((node) => node.outerHTML);
}"""
"""Script that returns the elements with a contrast below 4.5:1 (WCAG 2.2, 1.4.3)."""


def make_image(name: str) -> FilePayload:
    """Return an image of white rectangles on black."""
    image = Image.black(WIDTH_OF_PICTURES, HEIGHT_OF_PICTURES)
    for box in BOXES[name]:
        image = image.draw_rect(255, *box, fill=True)
    return {"name": f"{name}.png", "mimeType": "image/png", "buffer": encode_image(image, "png")}


@pytest.fixture(scope="module")
def office(
    app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessorStack]:
    """Start web, relay, worker and the reference processor once for the tests of this module."""
    with ExitStack() as stack:
        _, url = stack.enter_context(run_processor(tmp_path_factory.mktemp("processor")))
        yield ProcessorStack(environment, tmp_path_factory.mktemp("office"), stack, PROCESSOR_URL=url)


@dataclass(kw_only=True)
class Site(VisitedServer):
    """The pages of a running stack, with treatments that no worker executes."""

    office: ProcessorStack
    dataset: Dataset

    def create_treatment(self, title: str = "Mine") -> JobRow:
        """Create a treatment of one upload of the stranger, which is handed off before it is committed."""
        upload = self.dataset.create_upload("stranger")
        self.dataset.create_document_set("stranger", [upload])
        with self.office.app.app_context(), open_transaction(is_read=False):
            access = AccessContext(CurrentUser(self.dataset.stranger.id), VisibilityScope(Role.USER))
            set_id = get_connection().scalar(update(DocumentSet).values(title=title).returning(DocumentSet.id))
            linked = {"document-set": {"data": {"type": "document-set", "id": str(set_id)}}}
            asked = {"type": "treatment", "attributes": {"task-type": "regions"}, "relationships": linked}
            row = DATA_LAYERS["treatment"].create_object(parse_create({"data": asked}, TREATMENT), access)
            job = lifecycle.claim_job(row.id, "tests", LEASE)
            assert job is not None
            runs.create_run(job, "regions", "a token", [Document("picture", "image", "upload", upload)])
            runs.set_tracking_id(job, "run-1")
            waiting = lifecycle.start_waiting(job)
            commit()
        assert waiting is not None
        return waiting

    def store_regions(self, job: JobRow, file: str, *sources: str) -> None:
        """Store regions and their result file without a notification."""
        with self.office.app.app_context(), open_transaction(is_read=False):
            about = {"treatment_id": job.id, "document": "picture", "width": 10, "height": 10}
            rows = [{**about, "source": source, "x": 5 * number, "y": 0} for number, source in enumerate(sources)]
            get_connection().execute(insert(Region), rows)
            artifacts.attach_file(job, artifacts.store_file(job, file, b"[]", "application/json", partial=True))
            commit()


@pytest.fixture
def site(office: ProcessorStack, dataset: Dataset) -> Iterator[Site]:
    """Return the site, with users who have passwords."""
    give_passwords(dataset)
    yield Site(base_url=str(office.app.config["PUBLIC_URL"]), office=office, dataset=dataset)
    office.end_all_jobs()


def sign_in(page: Page, name: str = "stranger") -> None:
    """Sign in with the mouse."""
    page.fill("[name=email]", f"{name}@example.com")
    page.fill("[name=password]", PASSWORD)
    page.click("main button")
    page.wait_for_selector(".account")


def create_document_set(page: Page, site: Site, title: str, *names: str) -> None:
    """Go from the list of jobs to the treatment form, with a new set of these images selected."""
    page.goto(f"{site.url}/document-sets/new")
    page.fill("[name=title]", title)
    page.set_input_files("[name=file]", [make_image(name) for name in names])
    page.click("button:has-text('Create document set')")
    page.wait_for_url("**/jobs/treatments/new?document-set=*")


def get_rectangles(figure: Locator) -> list[tuple[int, ...]]:
    """Return the positions of the drawn rectangles, in pixels of the image."""
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
    """Assert that rectangles are equal up to the width of a border."""
    assert len(found) == len(meant)
    for one, other in zip(found, meant, strict=True):
        assert all(abs(a - b) <= 4 for a, b in zip(one, other, strict=True)), (found, meant)


def test_two_images_get_regions_while_the_page_is_open(chromium: Browser, site: Site) -> None:
    page = site.open_page(open_context(chromium))
    sign_in(page)
    page.click("text=Document sets")
    page.click("text=New document set")
    create_document_set(page, site, "Two pictures", "one", "two")
    page.click("a:has-text('regions')")
    expect(page.locator("#document-set option:checked")).to_have_text("Two pictures (2)")
    expect(page.locator("[name=model]")).to_have_value("illustration_extraction")

    page.click("button:has-text('Start the treatment')")
    page.evaluate("window.stayed = true")
    expect(page.locator("#job[data-state=succeeded]")).to_be_visible(timeout=MINUTE_MS)

    expect(page.locator("#regions .count")).to_have_text("3 regions in 2 images")
    assert_near(get_rectangles(page.locator("figure").nth(0)), BOXES["one"])
    assert_near(get_rectangles(page.locator("figure").nth(1)), BOXES["two"])
    expect(page.locator("[data-text=remote_status]")).to_have_text("SUCCESS")
    assert page.evaluate("window.stayed")
    assert site.complaints == []


def test_the_same_works_without_a_script_on_a_telephone(chromium: Browser, site: Site) -> None:
    page = site.open_page(open_context(chromium, java_script_enabled=False, viewport={"width": 360, "height": 700}))
    sign_in(page)
    create_document_set(page, site, "Two pictures", "one", "two")
    page.click("a:has-text('regions')")

    page.click("button:has-text('Start the treatment')")
    expect(page.locator("#job[data-state=succeeded]")).to_be_visible(timeout=MINUTE_MS)  # it comes again by itself

    assert_near(get_rectangles(page.locator("figure").nth(0)), BOXES["one"])
    page.click("figure >> nth=0 >> summary")
    expect(page.locator("figure").nth(0).locator("li")).to_have_count(2)
    assert page.locator("html").evaluate(WIDTH) <= 360
    assert site.complaints == []


def test_treatment_can_be_started_by_keyboard(chromium: Browser, site: Site) -> None:
    site.dataset.create_upload("stranger")
    page = site.open_page(open_context(chromium), "/document-sets/new?title=Prefilled")
    sign_in_by_keyboard(page)
    page.wait_for_url("**/document-sets/new?title=Prefilled")
    tab_to(page, "", "INPUT")
    page.keyboard.type("Typed by hand")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("[name=upload]")).to_be_checked()
    page.keyboard.press("Enter")
    page.wait_for_url("**/treatments/new?document-set=*")
    tab_to(page, "similarity", "A")
    page.keyboard.press("Enter")
    page.wait_for_url("**task-type=similarity*")
    expect(page.locator("#document-set option:checked")).to_have_text("Typed by hand (1)")

    tab_to(page, "Start the treatment")
    page.keyboard.press("Enter")
    expect(page.locator("#job:is([data-state=succeeded], [data-state=failed])")).to_be_visible(timeout=MINUTE_MS)
    tab_to(page, "Start a similar treatment", "A")
    page.keyboard.press("Enter")

    page.wait_for_url("**/treatments/new?*")
    expect(page.locator("[name=model]")).to_have_value("perceptual_hash")
    assert {each for each in site.complaints if "404" not in each} == set()  # the upload has no file


def test_form_errors_are_linked_to_fields(chromium: Browser, site: Site) -> None:
    page = site.open_page(open_context(chromium), "/treatments/new?task-type=regions&document-set=999999&model=mine")
    sign_in(page)
    expect(page.locator("#document-set")).to_have_attribute("aria-invalid", "true")

    page.click("[role=alert] a:has-text('Document set')")
    focused = page.evaluate("document.activeElement.id")
    page.click("text=Create a document set")
    page.fill("[name=title]", "Mine")
    page.set_input_files("[name=file]", {"name": "text.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.click("button:has-text('Create document set')")

    assert focused == "document-set"
    expect(page.locator("#set-file-fault")).to_contain_text("text.png: The image must be a JPEG, PNG or WebP image.")
    expect(page.locator("[name=title]")).to_have_value("Mine")
    assert {each for each in site.complaints if "422" not in each} == set()


def test_too_large_files_are_reported_before_they_are_sent(chromium: Browser, site: Site) -> None:
    page = site.open_page(open_context(chromium), "/document-sets/new?title=Large")
    sign_in(page)
    large = {"mimeType": "image/png", "buffer": bytes(11 * 2**20)}

    page.set_input_files("[name=file]", [{"name": "1.png", **large}, {"name": "2.png", **large}])
    page.click("button:has-text('Create document set')")

    assert page.url.endswith("/document-sets/new?title=Large")
    assert "too large together" in page.locator("[name=file]").evaluate("field => field.validationMessage")


def test_another_task_keeps_what_was_chosen(chromium: Browser, site: Site) -> None:
    set_id = site.dataset.create_document_set("stranger")
    page = site.open_page(open_context(chromium), "/treatments/new?task-type=regions")
    sign_in(page)
    page.select_option("#document-set", str(set_id))
    page.check("#notify-email")

    page.click("a:has-text('similarity')")

    page.wait_for_url("**task-type=similarity*")
    expect(page.locator("#document-set")).to_have_value(str(set_id))
    expect(page.locator("#notify-email")).to_be_checked()


def test_new_results_appear_without_closing_open_details(chromium: Browser, site: Site) -> None:
    job = site.create_treatment()
    page = site.open_page(open_context(chromium), f"/{job.id}")
    sign_in(page)
    page.evaluate("window.stayed = true")
    expect(page.locator("[data-text=remote_status]")).to_have_text("STARTED")

    site.store_regions(job, "result-1.json", "a", "a")
    expect(page.locator("figure")).to_have_count(1)
    expect(page.locator(".files li")).to_contain_text("not finished yet")
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    site.store_regions(job, "result-2.json", "b")
    expect(page.locator("figure")).to_have_count(2)
    same_file = page.locator("figure[data-key='picture a']")
    site.store_regions(job, "result-3.json", "a", "a", "a")

    expect(same_file.locator("rect")).to_have_count(5)
    expect(same_file.locator("li")).to_have_count(5)
    assert same_file.locator("details").evaluate("details => details.open")
    assert page.evaluate("document.activeElement.closest('figure').dataset.key") == "picture a"
    assert page.evaluate("window.stayed")
    assert {each for each in site.complaints if "404" not in each} == set()  # the upload has no file


def test_result_text_is_escaped(chromium: Browser, site: Site) -> None:
    job = site.create_treatment(MARKUP)
    page = site.open_page(open_context(chromium), f"/{job.id}")
    sign_in(page)
    expect(page.locator("#processor")).to_be_visible()

    site.store_regions(job, "result-1.json", MARKUP)

    expect(page.locator(".source")).to_have_text(MARKUP)
    expect(page.locator("dd", has_text="alert(1)")).to_have_text(MARKUP)
    page.goto(f"{site.url}/document-sets")
    expect(page.locator(".set h2")).to_have_text(MARKUP)
    page.goto(f"{site.url}/treatments/new?task-type=regions&model={quote(MARKUP)}")
    expect(page.locator("[name=model]")).to_have_value(MARKUP)
    assert page.locator("main script, main img[onerror]").count() == 0
    assert {each for each in site.complaints if "404" not in each} == set()  # the upload has no file


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_a_telephone_and_can_be_read(
    chromium: Browser, site: Site, scheme: Literal["light", "dark"]
) -> None:
    long = "".join("word" for _ in range(12))
    job = site.create_treatment(long)
    site.store_regions(job, "result-1.json", long * 10)
    page = site.open_page(
        open_context(chromium, viewport={"width": 360, "height": 700}, color_scheme=scheme), f"/{job.id}"
    )
    sign_in(page)

    for path in (
        f"/{job.id}",
        "/treatments/new",
        f"/treatments/new?task-type=regions&document-set=9&model={long * 10}",
        "/document-sets",
        f"/document-sets/new?title={long}&event=9&upload=9",
    ):
        page.goto(f"{site.url}{path}")
        assert page.locator("html").evaluate(WIDTH) <= 360, path
        faint = page.evaluate(FIND_LOW_CONTRAST)
        assert faint == [], path
    assert {each for each in site.complaints if "404" not in each} == set()  # the upload has no file
