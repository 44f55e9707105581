"""/v1/document-sets: creation, linkage, reading and deletion, with permissions."""

from typing import Any

import pytest
from werkzeug.test import TestResponse

from app.documents.models import DocumentSet
from app.jsonapi.atomic_operations import EXTENSION
from app.jsonapi.document_parser import MAX_LINKAGES
from app.storage import current_storage
from tests.dataset import (
    JSONAPI,
    ROLES,
    TYPES_BY_MEMBER,
    ApiClient,
    Dataset,
    build_linkage,
    get_data,
    get_errors,
    get_ids,
    get_pointers,
)

pytestmark = pytest.mark.long

ALLOWED = ("owner", "admin", "super_admin")
RELATIONS = ("events", "faqs", "uploads")
VISIBLE_EVENTS = {role: {"published", "others", "draft", "private"} for role in ROLES[2:]} | {
    "stranger": {"published", "others"}
}
"""The events, and what belongs to them, that a role can select."""


def post_document_set(caller: ApiClient, title: Any = "Selected", **related: Any) -> TestResponse:
    """Create a document set and return the response."""
    return caller.create("/v1/document-sets", "document-set", {"title": title}, **related)


def create_document_set(caller: ApiClient, **related: Any) -> str:
    """Create a document set and return its path."""
    return f"/v1/document-sets/{get_data(post_document_set(caller, **related))['id']}"


def change_relationship(caller: ApiClient, method: str, path: str, relation: str, *rows: int) -> TestResponse:
    """Send linkage to a relationship URL and return the response."""
    document = {"data": build_linkage(TYPES_BY_MEMBER[relation], list(rows))}
    return caller.send(method, f"{path}/relationships/{relation}", document)


def fetch_members(caller: ApiClient, path: str, relation: str) -> list[int]:
    """Read the members of a set in every way and return their ids."""
    found = sorted(get_ids(caller.get(f"{path}/relationships/{relation}")))
    included = caller.get(f"{path}?include={relation}").get_json(force=True)
    assert sorted(get_ids(caller.get(f"{path}/{relation}"))) == found
    assert sorted(int(each["id"]) for each in included["data"]["relationships"][relation]["data"]) == found
    assert sorted(int(each["id"]) for each in included["included"]) == found
    return found


def list_selectable_ids(dataset: Dataset, relation: str, role: str = "owner") -> dict[str, int]:
    """Return the ids of resources by name: of each event, or of uploads of the role and of another user."""
    if relation == "uploads":
        other = "stranger" if role != "stranger" else "owner"
        return {
            "published": dataset.create_upload(role),
            "others": dataset.create_upload(role, "other"),
            "foreign": dataset.create_upload(other),
        }
    return dataset.events if relation == "events" else dataset.faqs


def test_a_set_is_made_with_what_it_holds(dataset: Dataset) -> None:
    upload = dataset.create_upload("stranger")

    answer = post_document_set(
        dataset.stranger,
        "  My selection ",
        events=[dataset.events["published"]],
        faqs=[dataset.faqs["others"], dataset.faqs["published"]],
        uploads=[upload],
    )

    assert answer.status_code == 201
    made = get_data(answer)
    assert made["attributes"].pop("created-at")
    assert made["attributes"] == {"title": "My selection", "deleted-at": None}
    assert made["relationships"]["owner"]["data"] == build_linkage("user", dataset.stranger.id)
    path = f"/v1/document-sets/{made['id']}"
    assert answer.headers["Location"] == dataset.app.config["PUBLIC_URL"] + path
    assert fetch_members(dataset.stranger, path, "events") == [dataset.events["published"]]
    assert fetch_members(dataset.stranger, path, "faqs") == sorted([dataset.faqs["others"], dataset.faqs["published"]])
    assert fetch_members(dataset.stranger, path, "uploads") == [upload]


@pytest.mark.parametrize("title", ["a", "x" * 50, f"  {'x' * 50}\n", "Ünï ©"])
def test_a_title_is_trimmed(dataset: Dataset, title: str) -> None:
    answer = post_document_set(dataset.stranger, title)

    assert get_data(answer)["attributes"]["title"] == title.strip()
    path = f"/v1/document-sets/{get_data(answer)['id']}"
    assert get_data(dataset.stranger.update(path, "document-set", {"title": " New "}))["attributes"]["title"] == "New"


