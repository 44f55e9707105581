"""ETag, If-None-Match and If-Match: what was read is not sent twice, what has changed is not overwritten."""

import pytest

from tests.world import World, data, errors


def test_what_has_not_changed_is_304(world: World) -> None:
    for path in ("/v1/events", f"/v1/events/{world.events['published']}?include=faqs", "/v1/faqs?sort=-id"):
        first = world.owner.get(path)
        again = world.owner.get(path, If_None_Match=first.headers["ETag"])
        assert (again.status_code, again.data) == (304, b"")
        assert world.owner.send("HEAD", path).headers["ETag"] == first.headers["ETag"]


def test_a_tag_differs_by_what_the_caller_sees(world: World) -> None:
    assert world.owner.get("/v1/events").headers["ETag"] != world.anonymous.get("/v1/events").headers["ETag"]


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_resource_that_changed_meanwhile_is_not_overwritten(world: World, method: str) -> None:
    path = f"/v1/events/{world.events['published']}"
    tag = world.owner.get(path).headers["ETag"]
    world.organizer.update(path, "event", {"name": "Meanwhile"})
    document = {"data": {"type": "event", "id": path.rpartition("/")[2], "attributes": {"name": "Mine"}}}

    refused = world.owner.send(method, path, document if method == "PATCH" else None, If_Match=tag)

    assert refused.status_code == 412
    assert data(world.owner.get(path))["attributes"]["name"] == "Meanwhile"
    fresh = world.owner.get(path).headers["ETag"]
    assert world.owner.send(method, path, document if method == "PATCH" else None, If_Match=fresh).status_code == 200


def test_the_answer_of_a_patch_carries_the_next_tag(world: World) -> None:
    path = f"/v1/events/{world.events['published']}"

    changed = world.owner.update(path, "event", {"name": "New"})

    assert changed.headers["ETag"] == world.owner.get(path).headers["ETag"]


def test_a_relationship_that_changed_meanwhile_is_not_overwritten(world: World) -> None:
    path = f"/v1/events/{world.events['published']}/relationships/organizers"
    tag = world.owner.get(path).headers["ETag"]
    none: dict[str, list[str]] = {"data": []}

    assert world.owner.send("PATCH", path, none, If_Match=tag).status_code == 200
    assert world.owner.send("PATCH", path, none, If_Match=tag).status_code == 412


def test_any_state_will_do(world: World) -> None:
    path = f"/v1/events/{world.events['published']}"

    assert world.owner.send("DELETE", path, If_Match="*").status_code == 200


@pytest.mark.parametrize("headers", [{"If_Match": ","}, {"If_Match": ""}, {"If_None_Match": "*"}])
def test_a_condition_that_nothing_meets_refuses_the_write(world: World, headers: dict[str, str]) -> None:
    path = f"/v1/events/{world.events['published']}"
    document = {"data": {"type": "event", "id": path.rpartition("/")[2], "attributes": {"name": "Mine"}}}

    assert world.owner.send("PATCH", path, document, **headers).status_code == 412
    assert world.owner.send("PATCH", path, document, If_None_Match='"other"').status_code == 200


def test_what_is_in_the_trash_has_a_tag_to_bring_it_back_by(world: World) -> None:
    path = f"/v1/faqs/{world.faqs['published']}"
    assert world.owner.delete(path).status_code == 200
    tag = world.admin.get(f"{path}?get_trashed=true").headers["ETag"]
    document = {"data": {"type": "faq", "id": path.rpartition("/")[2], "attributes": {"deleted-at": None}}}

    assert world.admin.send("PATCH", f"{path}?get_trashed=true", document, If_Match='"other"').status_code == 412
    assert world.admin.send("PATCH", f"{path}?get_trashed=true", document, If_Match=tag).status_code == 200


def weak(tag: str) -> str:
    """The tag as a proxy that compresses the answer sends it on."""
    return f"W/{tag}"


@pytest.mark.parametrize(
    "form", ["{weak}", '"other", {weak}', '{weak}, W/"other"', "{strong}", '"other" , {strong}', "*"]
)
def test_if_match_weak_and_listed_tags_are_the_current_version(world: World, form: str) -> None:
    path = f"/v1/events/{world.events['published']}"
    strong = world.owner.get(path).headers["ETag"]
    asked = form.format(strong=strong, weak=weak(strong))
    document = {"data": {"type": "event", "id": path.rpartition("/")[2], "attributes": {"name": "Mine"}}}

    assert world.owner.get(path, If_Match=asked).status_code == 200
    assert world.owner.send("HEAD", path, If_Match=asked).status_code == 200
    assert world.owner.get(path, If_None_Match=asked).status_code == 304
    assert world.owner.send("PATCH", path, document, If_None_Match=asked).status_code == 412
    assert world.owner.send("PATCH", path, document, If_Match=asked).status_code == 200
    if asked != "*":
        assert world.owner.send("PATCH", path, document, If_Match=asked).status_code == 412
        assert world.owner.send("DELETE", path, If_Match=asked).status_code == 412
        assert world.owner.get(path, If_None_Match=asked).status_code == 200


@pytest.mark.parametrize("path", ["/openapi.json", "/v1/job-kinds", "/v1/events"])
def test_if_match_on_reads_the_weak_tag_is_the_current_version(world: World, path: str) -> None:
    strong = world.owner.get(path).headers["ETag"]

    assert world.owner.get(path, If_Match=weak(strong)).status_code == 200
    assert world.owner.get(path, If_None_Match=weak(strong)).status_code == 304
    assert world.owner.get(path, If_Match='W/"other"').status_code == 412


def test_if_match_on_a_relationship_the_weak_tag_is_the_current_version(world: World) -> None:
    path = f"/v1/events/{world.events['published']}/relationships/organizers"
    tag = weak(world.owner.get(path).headers["ETag"])
    none: dict[str, list[str]] = {"data": []}

    assert world.owner.send("PATCH", path, none, If_Match=tag).status_code == 200
    assert world.owner.send("PATCH", path, none, If_Match=tag).status_code == 412


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_refused_condition_says_which_header_does_not_hold(world: World, method: str) -> None:
    path = f"/v1/events/{world.events['published']}"
    document = {"data": {"type": "event", "id": path.rpartition("/")[2], "attributes": {"name": "Mine"}}}
    sent = document if method == "PATCH" else None

    (error,) = errors(world.owner.send(method, path, sent, If_Match='"other"'))

    assert error["detail"] == "If-Match does not match the current version of this resource."
    assert error["source"] == {"header": "If-Match"}
    if method != "GET":
        (error,) = errors(world.owner.send(method, path, sent, If_None_Match="*"))
        assert error["detail"] == "If-None-Match matches the current version of this resource."
        assert error["source"] == {"header": "If-None-Match"}
