"""Archive of an event: content of the zip file, and permissions."""

import io
import json
import zipfile
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update
from werkzeug.test import TestResponse

from app.events.models import Event
from app.extensions import db
from app.jobs import executor
from app.jsonapi.resource_type import TYPES
from app.storage import current_storage
from tests.dataset import NEXT_MONTH, ApiClient, Dataset, get_data, get_pointers

PICTURE = b"\xff\xd8\xff the bytes of a picture"


def request_archive(caller: ApiClient, event: Any) -> TestResponse:
    """Request an archive and return the response."""
    return caller.send("POST", f"/v1/events/{event}/archive")


def fetch_archive(dataset: Dataset, caller: ApiClient, job: Any) -> zipfile.ZipFile:
    """Execute the job and download the archive as the caller."""
    with dataset.app.app_context():
        executor.run_job(UUID(job["id"]), "tests")
    (artifact,) = get_data(caller.get(f"/v1/jobs/{job['id']}/artifacts"))
    assert artifact["attributes"]["media-type"] == "application/zip"
    path = artifact["attributes"]["url"].removeprefix(dataset.app.config["PUBLIC_URL"])
    return zipfile.ZipFile(io.BytesIO(caller.get(path).data))


@pytest.fixture
def event_with_image(dataset: Dataset) -> int:
    """Return the id of an event with an image in storage and one that is missing there."""
    with dataset.app.app_context():
        name = current_storage().put_content_addressed("images", PICTURE, "jpg", "image/jpeg")
        urls = {
            "large_image_url": current_storage().get_url(name),
            "icon_image_url": current_storage().get_url("images/no.jpg"),
        }
        db.session.execute(update(Event).where(Event.id == dataset.events["published"]).values(**urls))
        db.session.commit()
    return dataset.events["published"]


def test_an_archive_holds_the_event_its_faqs_its_calendar_and_its_images(
    dataset: Dataset, event_with_image: int
) -> None:
    job = get_data(request_archive(dataset.coorganizer, event_with_image))

    archive = fetch_archive(dataset, dataset.coorganizer, job)

    assert sorted(archive.namelist()) == sorted(
        [
            "calendar.ics",
            "event.json",
            *(f"{TYPES[name].plural}.json" for name in dataset.belongings),
            "images/large-image.jpg",
        ]
    )
    assert json.loads(archive.read("event.json"))["data"]["attributes"]["name"] == "published event"
    (faq,) = json.loads(archive.read("faqs.json"))["data"]
    assert faq["attributes"]["question"] == "published question"
    (type_,) = json.loads(archive.read("faq-types.json"))["data"]
    assert type_["id"] == str(dataset.types["published"])
    calendar = archive.read("calendar.ics")
    assert calendar.startswith(b"BEGIN:VCALENDAR")
    assert f"DTSTART:{NEXT_MONTH:%Y%m%dT%H%M%SZ}\r\n".encode() in calendar
    assert archive.read("images/large-image.jpg") == PICTURE
    done = get_data(dataset.coorganizer.get(f"/v1/jobs/{job['id']}"))
    assert done["attributes"]["result"]["images"] == 1
    assert done["relationships"]["event"]["data"]["id"] == str(event_with_image)
    levels = [each["attributes"]["level"] for each in get_data(dataset.coorganizer.get(f"/v1/jobs/{job['id']}/events"))]
    assert "warning" in levels


def test_archive_omits_trashed_resources(dataset: Dataset) -> None:
    dataset.owner.delete(f"/v1/faqs/{dataset.faqs['draft']}")

    archive = fetch_archive(dataset, dataset.owner, get_data(request_archive(dataset.owner, dataset.events["draft"])))

    assert json.loads(archive.read("faqs.json"))["data"] == []
    assert len(json.loads(archive.read("faq-types.json"))["data"]) == 1


def test_asked_for_twice_it_is_one_job(dataset: Dataset) -> None:
    jobs = [get_data(request_archive(dataset.owner, dataset.identifiers["private"])) for _ in range(2)]

    assert jobs[0]["id"] == jobs[1]["id"]


@pytest.mark.parametrize(
    ("caller", "event", "status"),
    [
        ("anonymous", "published", 401),
        ("anonymous", "draft", 401),
        ("stranger", "published", 403),
        ("stranger", "draft", 404),
        ("stranger", "private", 404),
        ("owner", "trashed", 404),
        ("owner", "others", 403),
        ("organizer", "draft", 202),
        ("admin", "others", 202),
    ],
)
def test_the_team_alone_gets_an_archive(dataset: Dataset, caller: str, event: str, status: int) -> None:
    who = getattr(dataset, caller)

    assert request_archive(who, dataset.events[event]).status_code == status
    parameters = {"kind": "event-archive", "parameters": {"event": dataset.events[event]}}
    assert who.create("/v1/jobs", "job", parameters).status_code == status


@pytest.mark.parametrize("event", ["abc", 0, -1, 1.5, 2**63, None, [1]])
def test_an_event_that_cannot_be_is_refused(dataset: Dataset, event: Any) -> None:
    response = dataset.admin.create("/v1/jobs", "job", {"kind": "event-archive", "parameters": {"event": event}})

    assert response.status_code == 422
    assert get_pointers(response) == {"/data/attributes/parameters/event"}


def test_who_has_left_the_team_gets_nothing_of_what_he_asked_for_before(dataset: Dataset) -> None:
    job = get_data(request_archive(dataset.coorganizer, dataset.events["draft"]))
    team = f"/v1/events/{dataset.events['draft']}/relationships/coorganizers"
    left = dataset.owner.send("DELETE", team, {"data": [{"type": "user", "id": str(dataset.coorganizer.id)}]})
    assert left.status_code == 200

    with dataset.app.app_context():
        executor.run_job(UUID(job["id"]), "tests")

    attributes = get_data(dataset.coorganizer.get(f"/v1/jobs/{job['id']}"))["attributes"]
    assert (attributes["state"], attributes["error"]["code"]) == ("failed", "forbidden")
    assert get_data(dataset.coorganizer.get(f"/v1/jobs/{job['id']}/artifacts")) == []


def test_an_event_deleted_meanwhile_ends_the_job(dataset: Dataset) -> None:
    job = get_data(request_archive(dataset.owner, dataset.events["draft"]))
    dataset.owner.delete(f"/v1/events/{dataset.events['draft']}")

    with dataset.app.app_context():
        executor.run_job(UUID(job["id"]), "tests")

    error = get_data(dataset.owner.get(f"/v1/jobs/{job['id']}"))["attributes"]["error"]
    assert error == {"code": "gone", "detail": "The event has been deleted."}