@pytest.mark.parametrize("title", [None, "", " \t\n", "x" * 51, f" {'x' * 51} ", 5, ["a"], "a\x00b"])
def test_invalid_title_is_422(dataset: Dataset, title: Any) -> None:
    path = create_document_set(dataset.stranger)

    created, changed = (
        post_document_set(dataset.stranger, title),
        dataset.stranger.update(path, "document-set", {"title": title}),
    )

    for answer in (created, changed):
        assert (answer.status_code, get_pointers(answer)) == (422, {"/data/attributes/title"})
    assert dataset.count_rows(DocumentSet) == 1


def test_a_title_is_required(dataset: Dataset) -> None:
    answer = dataset.stranger.create("/v1/document-sets", "document-set", {})

    assert (answer.status_code, get_pointers(answer)) == (422, {"/data/attributes/title"})


@pytest.mark.parametrize("role", ROLES)
def test_create_requires_authentication(dataset: Dataset, role: str) -> None:
    answer = post_document_set(dataset.callers[role], events=[dataset.events["published"]])

    assert answer.status_code == (401 if role == "anonymous" else 201)
    assert dataset.count_rows(DocumentSet) == (role != "anonymous")


@pytest.mark.parametrize("role", ["stranger", "admin"])
def test_the_creator_is_the_owner(dataset: Dataset, role: str) -> None:
    caller = dataset.callers[role]
    path = create_document_set(caller)
    heir = {"data": build_linkage("user", dataset.owner.id)}

    chosen = post_document_set(caller, owner=dataset.owner.id)
    patched = caller.update(path, "document-set", None, owner=dataset.owner.id)
    related = caller.send("PATCH", f"{path}/relationships/owner", heir)

    assert [answer.status_code for answer in (chosen, patched, related)] == [403, 403, 403]
    assert get_pointers(chosen) == get_pointers(patched) == {"/data/relationships/owner"}
    assert get_ids(caller.get("/v1/document-sets")) == [int(path.rpartition("/")[2])]


@pytest.mark.parametrize("role", ROLES)
def test_a_set_is_its_owners_and_the_admins_on_every_way_in(dataset: Dataset, role: str) -> None:
    path, caller = create_document_set(dataset.owner, events=[dataset.events["published"]]), dataset.callers[role]
    expected = {"anonymous": 401} | dict.fromkeys(ALLOWED, 200)
    event = {"name": "id", "op": "eq", "val": dataset.events["published"]}
    having = dataset.app.json.dumps([{"name": "events", "op": "any", "val": event}])

    for rest in ("", "?include=owner,events", *(f"/relationships/{name}" for name in ("owner", *RELATIONS))):
        assert caller.get(f"{path}{rest}").status_code == expected.get(role, 404), rest
    for rest in ("/owner", "/events", "/faqs"):  # these types have rows that all roles see
        assert caller.get(f"{path}{rest}").status_code == (200 if role in ALLOWED else 404), rest
    assert caller.get(f"{path}/uploads").status_code == expected.get(role, 404)
    for query in ("", "?include=events", f"?filter={having}", f"?filter[owner]={dataset.owner.id}"):
        listed = caller.get(f"/v1/document-sets{query}")
        assert listed.status_code == (401 if role == "anonymous" else 200)
        if role != "anonymous":
            assert len(get_ids(listed)) == listed.get_json(force=True)["meta"]["count"] == (role in ALLOWED)


