"""The archive of an event: what is in the zip, and who gets one."""

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
from app.jobs import running
from app.jsonapi.resource_type import TYPES
from app.storage import current_storage
from tests.world import SOON, Caller, World, data, pointers

PICTURE = b"\xff\xd8\xff the bytes of a picture"


def order(caller: Caller, event: Any) -> TestResponse:
    """Ask for an archive."""
    return caller.send("POST", f"/v1/events/{event}/archive")


def made(world: World, caller: Caller, job: Any) -> zipfile.ZipFile:
    """What a worker makes of it, fetched as the caller would."""
    with world.app.app_context():
        running.run(UUID(job["id"]), "tests")
    (artifact,) = data(caller.get(f"/v1/jobs/{job['id']}/artifacts"))
    assert artifact["attributes"]["media-type"] == "application/zip"
    path = artifact["attributes"]["url"].removeprefix(world.app.config["PUBLIC_URL"])
    return zipfile.ZipFile(io.BytesIO(caller.get(path).data))


@pytest.fixture
def pictured(world: World) -> int:
    """An event with a picture in our storage, and one that is not there any more."""
    with world.app.app_context():
        name = current_storage().put_by_content("images", PICTURE, "jpg", "image/jpeg")
        urls = {
            "large_image_url": current_storage().url(name),
            "icon_image_url": current_storage().url("images/no.jpg"),
        }
        db.session.execute(update(Event).where(Event.id == world.events["published"]).values(**urls))
        db.session.commit()
    return world.events["published"]


def test_an_archive_holds_the_event_its_faqs_its_calendar_and_its_images(world: World, pictured: int) -> None:
    job = data(order(world.coorganizer, pictured))

    archive = made(world, world.coorganizer, job)

    assert sorted(archive.namelist()) == sorted(
        [
            "calendar.ics",
            "event.json",
            *(f"{TYPES[name].plural}.json" for name in world.belongings),
            "images/large-image.jpg",
        ]
    )
    assert json.loads(archive.read("event.json"))["data"]["attributes"]["name"] == "published event"
    (faq,) = json.loads(archive.read("faqs.json"))["data"]
    assert faq["attributes"]["question"] == "published question"
    (type_,) = json.loads(archive.read("faq-types.json"))["data"]
    assert type_["id"] == str(world.types["published"])
    calendar = archive.read("calendar.ics")
    assert calendar.startswith(b"BEGIN:VCALENDAR")
    assert f"DTSTART:{SOON:%Y%m%dT%H%M%SZ}\r\n".encode() in calendar
    assert archive.read("images/large-image.jpg") == PICTURE
    done = data(world.coorganizer.get(f"/v1/jobs/{job['id']}"))
    assert done["attributes"]["result"]["images"] == 1
    assert done["relationships"]["event"]["data"]["id"] == str(pictured)
    levels = [each["attributes"]["level"] for each in data(world.coorganizer.get(f"/v1/jobs/{job['id']}/events"))]
    assert "warning" in levels


def test_what_lies_in_the_trash_stays_there(world: World) -> None:
    world.owner.delete(f"/v1/faqs/{world.faqs['draft']}")

    archive = made(world, world.owner, data(order(world.owner, world.events["draft"])))

    assert json.loads(archive.read("faqs.json"))["data"] == []
    assert len(json.loads(archive.read("faq-types.json"))["data"]) == 1


def test_asked_for_twice_it_is_one_job(world: World) -> None:
    jobs = [data(order(world.owner, world.identifiers["private"])) for _ in range(2)]

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
def test_the_team_alone_gets_an_archive(world: World, caller: str, event: str, status: int) -> None:
    who = getattr(world, caller)

    assert order(who, world.events[event]).status_code == status
    parameters = {"kind": "event-archive", "parameters": {"event": world.events[event]}}
    assert who.create("/v1/jobs", "job", parameters).status_code == status


@pytest.mark.parametrize("event", ["abc", 0, -1, 1.5, 2**63, None, [1]])
def test_an_event_that_cannot_be_is_refused(world: World, event: Any) -> None:
    response = world.admin.create("/v1/jobs", "job", {"kind": "event-archive", "parameters": {"event": event}})

    assert response.status_code == 422
    assert pointers(response) == {"/data/attributes/parameters/event"}


def test_who_has_left_the_team_gets_nothing_of_what_he_asked_for_before(world: World) -> None:
    job = data(order(world.coorganizer, world.events["draft"]))
    team = f"/v1/events/{world.events['draft']}/relationships/coorganizers"
    left = world.owner.send("DELETE", team, {"data": [{"type": "user", "id": str(world.coorganizer.id)}]})
    assert left.status_code == 200

    with world.app.app_context():
        running.run(UUID(job["id"]), "tests")

    attributes = data(world.coorganizer.get(f"/v1/jobs/{job['id']}"))["attributes"]
    assert (attributes["state"], attributes["error"]["code"]) == ("failed", "forbidden")
    assert data(world.coorganizer.get(f"/v1/jobs/{job['id']}/artifacts")) == []


def test_an_event_deleted_meanwhile_ends_the_job(world: World) -> None:
    job = data(order(world.owner, world.events["draft"]))
    world.owner.delete(f"/v1/events/{world.events['draft']}")

    with world.app.app_context():
        running.run(UUID(job["id"]), "tests")

    error = data(world.owner.get(f"/v1/jobs/{job['id']}"))["attributes"]["error"]
    assert error == {"code": "gone", "detail": "The event has been deleted."}
