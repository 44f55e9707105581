"""Treatments in a real browser, with a real processor: from two pictures to the regions drawn over them."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

import pytest
from flask import Flask
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect
from sqlalchemy import insert, update

from app.database import commit, connection, transaction
from app.documents.expansion import Document
from app.documents.models import DocumentSet
from app.jobs import artifacts, lifecycle
from app.jobs.records import JobRow
from app.jsonapi.documents import read_new_resource
from app.jsonapi.permissions import Access, Scope
from app.jsonapi.viewer import Role, Viewer
from app.jsonapi.writing import LAYERS
from app.processors import remote
from app.treatments.models import Region
from app.treatments.resources import TREATMENT
from tests.images.pictures import Image, encode
from tests.pages.browser import PASSWORD, give_passwords
from tests.pages.test_pages import LEASE
from tests.pages.window import MARKUP, WIDTH, Visited, needs_chromium, quiet, tab_to, type_in
from tests.treatments.office import Office
from tests.treatments.test_processor import listening
from tests.world import World

pytestmark = [needs_chromium, pytest.mark.faults, pytest.mark.long]

BOXES = {"one": [(200, 100, 100, 80), (10, 20, 50, 40)], "two": [(30, 200, 60, 30)]}
"""Largest first."""
WIDTH_OF_PICTURES, HEIGHT_OF_PICTURES = 400, 300
A_MINUTE = 60_000

FAINT = """() => {
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
"""What has less contrast than 4.5:1 (WCAG 2.2, 1.4.3)."""


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


@dataclass(kw_only=True)
class Site(Visited):
    """The pages of an office, and a treatment that nobody works on."""

    office: Office
    world: World

    def treat(self, title: str = "Mine") -> JobRow:
        """A treatment of the stranger's of one upload, which its processor has begun before it was committed."""
        upload = self.world.upload("stranger")
        self.world.document_set("stranger", [upload])
        with self.office.app.app_context(), transaction(is_read=False):
            access = Access(Viewer(self.world.stranger.id), Scope(Role.USER))
            set_id = connection().scalar(update(DocumentSet).values(title=title).returning(DocumentSet.id))
            linked = {"document-set": {"data": {"type": "document-set", "id": str(set_id)}}}
            asked = {"type": "treatment", "attributes": {"task-type": "regions"}, "relationships": linked}
            row = LAYERS["treatment"].create_object(read_new_resource({"data": asked}, TREATMENT), access)
            job = lifecycle.claim(row.id, "tests", LEASE)
            assert job is not None
            remote.begin(job, "regions", "a token", [Document("picture", "image", "upload", upload)])
            remote.track(job, "run-1")
            waiting = lifecycle.wait(job)
            commit()
        assert waiting is not None
        return waiting

    def find(self, job: JobRow, file: str, *sources: str) -> None:
        """What the processor has found, and the file it stood in; of this nobody is told."""
        with self.office.app.app_context(), transaction(is_read=False):
            about = {"treatment_id": job.id, "document": "picture", "width": 10, "height": 10}
            rows = [{**about, "source": source, "x": 5 * number, "y": 0} for number, source in enumerate(sources)]
            connection().execute(insert(Region), rows)
            artifacts.show(job, artifacts.store(job, file, b"[]", "application/json", partial=True))
            commit()


@pytest.fixture
def site(office: Office, world: World) -> Iterator[Site]:
    """The pages, and people who may sign in."""
    give_passwords(world)
    yield Site(base_url=str(office.app.config["PUBLIC_URL"]), office=office, world=world)
    office.rest()


def sign_in(page: Page, name: str = "stranger") -> None:
    """With the mouse."""
    page.fill("[name=email]", f"{name}@example.com")
    page.fill("[name=password]", PASSWORD)
    page.click("main button")
    page.wait_for_selector(".account")


def make_set(page: Page, site: Site, title: str, *names: str) -> None:
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


def test_two_pictures_become_regions_while_one_looks_on(chromium: Browser, site: Site) -> None:
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


def test_the_same_works_without_a_script_on_a_telephone(chromium: Browser, site: Site) -> None:
    page = site.visit(quiet(chromium, java_script_enabled=False, viewport={"width": 360, "height": 700}))
    sign_in(page)
    make_set(page, site, "Two pictures", "one", "two")
    page.click("a:has-text('regions')")

    page.click("button:has-text('Start the treatment')")
    expect(page.locator("#job[data-state=succeeded]")).to_be_visible(timeout=A_MINUTE)  # it comes again by itself

    assert_near(drawn(page.locator("figure").nth(0)), BOXES["one"])
    page.click("figure >> nth=0 >> summary")
    expect(page.locator("figure").nth(0).locator("li")).to_have_count(2)
    assert page.locator("html").evaluate(WIDTH) <= 360
    assert site.complaints == []


def test_the_keyboard_alone_will_do(chromium: Browser, site: Site) -> None:
    site.world.upload("stranger")
    page = site.visit(quiet(chromium), "/document-sets/new?title=Prefilled")
    type_in(page)
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
    expect(page.locator("#job:is([data-state=succeeded], [data-state=failed])")).to_be_visible(timeout=A_MINUTE)
    tab_to(page, "Start one like it", "A")
    page.keyboard.press("Enter")

    page.wait_for_url("**/treatments/new?*")
    expect(page.locator("[name=model]")).to_have_value("perceptual_hash")
    assert {each for each in site.complaints if "404" not in each} == set()  # the upload has no file


def test_what_is_wrong_in_the_form_is_said_and_reached(chromium: Browser, site: Site) -> None:
    page = site.visit(quiet(chromium), "/treatments/new?task-type=regions&document-set=999999&model=mine")
    sign_in(page)
    expect(page.locator("#document-set")).to_have_attribute("aria-invalid", "true")

    page.click("[role=alert] a:has-text('Document set')")
    focused = page.evaluate("document.activeElement.id")
    page.click("text=Make a document set")
    page.fill("[name=title]", "Mine")
    page.set_input_files("[name=file]", {"name": "text.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.click("button:has-text('Make the set')")

    assert focused == "document-set"
    expect(page.locator("#set-file-fault")).to_contain_text("text.png: Only JPEG, PNG and WebP images are taken.")
    expect(page.locator("[name=title]")).to_have_value("Mine")
    assert {each for each in site.complaints if "422" not in each} == set()


def test_too_much_at_once_is_said_before_it_is_sent(chromium: Browser, site: Site) -> None:
    page = site.visit(quiet(chromium), "/document-sets/new?title=Large")
    sign_in(page)
    large = {"mimeType": "image/png", "buffer": bytes(11 * 2**20)}

    page.set_input_files("[name=file]", [{"name": "1.png", **large}, {"name": "2.png", **large}])
    page.click("button:has-text('Make the set')")

    assert page.url.endswith("/document-sets/new?title=Large")
    assert "too large together" in page.locator("[name=file]").evaluate("field => field.validationMessage")


def test_another_task_keeps_what_was_chosen(chromium: Browser, site: Site) -> None:
    set_id = site.world.document_set("stranger")
    page = site.visit(quiet(chromium), "/treatments/new?task-type=regions")
    sign_in(page)
    page.select_option("#document-set", str(set_id))
    page.check("#notify-email")

    page.click("a:has-text('similarity')")

    page.wait_for_url("**task-type=similarity*")
    expect(page.locator("#document-set")).to_have_value(str(set_id))
    expect(page.locator("#notify-email")).to_be_checked()


def test_what_is_found_appears_and_what_was_open_stays(chromium: Browser, site: Site) -> None:
    job = site.treat()
    page = site.visit(quiet(chromium), f"/{job.id}")
    sign_in(page)
    page.evaluate("window.stayed = true")
    expect(page.locator("[data-text=remote_status]")).to_have_text("STARTED")

    site.find(job, "result-1.json", "a", "a")
    expect(page.locator("figure")).to_have_count(1)
    expect(page.locator(".files li")).to_contain_text("not finished yet")
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    site.find(job, "result-2.json", "b")
    expect(page.locator("figure")).to_have_count(2)
    same_file = page.locator("figure[data-key='picture a']")
    site.find(job, "result-3.json", "a", "a", "a")

    expect(same_file.locator("rect")).to_have_count(5)
    expect(same_file.locator("li")).to_have_count(5)
    assert same_file.locator("details").evaluate("details => details.open")
    assert page.evaluate("document.activeElement.closest('figure').dataset.key") == "picture a"
    assert page.evaluate("window.stayed")
    assert {each for each in site.complaints if "404" not in each} == set()  # the upload has no file


def test_what_is_found_is_text(chromium: Browser, site: Site) -> None:
    job = site.treat(MARKUP)
    page = site.visit(quiet(chromium), f"/{job.id}")
    sign_in(page)
    expect(page.locator("#processor")).to_be_visible()

    site.find(job, "result-1.json", MARKUP)

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
    job = site.treat(long)
    site.find(job, "result-1.json", long * 10)
    page = site.visit(quiet(chromium, viewport={"width": 360, "height": 700}, color_scheme=scheme), f"/{job.id}")
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
        faint = page.evaluate(FAINT)
        assert faint == [], path
    assert {each for each in site.complaints if "404" not in each} == set()  # the upload has no file