def test_sets_are_listed_newest_first(dataset: Dataset) -> None:
    first, second = create_document_set(dataset.owner), create_document_set(dataset.owner)

    listed = [f"/v1/document-sets/{id_}" for id_ in get_ids(dataset.owner.get("/v1/document-sets"))]

    assert listed == [second, first]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_change_members_is_limited_to_owner_and_admins(dataset: Dataset, role: str, relation: str, method: str) -> None:
    rows = list_selectable_ids(dataset, relation)
    one, other = rows["published"], rows["others"]
    path = create_document_set(dataset.owner, **{relation: [one]})
    expected = {"anonymous": 401} | dict.fromkeys(ALLOWED, 200)

    answer = change_relationship(dataset.callers[role], method, path, relation, one if method == "DELETE" else other)

    assert answer.status_code == expected.get(role, 404)
    after = {"POST": [one, other], "PATCH": [other], "DELETE": []}[method] if role in ALLOWED else [one]
    assert fetch_members(dataset.owner, path, relation) == sorted(after)
    if role in ALLOWED:
        assert sorted(get_ids(answer)) == sorted(after)


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_document_replaces_what_a_set_holds(dataset: Dataset, relation: str) -> None:
    rows = list_selectable_ids(dataset, relation)
    one, other = rows["published"], rows["others"]
    path = create_document_set(dataset.owner, **{relation: [one]})

    both = dataset.owner.update(path, "document-set", {"title": "Both"}, **{relation: [other, one, other]})
    assert (both.status_code, fetch_members(dataset.owner, path, relation)) == (200, sorted([one, other]))

    none = dataset.owner.update(path, "document-set", None, **{relation: []})
    assert (none.status_code, fetch_members(dataset.owner, path, relation)) == (200, [])
    assert get_data(dataset.owner.get(path))["attributes"]["title"] == "Both"


@pytest.mark.parametrize("relation", RELATIONS)
def test_adding_and_removing_twice_is_as_good_as_once(dataset: Dataset, relation: str) -> None:
    row = list_selectable_ids(dataset, relation)["published"]
    path = create_document_set(dataset.owner)

    added = [change_relationship(dataset.owner, "POST", path, relation, row, row).status_code for _ in range(2)]
    assert (added, fetch_members(dataset.owner, path, relation)) == ([200, 200], [row])

    removed = [change_relationship(dataset.owner, "DELETE", path, relation, row).status_code for _ in range(2)]
    assert (removed, fetch_members(dataset.owner, path, relation)) == ([200, 200], [])


@pytest.mark.parametrize("role", VISIBLE_EVENTS)
@pytest.mark.parametrize("relation", ["events", "faqs"])
@pytest.mark.parametrize("state", ["published", "draft", "private", "trashed", "others"])
def test_only_what_the_caller_sees_is_taken(dataset: Dataset, role: str, relation: str, state: str) -> None:
    row, caller = list_selectable_ids(dataset, relation)[state], dataset.callers[role]
    path, is_seen = create_document_set(caller), state in VISIBLE_EVENTS[role]

    created = post_document_set(caller, **{relation: [row]})
    answers = [
        change_relationship(caller, "POST", path, relation, row),
        change_relationship(caller, "PATCH", path, relation, row),
        caller.update(path, "document-set", {"title": "New"}, **{relation: [row]}),
    ]

    assert created.status_code == (201 if is_seen else 404)
    assert [answer.status_code for answer in answers] == [200 if is_seen else 404] * 3
    assert fetch_members(caller, path, relation) == ([row] if is_seen else [])
    if not is_seen:
        in_document, in_linkage = {f"/data/relationships/{relation}/data"}, {"/data"}
        assert [get_pointers(each) for each in (created, *answers)] == [
            in_document,
            in_linkage,
            in_linkage,
            in_document,
        ]
        assert get_data(caller.get(path))["attributes"]["title"] == "Selected"
        assert len(get_ids(caller.get("/v1/document-sets"))) == 1


@pytest.mark.parametrize(("role", "status"), [("stranger", 404), ("organizer", 404), ("owner", 200)])
def test_only_ones_own_uploads_are_taken(dataset: Dataset, role: str, status: int) -> None:
    upload, caller = dataset.create_upload("owner"), dataset.callers[role]
    path = create_document_set(caller)

    answer = change_relationship(caller, "POST", path, "uploads", upload)

    assert answer.status_code == status
    assert post_document_set(caller, uploads=[upload]).status_code == (201 if status == 200 else 404)
    assert fetch_members(caller, path, "uploads") == ([upload] if status == 200 else [])


