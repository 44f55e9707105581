"""The images of an event: who sees them, who deletes them, and that nobody writes them."""

import pytest
from flask import Flask

from app.storage import Storage, current_storage
from tests.background import follow
from tests.images.background import files
from tests.world import ROLES, World, data, errors, ids, linkage, pointers

SEEN = {
    "published": {*ROLES},
    "draft": {*ROLES[2:]},
    "private": {*ROLES[2:]},
    "trashed": set[str](),
}
"""Who sees the images of an event in this state."""


def restoring(image: int) -> dict[str, object]:
    """A document that takes an image out of the trash."""
    return {"data": {"type": "event-image", "id": str(image), "attributes": {"deleted-at": None}}}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("state", SEEN)
def test_images_are_seen_with_their_event_on_every_way_in(world: World, state: str, role: str) -> None:
    image, event, caller = world.images[state], world.events[state], world.callers[role]
    expected = role in SEEN[state]

    for path in (
        f"/v1/event-images/{image}",
        f"/v1/event-images/{image}/event",
        f"/v1/event-images/{image}/relationships/event",
        f"/v1/events/{event}/images",
        f"/v1/events/{event}/relationships/images",
    ):
        assert caller.get(path).status_code == (200 if expected else 404), path
    assert (image in ids(caller.get("/v1/event-images"))) is expected
    assert (image in ids(caller.get(f"/v1/event-images?filter[event]={event}"))) is expected


def test_the_images_of_a_private_event_open_by_its_identifier(world: World) -> None:
    path, image = f"/v1/events/{world.identifiers['private']}", world.images["private"]

    assert ids(world.anonymous.get(f"{path}/images")) == [image]
    included = world.anonymous.get(f"{path}?include=images").get_json(force=True)["included"]
    assert [(item["type"], item["id"]) for item in included] == [("event-image", str(image))]
    assert world.anonymous.get(f"/v1/event-images/{image}").status_code == 404


def test_an_image_says_what_it_is_and_where_it_can_be_fetched(world: World) -> None:
    image = data(world.anonymous.get(f"/v1/event-images/{world.images['published']}"))

    digest = image["attributes"]["sha256"]
    assert image["attributes"].pop("created-at")
    assert image["attributes"] == {
        "name": "published.jpg",
        "image-url": f"{world.app.config['PUBLIC_URL']}/files/images/{digest}.jpg",
        "media-type": "image/jpeg",
        "width": 80,
        "height": 40,
        "size": 1000,
        "sha256": digest,
        "deleted-at": None,
    }
    assert image["relationships"]["event"]["data"] == linkage("event", world.events["published"])


def test_only_the_address_is_asked_for(world: World) -> None:
    path = f"/v1/event-images/{world.images['published']}?fields[event-image]=image-url"

    assert list(data(world.anonymous.get(path))["attributes"]) == ["image-url"]


@pytest.mark.parametrize("role", ROLES)
def test_the_team_deletes_an_image(world: World, role: str) -> None:
    path, event = f"/v1/event-images/{world.images['published']}", world.events["published"]
    expected = {"anonymous": 401, "stranger": 403}.get(role, 200)

    assert world.callers[role].delete(path).status_code == expected

    left = 404 if expected == 200 else 200
    assert world.owner.get(path).status_code == left
    assert len(ids(world.anonymous.get(f"/v1/events/{event}/images"))) == (left == 200)


@pytest.mark.parametrize(("role", "status"), [("owner", 403), ("stranger", 403), ("anonymous", 401), ("admin", 200)])
def test_admins_take_an_image_out_of_the_trash(world: World, storage: Storage, role: str, status: int) -> None:
    image = world.images["published"]
    path = f"/v1/event-images/{image}"
    storage.put(storage.name(data(world.owner.get(path))["attributes"]["image-url"]), b"image", "image/jpeg")
    world.owner.delete(path)

    restored = world.callers[role].send("PATCH", f"{path}?get_trashed=true", restoring(image))

    assert restored.status_code == status
    assert world.owner.get(path).status_code == (200 if status == 200 else 404)


def test_the_file_of_a_deleted_image_is_deleted_and_the_image_cannot_be_restored(
    app: Flask, world: World, storage: Storage
) -> None:
    image = world.images["published"]
    path = f"/v1/event-images/{image}"
    storage.put(storage.name(data(world.owner.get(path))["attributes"]["image-url"]), b"image", "image/jpeg")

    world.owner.delete(path)
    follow(app)

    assert files(storage) == []
    refused = world.admin.send("PATCH", f"{path}?get_trashed=true", restoring(image))
    assert (refused.status_code, errors(refused)[0]["code"]) == (409, "file-deleted")


@pytest.mark.parametrize("role", ["owner", "admin"])
@pytest.mark.parametrize("name", ["name", "image-url", "media-type", "width", "height", "size", "sha256", "created-at"])
def test_an_attribute_is_read_only(world: World, role: str, name: str) -> None:
    path = f"/v1/event-images/{world.images['published']}"
    before = data(world.owner.get(path))

    refused = world.callers[role].update(path, "event-image", {name: "2"})

    assert (refused.status_code, pointers(refused)) == (403, {f"/data/attributes/{name}"})
    assert data(world.owner.get(path)) == before


