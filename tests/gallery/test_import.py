"""The import of an inbox: each image once, whatever else lies there and however often it is asked for."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import pytest
import pyvips
from flask import Flask

from app.database import commit, transaction
from app.errors import Errors, NotFound, Unavailable, Unprocessable
from app.gallery import inbox, intake, tasks
from app.images.headers import MOST_BYTES
from app.images.pixels import make_variants
from app.jobs import lifecycle, running, submission
from app.jobs.models import Job, JobEvent
from app.jobs.records import JobRow
from app.storage import Storage, current_storage
from tests.images.pictures import BLUE, GPS, ZIP, encode, flag, photo, plain, png, with_metadata
from tests.jobs.written import read, written
from tests.world import World, data

pytestmark = pytest.mark.long

RED_JPEG, BLUE_PNG = encode(plain(40, 20), "jpeg"), encode(plain(40, 20, BLUE), "png")
PHOTO = encode(photo(80, 40), "png")
DAMAGED = PHOTO[: len(PHOTO) // 2] + bytes(20) + PHOTO[len(PHOTO) // 2 + 20 :]
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'


@dataclass
class Gallery:
    """The gallery of one event of the world, and the inbox it is filled from."""

    app: Flask
    world: World
    state: str = "published"

    @property
    def event(self) -> int:
        """The event's id."""
        return self.world.events[self.state]

    @property
    def folder(self) -> Path:
        """The inbox as a directory, for what no client of a storage would do."""
        root = Path(unquote(urlsplit(self.app.config["STORAGE_URL"]).path))
        return root / "inbox" / self.world.identifiers[self.state]

    def leave(self, name: str, content: bytes) -> None:
        """Leave a file in the inbox."""
        current_storage().put(f"inbox/{self.world.identifiers[self.state]}/{name}", content, "image/jpeg")

    def submit(self, owner_id: int | None = None) -> submission.Submitted:
        """Commit a job."""
        with transaction(is_read=False):
            made = submission.submit("import-images", {"event": self.event}, trigger="hook", owner_id=owner_id)
            commit()
        return made

    def run(self, job_id: UUID) -> JobRow:
        """What a worker does; the job as it is then."""
        with self.app.app_context():
            running.run(job_id, "tests")
        return read(self.app, job_id)

    def fill(self) -> JobRow:
        """A new job that has run."""
        made = self.submit()
        assert made.is_new
        return self.run(made.job.id)

    def images(self) -> list[dict[str, Any]]:
        """What imports have brought, by name."""
        listed = data(self.world.owner.get(f"/v1/events/{self.event}/images?sort=name&page[size]=100"))
        return [image for image in listed if image["id"] != str(self.world.images[self.state])]

    def names(self) -> list[str]:
        """Their names."""
        return [image["attributes"]["name"] for image in self.images()]

    def content(self, name: str) -> bytes:
        """An image as everybody fetches it."""
        (url,) = [each["attributes"]["image-url"] for each in self.images() if each["attributes"]["name"] == name]
        served = self.app.test_client().get(urlsplit(url).path)
        assert served.status_code == 200
        return served.data

    def warnings(self, job: JobRow) -> list[str]:
        """What a job has warned of."""
        return [told.message for told in written(self.app, JobEvent, job.id) if told.level == "warning"]


@pytest.fixture
def here(app: Flask) -> Iterator[Flask]:
    """The context of the app."""
    with app.app_context():
        yield app


@pytest.fixture
def gallery(here: Flask, world: World) -> Gallery:
    """The gallery of a published event; nothing lies in its inbox."""
    return Gallery(here, world)