def test_foreign_upload_added_by_admin_is_hidden_from_owner(dataset: Dataset) -> None:
    upload, path = dataset.create_upload("stranger"), create_document_set(dataset.owner)

    assert change_relationship(dataset.admin, "POST", path, "uploads", upload).status_code == 200

    assert fetch_members(dataset.admin, path, "uploads") == [upload]
    assert fetch_members(dataset.owner, path, "uploads") == []


@pytest.mark.parametrize("relation", RELATIONS)
def test_add_members_with_one_missing_is_404_and_adds_none(dataset: Dataset, relation: str) -> None:
    row, path = list_selectable_ids(dataset, relation)["published"], create_document_set(dataset.owner)

    answer = change_relationship(dataset.owner, "POST", path, relation, row, 999_999_999)

    assert (answer.status_code, get_pointers(answer)) == (404, {"/data"})
    assert fetch_members(dataset.owner, path, relation) == []


@pytest.mark.parametrize("relation", RELATIONS)
def test_more_than_max_linkages_is_422(dataset: Dataset, relation: str) -> None:
    path, many = create_document_set(dataset.owner), [*range(1, MAX_LINKAGES + 2)]

    answers = [
        post_document_set(dataset.owner, **{relation: many}),
        change_relationship(dataset.owner, "POST", path, relation, *many),
        change_relationship(dataset.owner, "DELETE", path, relation, *many),
    ]

    assert [answer.status_code for answer in answers] == [422, 422, 422]
    assert get_pointers(answers[0]) == {f"/data/relationships/{relation}/data"}
    assert change_relationship(dataset.owner, "DELETE", path, relation, *many[1:]).status_code == 200


@pytest.mark.parametrize("relation", RELATIONS)
def test_trashed_member_is_hidden_until_restored(dataset: Dataset, relation: str) -> None:
    rows = list_selectable_ids(dataset, relation)
    row, path = rows["published"], create_document_set(dataset.owner, **{relation: [rows["published"]]})
    target = f"/v1/{relation}/{row}"
    if relation == "uploads":  # without its file it is not restored
        url = get_data(dataset.owner.get(target))["attributes"]["url"]
        with dataset.app.app_context():
            current_storage().put(current_storage().get_name_from_url(url), b"image", "image/jpeg")
    assert dataset.owner.delete(target).status_code == 200

    for caller in (dataset.owner, dataset.admin):
        assert fetch_members(caller, path, relation) == []
    assert get_ids(dataset.admin.get(f"{path}/{relation}?get_trashed=true")) == [row]

    restoring = {"data": {"type": TYPES_BY_MEMBER[relation], "id": str(row), "attributes": {"deleted-at": None}}}
    assert dataset.admin.send("PATCH", f"{target}?get_trashed=true", restoring).status_code == 200
    assert fetch_members(dataset.owner, path, relation) == [row]


def test_the_faqs_of_a_trashed_event_are_hidden(dataset: Dataset) -> None:
    path = create_document_set(dataset.owner, faqs=[dataset.faqs["published"], dataset.faqs["draft"]])

    assert dataset.owner.delete(f"/v1/events/{dataset.events['published']}").status_code == 200

    assert fetch_members(dataset.owner, path, "faqs") == [dataset.faqs["draft"]]


@pytest.mark.parametrize("relation", ["events", "faqs"])
def test_draft_member_is_hidden_after_owner_leaves_team(dataset: Dataset, relation: str) -> None:
    rows = list_selectable_ids(dataset, relation)
    path = create_document_set(dataset.coorganizer, **{relation: [rows["draft"], rows["published"]]})
    team = f"/v1/events/{dataset.events['draft']}/relationships/coorganizers"

    dataset.owner.send("DELETE", team, {"data": build_linkage("user", [dataset.coorganizer.id])})

    assert fetch_members(dataset.coorganizer, path, relation) == [rows["published"]]
    assert fetch_members(dataset.admin, path, relation) == sorted([rows["draft"], rows["published"]])


