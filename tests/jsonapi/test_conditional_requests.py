"""ETag, If-None-Match and If-Match: unchanged documents are not sent again, changed ones are not overwritten."""

import pytest

from tests.dataset import Dataset, get_data, get_errors


def test_if_none_match_with_current_tag_is_304(dataset: Dataset) -> None:
    for path in ("/v1/events", f"/v1/events/{dataset.events['published']}?include=faqs", "/v1/faqs?sort=-id"):
        first = dataset.owner.get(path)
        again = dataset.owner.get(path, If_None_Match=first.headers["ETag"])
        assert (again.status_code, again.data) == (304, b"")
        assert dataset.owner.send("HEAD", path).headers["ETag"] == first.headers["ETag"]


def test_a_tag_differs_by_what_the_caller_sees(dataset: Dataset) -> None:
    assert dataset.owner.get("/v1/events").headers["ETag"] != dataset.anonymous.get("/v1/events").headers["ETag"]


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_resource_that_changed_meanwhile_is_not_overwritten(dataset: Dataset, method: str) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    tag = dataset.owner.get(path).headers["ETag"]
    dataset.organizer.update(path, "event", {"name": "Meanwhile"})
    document = {"data": {"type": "event", "id": path.rpartition("/")[2], "attributes": {"name": "Mine"}}}

    refused = dataset.owner.send(method, path, document if method == "PATCH" else None, If_Match=tag)

    assert refused.status_code == 412
    assert get_data(dataset.owner.get(path))["attributes"]["name"] == "Meanwhile"
    fresh = dataset.owner.get(path).headers["ETag"]
    assert dataset.owner.send(method, path, document if method == "PATCH" else None, If_Match=fresh).status_code == 200


def test_the_answer_of_a_patch_carries_the_next_tag(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"

    changed = dataset.owner.update(path, "event", {"name": "New"})

    assert changed.headers["ETag"] == dataset.owner.get(path).headers["ETag"]


def test_a_relationship_that_changed_meanwhile_is_not_overwritten(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}/relationships/organizers"
    tag = dataset.owner.get(path).headers["ETag"]
    none: dict[str, list[str]] = {"data": []}

    assert dataset.owner.send("PATCH", path, none, If_Match=tag).status_code == 200
    assert dataset.owner.send("PATCH", path, none, If_Match=tag).status_code == 412


def test_if_match_star_accepts_any_version(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"

    assert dataset.owner.send("DELETE", path, If_Match="*").status_code == 200


@pytest.mark.parametrize("headers", [{"If_Match": ","}, {"If_Match": ""}, {"If_None_Match": "*"}])
def test_a_condition_that_nothing_meets_refuses_the_write(dataset: Dataset, headers: dict[str, str]) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    document = {"data": {"type": "event", "id": path.rpartition("/")[2], "attributes": {"name": "Mine"}}}

    assert dataset.owner.send("PATCH", path, document, **headers).status_code == 412
    assert dataset.owner.send("PATCH", path, document, If_None_Match='"other"').status_code == 200


def test_restore_with_if_match_of_trashed_resource(dataset: Dataset) -> None:
    path = f"/v1/faqs/{dataset.faqs['published']}"
    assert dataset.owner.delete(path).status_code == 200
    tag = dataset.admin.get(f"{path}?get_trashed=true").headers["ETag"]
    document = {"data": {"type": "faq", "id": path.rpartition("/")[2], "attributes": {"deleted-at": None}}}

    assert dataset.admin.send("PATCH", f"{path}?get_trashed=true", document, If_Match='"other"').status_code == 412
    assert dataset.admin.send("PATCH", f"{path}?get_trashed=true", document, If_Match=tag).status_code == 200


def weaken_tag(tag: str) -> str:
    """Return the tag as a proxy that compresses the response forwards it."""
    return f"W/{tag}"


@pytest.mark.parametrize(
    "form", ["{weak}", '"other", {weak}', '{weak}, W/"other"', "{strong}", '"other" , {strong}', "*"]
)
def test_if_match_weak_and_listed_tags_are_the_current_version(dataset: Dataset, form: str) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    strong = dataset.owner.get(path).headers["ETag"]
    asked = form.format(strong=strong, weak=weaken_tag(strong))
    document = {"data": {"type": "event", "id": path.rpartition("/")[2], "attributes": {"name": "Mine"}}}

    assert dataset.owner.get(path, If_Match=asked).status_code == 200
    assert dataset.owner.send("HEAD", path, If_Match=asked).status_code == 200
    assert dataset.owner.get(path, If_None_Match=asked).status_code == 304
    assert dataset.owner.send("PATCH", path, document, If_None_Match=asked).status_code == 412
    assert dataset.owner.send("PATCH", path, document, If_Match=asked).status_code == 200
    if asked != "*":
        assert dataset.owner.send("PATCH", path, document, If_Match=asked).status_code == 412
        assert dataset.owner.send("DELETE", path, If_Match=asked).status_code == 412
        assert dataset.owner.get(path, If_None_Match=asked).status_code == 200


@pytest.mark.parametrize("path", ["/openapi.json", "/v1/job-kinds", "/v1/events"])
def test_if_match_on_reads_the_weak_tag_is_the_current_version(dataset: Dataset, path: str) -> None:
    strong = dataset.owner.get(path).headers["ETag"]

    assert dataset.owner.get(path, If_Match=weaken_tag(strong)).status_code == 200
    assert dataset.owner.get(path, If_None_Match=weaken_tag(strong)).status_code == 304
    assert dataset.owner.get(path, If_Match='W/"other"').status_code == 412


def test_if_match_on_a_relationship_the_weak_tag_is_the_current_version(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}/relationships/organizers"
    tag = weaken_tag(dataset.owner.get(path).headers["ETag"])
    none: dict[str, list[str]] = {"data": []}

    assert dataset.owner.send("PATCH", path, none, If_Match=tag).status_code == 200
    assert dataset.owner.send("PATCH", path, none, If_Match=tag).status_code == 412


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_refused_condition_says_which_header_does_not_hold(dataset: Dataset, method: str) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    document = {"data": {"type": "event", "id": path.rpartition("/")[2], "attributes": {"name": "Mine"}}}
    sent = document if method == "PATCH" else None

    (error,) = get_errors(dataset.owner.send(method, path, sent, If_Match='"other"'))

    assert error["detail"] == "If-Match does not match the current version of this resource."
    assert error["source"] == {"header": "If-Match"}
    if method != "GET":
        (error,) = get_errors(dataset.owner.send(method, path, sent, If_None_Match="*"))
        assert error["detail"] == "If-None-Match matches the current version of this resource."
        assert error["source"] == {"header": "If-None-Match"}