@pytest.fixture
def no_storage(here: Flask, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets the storage go away: a bucket behind a port where nobody listens."""
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_REGION": "nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    return lambda: monkeypatch.setitem(here.extensions, "storage", Storage("s3://gone", "https://events.example.com"))


def counts(job: JobRow) -> tuple[int, int, int]:
    """Imported, known, refused."""
    assert job.state == "succeeded", job.error
    result = job.result or {}
    return result["imported"], result["known"], result["refused-count"]


# What comes into the gallery


def test_the_images_of_the_inbox_come_into_the_gallery(gallery: Gallery) -> None:
    gallery.leave("a b ä.jpg", RED_JPEG)
    gallery.leave("day 1/blue.png", BLUE_PNG)
    gallery.leave("green.webp", encode(plain(40, 20, (0, 255, 0)), "webp", keep="none"))

    job = gallery.fill()

    assert job.result == {"imported": 3, "known": 0, "refused-count": 0, "refused": [], "left": 0}
    assert gallery.names() == ["a b ä.jpg", "day 1/blue.png", "green.webp"]
    shown = [image["attributes"] for image in gallery.images()]
    assert [each["media-type"] for each in shown] == ["image/jpeg", "image/png", "image/webp"]
    assert {(each["width"], each["height"]) for each in shown} == {(40, 20)}
    for each in shown:
        assert len(gallery.content(each["name"])) == each["size"]
        assert each["sha256"] in each["image-url"]
    assert [stored.name.rpartition("/")[2] for stored in inbox.files(gallery.folder.name)] == [
        "a b ä.jpg",
        "blue.png",
        "green.webp",
    ]


def test_import_decomposed_file_name_is_shown_composed(gallery: Gallery) -> None:
    gallery.leave("Saal a\u0308.jpg", RED_JPEG)

    assert counts(gallery.fill()) == (1, 0, 0)
    assert gallery.names() == ["Saal ä.jpg"]


def test_an_empty_inbox_is_no_mistake(gallery: Gallery) -> None:
    assert counts(gallery.fill()) == (0, 0, 0)


def test_an_image_is_upright_and_says_nothing_of_where_it_was_taken(gallery: Gallery) -> None:
    gallery.leave("phone.jpg", encode(with_metadata(flag(80, 40), orientation=6), "jpeg") + ZIP)

    gallery.fill()

    content = gallery.content("phone.jpg")
    image = pyvips.Image.new_from_buffer(content, "")
    assert (image.width, image.height) == (40, 80)
    assert GPS.encode() not in content
    assert not content.endswith(ZIP)
    assert "exif-data" not in image.get_fields()


def test_a_huge_image_is_made_to_fit(gallery: Gallery) -> None:
    gallery.leave("wide.png", encode(plain(8192, 100), "png"))

    gallery.fill()

    (image,) = gallery.images()
    assert (image["attributes"]["width"], image["attributes"]["height"]) == (2560, 32)


# Each once


def test_the_same_data_is_the_same_job_and_new_data_a_new_one(gallery: Gallery) -> None:
    gallery.leave("red.jpg", RED_JPEG)
    first = gallery.submit()
    assert gallery.submit().job.id == first.job.id
    gallery.run(first.job.id)
    again = gallery.submit()
    assert (again.job.id, again.is_new) == (first.job.id, False)

    gallery.leave("blue.png", BLUE_PNG)
    second = gallery.submit()

    assert second.is_new
    assert counts(gallery.run(second.job.id)) == (1, 1, 0)
    assert gallery.names() == ["blue.png", "red.jpg"]
    (gallery.folder / "blue.png").unlink()
    assert gallery.submit().job.id == first.job.id  # as it was then, and all of that is in the gallery


def test_a_file_that_is_replaced_is_new_data(gallery: Gallery) -> None:
    gallery.leave("photo", RED_JPEG)
    gallery.fill()

    gallery.leave("photo", BLUE_PNG)

    assert counts(gallery.fill()) == (1, 0, 0)
    assert len(gallery.images()) == 2


def test_one_content_under_two_names_is_one_image(gallery: Gallery) -> None:
    gallery.leave("a.jpg", RED_JPEG)
    gallery.leave("b.jpg", RED_JPEG)
    gallery.leave("c.jpg", RED_JPEG + ZIP)  # another file with the same pixels

    assert counts(gallery.fill()) == (1, 2, 0)
    assert gallery.names() == ["a.jpg"]


def test_what_is_known_is_not_decoded_again(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery.leave("red.jpg", RED_JPEG)
    gallery.fill()
    gallery.leave("blue.png", BLUE_PNG)
    decoded: list[bytes] = []

    def note(content: bytes, *more: Any) -> Any:
        decoded.append(content)
        return make_variants(content, *more)

    monkeypatch.setattr(intake, "make_variants", note)
    gallery.fill()

    assert decoded == [BLUE_PNG]


def test_what_an_organizer_has_deleted_does_not_come_back(gallery: Gallery) -> None:
    gallery.leave("red.jpg", RED_JPEG)
    gallery.fill()
    (image,) = gallery.images()
    gallery.world.organizer.delete(image["links"]["self"])

    gallery.leave("blue.png", BLUE_PNG)
    gallery.leave("red again.jpg", RED_JPEG + ZIP)

    assert counts(gallery.fill()) == (1, 2, 0)
    assert gallery.names() == ["blue.png"]


def test_two_imports_at_once_take_each_image_once(gallery: Gallery) -> None:
    for number in range(6):
        gallery.leave(f"{number}.png", encode(plain(40, 20, (40 * number, 0, 0)), "png"))
    jobs = [gallery.submit(owner_id).job for owner_id in (gallery.world.owner.id, gallery.world.organizer.id)]
    ended: list[JobRow] = []

    threads = [threading.Thread(target=lambda job=job: ended.append(gallery.run(job.id))) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    taken = [counts(job) for job in ended]
    assert [sum(each) for each in zip(*taken, strict=True)] == [6, 6, 0]
    assert len(gallery.images()) == 6


def test_two_events_share_a_stored_file_and_nothing_else(gallery: Gallery) -> None:
    other = Gallery(gallery.app, gallery.world, "draft")
    for each in (gallery, other):
        each.leave("red.jpg", RED_JPEG)
        assert counts(each.fill()) == (1, 0, 0)

    urls = {image["attributes"]["image-url"] for each in (gallery, other) for image in each.images()}
    assert len(urls) == 1
    gallery.world.owner.delete(gallery.images()[0]["links"]["self"])
    assert other.content("red.jpg")


# Files that are no images


def test_a_bad_file_is_named_and_ends_nothing(gallery: Gallery) -> None:
    gallery.leave("a.svg", SVG)
    gallery.leave("b truncated.jpg", RED_JPEG[:-20])
    gallery.leave("c bomb.png", png(40_000, 40_000))
    gallery.leave("d empty.jpg", b"")
    gallery.leave("e notes.txt", b"not for the gallery")
    gallery.leave("f damaged.png", DAMAGED)
    gallery.leave("g.jpg", RED_JPEG)
    (gallery.folder / "h huge.jpg").touch()
    with (gallery.folder / "h huge.jpg").open("r+b") as huge:
        huge.truncate(MOST_BYTES + 1)
    deep = gallery.folder / "i/2/3/4/5/6/7/8"
    deep.mkdir(parents=True)
    (deep / "deep.jpg").write_bytes(BLUE_PNG)

    job = gallery.fill()

    refused = {
        "a.svg": "unsupported-image",
        "b truncated.jpg": "broken-image",
        "c bomb.png": "image-too-large",
        "d empty.jpg": "broken-image",
        "e notes.txt": "unsupported-image",
        "f damaged.png": "broken-image",
        "h huge.jpg": "image-too-large",
        "i/2/3/4/5/6/7/8/deep.jpg": "unusable-name",
    }
    assert counts(job) == (1, 0, 8)
    assert (job.result or {})["refused"] == [{"name": name, "code": code} for name, code in refused.items()]
    assert [told.partition(": ")[0] for told in gallery.warnings(job)] == [*refused]
    assert gallery.names() == ["g.jpg"]


def test_so_many_bad_files_are_counted_and_only_some_of_them_named(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "MOST_NAMED", 2)
    for number in range(5):
        gallery.leave(f"{number}.svg", SVG)

    job = gallery.fill()

    assert counts(job) == (0, 0, 5)
    assert [each["name"] for each in (job.result or {})["refused"]] == ["0.svg", "1.svg"]
    assert len(gallery.warnings(job)) == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.jpg", "a.jpg"), ("a\u202eb\x9b1m.jpg", "a?b?1m.jpg"), ("ä" * 200, "ä" * 99 + "…")],
)
def test_a_name_in_a_sentence_is_short_and_moves_no_cursor(name: str, expected: str) -> None:
    assert inbox.shown(name) == expected


def test_a_name_that_cannot_even_be_listed_is_told_before_and_while_it_runs(gallery: Gallery) -> None:
    job_id = gallery.submit().job.id
    gallery.folder.mkdir(parents=True)
    (gallery.folder / "two\nlines.jpg").write_bytes(RED_JPEG)

    with pytest.raises(Unprocessable, match="rename it") as caught:
        gallery.submit()

    assert caught.value.source == {"pointer": "/data/attributes/parameters/event"}
    job = gallery.run(job_id)
    assert (job.state, (job.error or {})["code"]) == ("failed", "unusable-name")


# What goes away


@pytest.mark.parametrize("state", ["trashed", "nothing"])
def test_there_is_no_import_for_an_event_that_is_not_there(gallery: Gallery, state: str) -> None:
    gallery.world.events["nothing"] = 2**63 - 1
    gallery.state = state

    with pytest.raises(NotFound) as caught:
        gallery.submit()

    assert caught.value.source == {"pointer": "/data/attributes/parameters/event"}
    assert gallery.world.rows(Job) == 0


@pytest.mark.parametrize("event", [0, 2**63, -1, 1.5, "01", None, True])
def test_an_event_that_cannot_be_is_refused_with_its_place(here: Flask, event: object) -> None:
    with pytest.raises(Errors) as caught, transaction(is_read=False):
        submission.submit("import-images", {"event": event}, trigger="hook", owner_id=None)

    assert [error.source for error in caught.value.errors] == [{"pointer": "/data/attributes/parameters/event"}]


def test_an_event_that_is_trashed_meanwhile_gets_no_images(gallery: Gallery) -> None:
    gallery.leave("red.jpg", RED_JPEG)
    job_id = gallery.submit().job.id
    gallery.world.owner.delete(f"/v1/events/{gallery.event}")

    job = gallery.run(job_id)

    assert (job.state, (job.error or {})["code"]) == ("failed", "gone")


def test_a_storage_that_does_not_answer_is_503_and_nothing_is_stored(
    gallery: Gallery, no_storage: Callable[[], None]
) -> None:
    no_storage()

    with pytest.raises(Unavailable) as caught:
        gallery.submit()

    assert "Retry-After" in caught.value.headers
    assert gallery.world.rows(Job) == 0


def test_a_storage_that_goes_away_ends_the_job_which_can_be_asked_for_again(
    gallery: Gallery, no_storage: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        gallery.leave(f"{number}.jpg", RED_JPEG)
    job_id = gallery.submit().job.id
    with monkeypatch.context() as meanwhile:
        _after_the_listing(meanwhile, no_storage)
        job = gallery.run(job_id)

    assert (job.state, (job.error or {})["code"]) == ("failed", "storage-unavailable")
    assert len(gallery.warnings(job)) == tasks.MOST_UNREADABLE - 1


@pytest.mark.parametrize("what", ["gone", "replaced"])
def test_a_file_that_changes_meanwhile_is_for_the_next_import(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    gallery.leave("a.jpg", RED_JPEG)
    gallery.leave("b.png", BLUE_PNG)
    job_id = gallery.submit().job.id

    def change() -> None:
        (gallery.folder / "a.jpg").unlink()
        if what == "replaced":
            gallery.leave("a.jpg", encode(plain(40, 20, (0, 255, 0)), "jpeg"))

    with monkeypatch.context() as meanwhile:
        _after_the_listing(meanwhile, change)
        job = gallery.run(job_id)

    assert (job.state, (job.error or {})["code"]) == ("failed", "unreadable-files")
    assert "a.jpg" in (job.error or {})["detail"]
    assert gallery.names() == ["b.png"]
    assert counts(gallery.fill()) == (int(what == "replaced"), 1, 0)


def _after_the_listing(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    files = inbox.files

    def listed(identifier: str) -> Any:
        found = files(identifier)
        happens()
        return found

    monkeypatch.setattr(inbox, "files", listed)


# How far it goes


def test_more_than_one_run_takes_is_for_the_next_ones(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MOST_IMAGES", 2)
    for number in range(5):
        gallery.leave(f"{number}.png", encode(plain(40, 20, (50 * number, 0, 0)), "png"))

    runs = [gallery.fill() for _ in range(4)]

    assert [counts(job)[:2] for job in runs] == [(2, 0), (2, 2), (1, 4), (0, 5)]
    assert [(job.result or {})["left"] for job in runs] == [3, 1, 0, 0]
    assert gallery.warnings(runs[0]) == ["2 images were taken, 3 files are left: import again."]
    assert gallery.submit().job.id == runs[3].id


def test_an_import_says_which_file_it_is_at(gallery: Gallery) -> None:
    gallery.leave("red.jpg", RED_JPEG)

    job = gallery.fill()

    told = [(entry.fraction, entry.message) for entry in written(gallery.app, JobEvent, job.id)]
    assert (0.0, "1 of 1: red.jpg") in told
    assert job.progress == 1


def test_a_canceled_import_ends_between_two_files(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any]
) -> None:
    monkeypatch.setitem(gallery.app.config, "JOB_LEASE_SECONDS", 1)
    for number in range(20):
        gallery.leave(f"{number:02}.png", encode(plain(40, 20, (number, 0, 0)), "png"))
    job_id = gallery.submit().job.id
    thread = threading.Thread(target=gallery.run, args=(job_id,))
    thread.start()
    wait_until(gallery.names)

    with transaction(is_read=False):
        lifecycle.cancel(job_id)
        commit()
    thread.join()

    taken = len(gallery.images())
    assert (read(gallery.app, job_id).state, taken < 20) == ("canceled", True)
    assert counts(gallery.fill()) == (20 - taken, taken, 0)