def test_an_image_sent_back_unchanged_is_taken(world: World) -> None:
    path = f"/v1/event-images/{world.images['published']}"

    sent = world.coorganizer.send("PATCH", path, {"data": data(world.coorganizer.get(path))})

    assert sent.status_code == 200


def test_what_is_not_an_attribute_is_no_attribute(world: World) -> None:
    path = f"/v1/event-images/{world.images['published']}"

    for name in ("stored-as", "source-sha256", "source_sha256"):
        assert name not in world.admin.get(path).text
        assert world.admin.update(path, "event-image", {name: "x"}).status_code == 422
        assert world.admin.get(f"/v1/event-images?filter[{name}]=x").status_code == 400


@pytest.mark.parametrize("role", ["anonymous", "owner", "admin"])
def test_nobody_posts_an_image(world: World, role: str) -> None:
    caller, event = world.callers[role], world.events["published"]

    posted = caller.create("/v1/event-images", "event-image", {"name": "x.jpg"}, event=event)
    added = caller.send(
        "POST",
        "/v1/operations",
        {"atomic:operations": [{"op": "add", "data": {"type": "event-image"}}]},
        Content_Type='application/vnd.api+json; ext="https://jsonapi.org/ext/atomic"',
    )

    assert posted.status_code == 405
    assert {*posted.headers["Allow"].split(", ")} == {"GET", "HEAD", "OPTIONS"}
    assert added.status_code == (401 if role == "anonymous" else 403)
    assert len(ids(world.admin.get("/v1/event-images?get_trashed=true"))) == len(world.images)


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_the_images_of_an_event_are_not_changed_from_its_side(world: World, method: str) -> None:
    event = world.events["published"]
    foreign = {"data": [linkage("event-image", world.images["draft"])]}

    related = world.owner.send(method, f"/v1/events/{event}/relationships/images", foreign)
    patched = world.owner.update(f"/v1/events/{event}", "event", None, images=[world.images["draft"]])

    assert (related.status_code, patched.status_code) == (403, 403)
    assert pointers(patched) == {"/data/relationships/images"}
    assert ids(world.owner.get(f"/v1/events/{event}/images")) == [world.images["published"]]


def test_an_image_stays_with_its_event(world: World) -> None:
    path, event = f"/v1/event-images/{world.images['published']}", world.events["draft"]
    elsewhere = {"data": linkage("event", event)}

    related = world.owner.send("PATCH", f"{path}/relationships/event", elsewhere)
    patched = world.owner.update(path, "event-image", None, event=event)

    assert (related.status_code, patched.status_code) == (403, 403)
    assert pointers(patched) == {"/data/relationships/event"}


def test_an_event_is_read_with_its_images(world: World) -> None:
    image = world.images["published"]

    document = world.anonymous.get(f"/v1/events/{world.events['published']}?include=images").get_json(force=True)

    assert document["data"]["relationships"]["images"]["data"] == [linkage("event-image", image)]
    assert [item["id"] for item in document["included"]] == [str(image)]
    world.owner.delete(f"/v1/event-images/{image}")
    document = world.anonymous.get(f"/v1/events/{world.events['published']}?include=images").get_json(force=True)
    assert document["included"] == []


def test_images_are_filtered_and_sorted_by_what_they_show(world: World) -> None:
    everything = [world.images[name] for name in ("published", "draft", "private", "others")]
    path = "/v1/event-images"

    assert ids(world.admin.get(path)) == sorted(everything)
    assert ids(world.admin.get(f"{path}?filter[name]=draft.jpg")) == [world.images["draft"]]
    assert ids(world.admin.get(f"{path}?filter[width][gt]=80")) == []
    assert set(ids(world.admin.get(f"{path}?filter[media-type]=image/jpeg"))) == set(everything)
    by_name = [world.images[name] for name in ("published", "private", "others", "draft")]
    assert ids(world.admin.get(f"{path}?sort=-name")) == by_name
    assert ids(world.admin.get(f"{path}?sort=event.name")) == by_name[::-1]


@pytest.mark.parametrize("query", ["sort=image-url", "filter[image-url]=x", "filter[image_url][like]=x%25"])
def test_an_address_is_nothing_to_search_by(world: World, query: str) -> None:
    refused = world.admin.get(f"/v1/event-images?{query}")

    assert refused.status_code == 400
    assert errors(refused)[0]["source"]["parameter"] == query.partition("=")[0]


def test_the_address_is_the_present_one(app: Flask, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with app.app_context():
        monkeypatch.setattr(current_storage(), "public_url", "https://elsewhere.example.com")

    image = data(world.anonymous.get(f"/v1/event-images/{world.images['published']}"))

    assert image["attributes"]["image-url"].startswith("https://elsewhere.example.com/files/images/")
