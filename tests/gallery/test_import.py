"""Import of an inbox: each image once, whatever other files are there."""

import os
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

from app.database import commit, open_transaction
from app.errors import ApiErrorGroup, NotFound, Unavailable, Unprocessable
from app.gallery import image_import, inbox, tasks
from app.images.inspection import MAX_IMAGE_BYTES
from app.images.resizer import make_variants
from app.jobs import executor, lifecycle, submission
from app.jobs.models import Job, JobEvent
from app.jobs.records import JobRow
from app.storage import Storage, current_storage
from tests.dataset import Dataset, get_data
from tests.images.sample_images import (
    BLUE,
    GPS,
    ZIP,
    add_metadata,
    encode_image,
    make_flag_image,
    make_photo,
    make_plain_image,
    make_png,
)
from tests.jobs.db_helpers import get_job, list_job_rows

pytestmark = pytest.mark.long

RED_JPEG, BLUE_PNG = encode_image(make_plain_image(40, 20), "jpeg"), encode_image(make_plain_image(40, 20, BLUE), "png")
PHOTO = encode_image(make_photo(80, 40), "png")
DAMAGED = PHOTO[: len(PHOTO) // 2] + bytes(20) + PHOTO[len(PHOTO) // 2 + 20 :]
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'


@dataclass
class GalleryInbox:
    """The gallery and the inbox of an event of the dataset."""

    app: Flask
    dataset: Dataset
    state: str = "published"

    @property
    def event(self) -> int:
        """Return the id of the event."""
        return self.dataset.events[self.state]

    @property
    def folder(self) -> Path:
        """Return the directory of the inbox, for files that no storage client would create."""
        root = Path(unquote(urlsplit(self.app.config["STORAGE_URL"]).path))
        return root / "inbox" / self.dataset.identifiers[self.state]

    def add_file(self, name: str, content: bytes) -> None:
        """Store a file in the inbox."""
        current_storage().put(f"inbox/{self.dataset.identifiers[self.state]}/{name}", content, "image/jpeg")

    def enqueue_job(self, owner_id: int | None = None) -> submission.SubmitResult:
        """Submit an import and commit."""
        with open_transaction(is_read=False):
            made = submission.submit_job("import-images", {"event": self.event}, trigger="hook", owner_id=owner_id)
            commit()
        return made

    def execute_job(self, job_id: UUID) -> JobRow:
        """Execute a job like a worker and return its row."""
        with self.app.app_context():
            executor.run_job(job_id, "tests")
        return get_job(self.app, job_id)

    def run_import(self) -> JobRow:
        """Submit and execute a new import."""
        made = self.enqueue_job()
        assert made.is_new
        return self.execute_job(made.job.id)

    def images(self) -> list[dict[str, Any]]:
        """Return the imported images, by name."""
        listed = get_data(self.dataset.owner.get(f"/v1/events/{self.event}/images?sort=name&page[size]=100"))
        return [image for image in listed if image["id"] != str(self.dataset.images[self.state])]

    def image_names(self) -> list[str]:
        """Return the names of the imported images."""
        return [image["attributes"]["name"] for image in self.images()]

    def fetch_image(self, name: str) -> bytes:
        """Download an image without authentication."""
        (url,) = [each["attributes"]["image-url"] for each in self.images() if each["attributes"]["name"] == name]
        served = self.app.test_client().get(urlsplit(url).path)
        assert served.status_code == 200
        return served.data

    def list_warnings(self, job: JobRow) -> list[str]:
        """Return the warnings of a job."""
        return [event.message for event in list_job_rows(self.app, JobEvent, job.id) if event.level == "warning"]


@pytest.fixture
def app_context(app: Flask) -> Iterator[Flask]:
    """Enter the context of the app."""
    with app.app_context():
        yield app


@pytest.fixture
def gallery(app_context: Flask, dataset: Dataset) -> GalleryInbox:
    """Return the gallery of a published event with an empty inbox."""
    return GalleryInbox(app_context, dataset)


@pytest.fixture
def no_storage(app_context: Flask, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that makes the storage unavailable: a bucket at a closed port."""
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_REGION": "nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    return lambda: monkeypatch.setitem(
        app_context.extensions, "storage", Storage("s3://gone", "https://events.example.com")
    )


def get_counts(job: JobRow) -> tuple[int, int, int]:
    """Return the numbers of imported, known and refused images."""
    assert job.state == "succeeded", job.error
    result = job.result or {}
    return result["imported"], result["known"], result["refused-count"]


# What comes into the gallery


def test_the_images_of_the_inbox_come_into_the_gallery(gallery: GalleryInbox) -> None:
    gallery.add_file("a b ä.jpg", RED_JPEG)
    gallery.add_file("day 1/blue.png", BLUE_PNG)
    gallery.add_file("green.webp", encode_image(make_plain_image(40, 20, (0, 255, 0)), "webp", keep="none"))

    job = gallery.run_import()

    assert job.result == {"imported": 3, "known": 0, "refused-count": 0, "refused": [], "left": 0}
    assert gallery.image_names() == ["a b ä.jpg", "day 1/blue.png", "green.webp"]
    shown = [image["attributes"] for image in gallery.images()]
    assert [each["media-type"] for each in shown] == ["image/jpeg", "image/png", "image/webp"]
    assert {(each["width"], each["height"]) for each in shown} == {(40, 20)}
    for each in shown:
        assert len(gallery.fetch_image(each["name"])) == each["size"]
        assert each["sha256"] in each["image-url"]
    assert [stored.name.rpartition("/")[2] for stored in inbox.list_files(gallery.folder.name)] == [
        "a b ä.jpg",
        "blue.png",
        "green.webp",
    ]


def test_import_decomposed_file_name_is_shown_composed(gallery: GalleryInbox) -> None:
    gallery.add_file("Saal a\u0308.jpg", RED_JPEG)

    assert get_counts(gallery.run_import()) == (1, 0, 0)
    assert gallery.image_names() == ["Saal ä.jpg"]


def test_an_empty_inbox_is_no_mistake(gallery: GalleryInbox) -> None:
    assert get_counts(gallery.run_import()) == (0, 0, 0)


def test_an_image_is_upright_and_says_nothing_of_where_it_was_taken(gallery: GalleryInbox) -> None:
    gallery.add_file("phone.jpg", encode_image(add_metadata(make_flag_image(80, 40), orientation=6), "jpeg") + ZIP)

    gallery.run_import()

    content = gallery.fetch_image("phone.jpg")
    image = pyvips.Image.new_from_buffer(content, "")
    assert (image.width, image.height) == (40, 80)
    assert GPS.encode() not in content
    assert not content.endswith(ZIP)
    assert "exif-data" not in image.get_fields()


def test_a_huge_image_is_made_to_fit(gallery: GalleryInbox) -> None:
    gallery.add_file("wide.png", encode_image(make_plain_image(8192, 100), "png"))

    gallery.run_import()

    (image,) = gallery.images()
    assert (image["attributes"]["width"], image["attributes"]["height"]) == (2560, 32)


# Each once


def test_the_same_data_is_the_same_job_and_new_data_a_new_one(gallery: GalleryInbox) -> None:
    gallery.add_file("red.jpg", RED_JPEG)
    first = gallery.enqueue_job()
    assert gallery.enqueue_job().job.id == first.job.id
    gallery.execute_job(first.job.id)
    again = gallery.enqueue_job()
    assert (again.job.id, again.is_new) == (first.job.id, False)

    gallery.add_file("blue.png", BLUE_PNG)
    second = gallery.enqueue_job()

    assert second.is_new
    assert get_counts(gallery.execute_job(second.job.id)) == (1, 1, 0)
    assert gallery.image_names() == ["blue.png", "red.jpg"]
    (gallery.folder / "blue.png").unlink()
    assert gallery.enqueue_job().job.id == first.job.id  # as it was then, and all of that is in the gallery


def test_a_file_that_is_replaced_is_new_data(gallery: GalleryInbox) -> None:
    gallery.add_file("photo", RED_JPEG)
    gallery.run_import()

    gallery.add_file("photo", BLUE_PNG)

    assert get_counts(gallery.run_import()) == (1, 0, 0)
    assert len(gallery.images()) == 2


def test_one_content_under_two_names_is_one_image(gallery: GalleryInbox) -> None:
    gallery.add_file("a.jpg", RED_JPEG)
    gallery.add_file("b.jpg", RED_JPEG)
    gallery.add_file("c.jpg", RED_JPEG + ZIP)  # another file with the same pixels

    assert get_counts(gallery.run_import()) == (1, 2, 0)
    assert gallery.image_names() == ["a.jpg"]


def test_known_file_is_not_decoded_again(gallery: GalleryInbox, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery.add_file("red.jpg", RED_JPEG)
    gallery.run_import()
    gallery.add_file("blue.png", BLUE_PNG)
    decoded: list[bytes] = []

    def note(content: bytes, *more: Any) -> Any:
        decoded.append(content)
        return make_variants(content, *more)

    monkeypatch.setattr(image_import, "make_variants", note)
    gallery.run_import()

    assert decoded == [BLUE_PNG]


def test_deleted_image_is_not_imported_again(gallery: GalleryInbox) -> None:
    gallery.add_file("red.jpg", RED_JPEG)
    gallery.run_import()
    (image,) = gallery.images()
    gallery.dataset.organizer.delete(image["links"]["self"])

    gallery.add_file("blue.png", BLUE_PNG)
    gallery.add_file("red again.jpg", RED_JPEG + ZIP)

    assert get_counts(gallery.run_import()) == (1, 2, 0)
    assert gallery.image_names() == ["blue.png"]


def test_two_imports_at_once_take_each_image_once(gallery: GalleryInbox) -> None:
    for number in range(6):
        gallery.add_file(f"{number}.png", encode_image(make_plain_image(40, 20, (40 * number, 0, 0)), "png"))
    jobs = [gallery.enqueue_job(owner_id).job for owner_id in (gallery.dataset.owner.id, gallery.dataset.organizer.id)]
    ended: list[JobRow] = []

    threads = [threading.Thread(target=lambda job=job: ended.append(gallery.execute_job(job.id))) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    taken = [get_counts(job) for job in ended]
    assert [sum(each) for each in zip(*taken, strict=True)] == [6, 6, 0]
    assert len(gallery.images()) == 6


def test_two_events_share_a_stored_file_and_nothing_else(gallery: GalleryInbox) -> None:
    other = GalleryInbox(gallery.app, gallery.dataset, "draft")
    for each in (gallery, other):
        each.add_file("red.jpg", RED_JPEG)
        assert get_counts(each.run_import()) == (1, 0, 0)

    urls = {image["attributes"]["image-url"] for each in (gallery, other) for image in each.images()}
    assert len(urls) == 1
    gallery.dataset.owner.delete(gallery.images()[0]["links"]["self"])
    assert other.fetch_image("red.jpg")


# Files that are no images


def test_a_bad_file_is_named_and_ends_nothing(gallery: GalleryInbox) -> None:
    gallery.add_file("a.svg", SVG)
    gallery.add_file("b truncated.jpg", RED_JPEG[:-20])
    gallery.add_file("c bomb.png", make_png(40_000, 40_000))
    gallery.add_file("d empty.jpg", b"")
    gallery.add_file("e notes.txt", b"not for the gallery")
    gallery.add_file("f damaged.png", DAMAGED)
    gallery.add_file("g.jpg", RED_JPEG)
    (gallery.folder / "h huge.jpg").touch()
    with (gallery.folder / "h huge.jpg").open("r+b") as huge:
        huge.truncate(MAX_IMAGE_BYTES + 1)
    deep = gallery.folder / "i/2/3/4/5/6/7/8"
    deep.mkdir(parents=True)
    (deep / "deep.jpg").write_bytes(BLUE_PNG)

    job = gallery.run_import()

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
    assert get_counts(job) == (1, 0, 8)
    assert (job.result or {})["refused"] == [{"name": name, "code": code} for name, code in refused.items()]
    assert [warning.partition(": ")[0] for warning in gallery.list_warnings(job)] == [*refused]
    assert gallery.image_names() == ["g.jpg"]


def test_so_many_bad_files_are_counted_and_only_some_of_them_named(
    gallery: GalleryInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "MAX_REPORTED_FILES", 2)
    for number in range(5):
        gallery.add_file(f"{number}.svg", SVG)

    job = gallery.run_import()

    assert get_counts(job) == (0, 0, 5)
    assert [each["name"] for each in (job.result or {})["refused"]] == ["0.svg", "1.svg"]
    assert len(gallery.list_warnings(job)) == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.jpg", "a.jpg"), ("a\u202eb\x9b1m.jpg", "a?b?1m.jpg"), ("ä" * 200, "ä" * 99 + "…")],
)
def test_a_name_in_a_sentence_is_short_and_moves_no_cursor(name: str, expected: str) -> None:
    assert inbox.printable_name(name) == expected


def test_a_name_that_cannot_even_be_listed_is_told_before_and_while_it_runs(gallery: GalleryInbox) -> None:
    job_id = gallery.enqueue_job().job.id
    gallery.folder.mkdir(parents=True)
    (gallery.folder / "two\nlines.jpg").write_bytes(RED_JPEG)

    with pytest.raises(Unprocessable, match="rename it") as caught:
        gallery.enqueue_job()

    assert caught.value.source == {"pointer": "/data/attributes/parameters/event"}
    job = gallery.execute_job(job_id)
    assert (job.state, (job.error or {})["code"]) == ("failed", "unusable-name")


def test_symbolic_links_are_not_followed_and_end_nothing(gallery: GalleryInbox, tmp_path: Path) -> None:
    gallery.add_file("a.jpg", RED_JPEG)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.png").write_bytes(BLUE_PNG)
    links = {"link.png": "secret.png", "dead.png": "none.png", "folder": "."}
    for name, target in links.items():
        (gallery.folder / name).symlink_to(tmp_path / "outside" / target)
    (gallery.folder / "loop").symlink_to(".")
    os.mkfifo(gallery.folder / "pipe.png")

    job = gallery.run_import()

    assert (job.state, get_counts(job)) == ("succeeded", (1, 0, 0))
    assert gallery.image_names() == ["a.jpg"]


def test_inbox_that_is_a_symbolic_link_is_empty(gallery: GalleryInbox, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(BLUE_PNG)
    gallery.folder.parent.mkdir(parents=True, exist_ok=True)
    gallery.folder.symlink_to(tmp_path)

    assert get_counts(gallery.run_import()) == (0, 0, 0)


def test_file_that_a_link_replaces_after_listing_is_not_read(
    gallery: GalleryInbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gallery.add_file("a.png", BLUE_PNG)
    (tmp_path / "secret.png").write_bytes(BLUE_PNG)
    job_id = gallery.enqueue_job().job.id

    def replace() -> None:
        (gallery.folder / "a.png").unlink()
        (gallery.folder / "a.png").symlink_to(tmp_path / "secret.png")

    with monkeypatch.context() as meanwhile:
        _run_after_listing(meanwhile, replace)
        job = gallery.execute_job(job_id)

    assert (job.state, (job.error or {})["code"]) == ("failed", "unreadable-files")
    assert gallery.images() == []


# What goes away


@pytest.mark.parametrize("state", ["trashed", "nothing"])
def test_there_is_no_import_for_an_event_that_is_not_there(gallery: GalleryInbox, state: str) -> None:
    gallery.dataset.events["nothing"] = 2**63 - 1
    gallery.state = state

    with pytest.raises(NotFound) as caught:
        gallery.enqueue_job()

    assert caught.value.source == {"pointer": "/data/attributes/parameters/event"}
    assert gallery.dataset.count_rows(Job) == 0


@pytest.mark.parametrize("event", [0, 2**63, -1, 1.5, "01", None, True])
def test_an_event_that_cannot_be_is_refused_with_its_place(app_context: Flask, event: object) -> None:
    with pytest.raises(ApiErrorGroup) as caught, open_transaction(is_read=False):
        submission.submit_job("import-images", {"event": event}, trigger="hook", owner_id=None)

    assert [error.source for error in caught.value.errors] == [{"pointer": "/data/attributes/parameters/event"}]


def test_an_event_that_is_trashed_meanwhile_gets_no_images(gallery: GalleryInbox) -> None:
    gallery.add_file("red.jpg", RED_JPEG)
    job_id = gallery.enqueue_job().job.id
    gallery.dataset.owner.delete(f"/v1/events/{gallery.event}")

    job = gallery.execute_job(job_id)

    assert (job.state, (job.error or {})["code"]) == ("failed", "gone")


def test_a_storage_that_does_not_answer_is_503_and_nothing_is_stored(
    gallery: GalleryInbox, no_storage: Callable[[], None]
) -> None:
    no_storage()

    with pytest.raises(Unavailable) as caught:
        gallery.enqueue_job()

    assert "Retry-After" in caught.value.headers
    assert gallery.dataset.count_rows(Job) == 0


def test_a_storage_that_goes_away_ends_the_job_which_can_be_asked_for_again(
    gallery: GalleryInbox, no_storage: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        gallery.add_file(f"{number}.jpg", RED_JPEG)
    job_id = gallery.enqueue_job().job.id
    with monkeypatch.context() as meanwhile:
        _run_after_listing(meanwhile, no_storage)
        job = gallery.execute_job(job_id)

    assert (job.state, (job.error or {})["code"]) == ("failed", "storage-unavailable")
    assert len(gallery.list_warnings(job)) == tasks.MAX_CONSECUTIVE_READ_ERRORS - 1


@pytest.mark.parametrize("what", ["gone", "replaced"])
def test_a_file_that_changes_meanwhile_is_for_the_next_import(
    gallery: GalleryInbox, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    gallery.add_file("a.jpg", RED_JPEG)
    gallery.add_file("b.png", BLUE_PNG)
    job_id = gallery.enqueue_job().job.id

    def change() -> None:
        (gallery.folder / "a.jpg").unlink()
        if what == "replaced":
            gallery.add_file("a.jpg", encode_image(make_plain_image(40, 20, (0, 255, 0)), "jpeg"))

    with monkeypatch.context() as meanwhile:
        _run_after_listing(meanwhile, change)
        job = gallery.execute_job(job_id)

    assert (job.state, (job.error or {})["code"]) == ("failed", "unreadable-files")
    assert "a.jpg" in (job.error or {})["detail"]
    assert gallery.image_names() == ["b.png"]
    assert get_counts(gallery.run_import()) == (int(what == "replaced"), 1, 0)


def _run_after_listing(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    files = inbox.list_files

    def list_and_run(identifier: str) -> Any:
        found = files(identifier)
        happens()
        return found

    monkeypatch.setattr(inbox, "list_files", list_and_run)


# How far it goes


def test_more_than_one_run_takes_is_for_the_next_ones(gallery: GalleryInbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MAX_IMAGES_PER_RUN", 2)
    for number in range(5):
        gallery.add_file(f"{number}.png", encode_image(make_plain_image(40, 20, (50 * number, 0, 0)), "png"))

    runs = [gallery.run_import() for _ in range(4)]

    assert [get_counts(job)[:2] for job in runs] == [(2, 0), (2, 2), (1, 4), (0, 5)]
    assert [(job.result or {})["left"] for job in runs] == [3, 1, 0, 0]
    assert gallery.list_warnings(runs[0]) == ["2 images were imported, 3 files are left: import again."]
    assert gallery.enqueue_job().job.id == runs[3].id


def test_an_import_says_which_file_it_is_at(gallery: GalleryInbox) -> None:
    gallery.add_file("red.jpg", RED_JPEG)

    job = gallery.run_import()

    progress = [(entry.fraction, entry.message) for entry in list_job_rows(gallery.app, JobEvent, job.id)]
    assert (0.0, "1 of 1: red.jpg") in progress
    assert job.progress == 1


def test_a_canceled_import_ends_between_two_files(
    gallery: GalleryInbox, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any]
) -> None:
    monkeypatch.setitem(gallery.app.config, "JOB_LEASE_SECONDS", 1)
    for number in range(20):
        gallery.add_file(f"{number:02}.png", encode_image(make_plain_image(40, 20, (number, 0, 0)), "png"))
    job_id = gallery.enqueue_job().job.id
    thread = threading.Thread(target=gallery.execute_job, args=(job_id,))
    thread.start()
    wait_until(gallery.image_names)

    with open_transaction(is_read=False):
        lifecycle.cancel_job(job_id)
        commit()
    thread.join()

    taken = len(gallery.images())
    assert (get_job(gallery.app, job_id).state, taken < 20) == ("canceled", True)
    assert get_counts(gallery.run_import()) == (20 - taken, taken, 0)