@pytest.mark.parametrize("relation", ["events", "faqs"])
def test_replace_members_keeps_hidden_members(dataset: Dataset, relation: str) -> None:
    set_id = dataset.create_document_set("stranger")
    path, rows = f"/v1/document-sets/{set_id}", list_selectable_ids(dataset, relation)

    assert change_relationship(dataset.stranger, "PATCH", path, relation, rows["published"]).status_code == 200

    assert fetch_members(dataset.stranger, path, relation) == [rows["published"]]
    assert fetch_members(dataset.admin, path, relation) == sorted(
        [rows[name] for name in ("published", "draft", "private")]
    )


def test_an_event_does_not_tell_of_its_sets(dataset: Dataset) -> None:
    create_document_set(dataset.owner, events=[dataset.events["published"]])
    path = f"/v1/events/{dataset.events['published']}"

    assert dataset.owner.get(f"{path}?include=document-sets").status_code == 400
    assert dataset.owner.get(f"{path}/document-sets").status_code == 404
    assert "document-set" not in dataset.owner.get(path).text


@pytest.mark.parametrize("role", ROLES)
def test_changing_and_deleting(dataset: Dataset, role: str) -> None:
    path, caller = create_document_set(dataset.owner), dataset.callers[role]
    expected = ({"anonymous": 401} | dict.fromkeys(ALLOWED, 200)).get(role, 404)

    assert caller.update(path, "document-set", {"title": "New"}).status_code == expected
    assert caller.delete(path).status_code == expected

    assert dataset.owner.get(path).status_code == (404 if expected == 200 else 200)


@pytest.mark.parametrize(("role", "status"), [("owner", 403), ("stranger", 403), ("anonymous", 401), ("admin", 200)])
def test_admins_take_a_set_out_of_the_trash(dataset: Dataset, role: str, status: int) -> None:
    path = create_document_set(dataset.owner, events=[dataset.events["published"]])
    dataset.owner.delete(path)
    restoring = {"title": "Back", "deleted-at": None}

    answer = dataset.callers[role].update(f"{path}?get_trashed=true", "document-set", restoring)

    assert answer.status_code == status
    assert dataset.owner.get(path).status_code == (200 if status == 200 else 404)
    if status == 200:
        assert fetch_members(dataset.owner, path, "events") == [dataset.events["published"]]


def test_a_set_sent_back_whole_is_taken(dataset: Dataset) -> None:
    path = create_document_set(dataset.owner, events=[dataset.events["draft"]], faqs=[dataset.faqs["published"]])
    read = get_data(dataset.owner.get(f"{path}?include=owner,events,faqs,uploads"))
    read["attributes"]["title"] = "Renamed"

    changed = dataset.owner.send("PATCH", path, {"data": read})

    assert get_data(changed)["attributes"]["title"] == "Renamed"
    assert fetch_members(dataset.owner, path, "events") == [dataset.events["draft"]]


def test_a_set_is_filled_in_one_operation(dataset: Dataset) -> None:
    added = {"type": "document-set", "lid": "s", "attributes": {"title": "Both"}}
    ref = {"type": "document-set", "lid": "s", "relationship": "events"}
    event = build_linkage("event", [dataset.events["published"]])
    document = {"atomic:operations": [{"op": "add", "data": added}, {"op": "add", "ref": ref, "data": event}]}

    answer = dataset.stranger.send(
        "POST", "/v1/operations", document, Content_Type=f'{JSONAPI}; ext="{EXTENSION}"'
    ).get_json(force=True)

    path = answer["atomic:results"][0]["data"]["links"]["self"]
    assert fetch_members(dataset.stranger, path, "events") == [dataset.events["published"]]


def test_a_set_that_changed_meanwhile_is_not_overwritten(dataset: Dataset) -> None:
    path = create_document_set(dataset.owner)
    url = f"{path}/relationships/events"
    tag = dataset.owner.get(url).headers["ETag"]
    assert change_relationship(dataset.owner, "POST", path, "events", dataset.events["draft"]).status_code == 200

    refused = dataset.owner.send("PATCH", url, {"data": []}, If_Match=tag)

    assert refused.status_code == 412
    assert get_errors(refused)[0]["source"] == {"header": "If-Match"}
    assert fetch_members(dataset.owner, path, "events") == [dataset.events["draft"]]
