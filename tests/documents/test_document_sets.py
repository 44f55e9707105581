"""/v1/document-sets: made, filled, shown and trashed, by whom it may be."""

from typing import Any

import pytest
from werkzeug.test import TestResponse

from app.documents.models import DocumentSet
from app.jsonapi.documents import MOST_LINKAGES
from app.jsonapi.operations import EXTENSION
from app.storage import current_storage
from tests.world import JSONAPI, ROLES, TYPES, Caller, World, data, errors, ids, linkage, pointers

pytestmark = pytest.mark.long

ALLOWED = ("owner", "admin", "super_admin")
RELATIONS = ("events", "faqs", "uploads")
SEES = {role: {"published", "others", "draft", "private"} for role in ROLES[2:]} | {"stranger": {"published", "others"}}
"""The events, and what belongs to them, that a role can select."""


def make(caller: Caller, title: Any = "Selected", **related: Any) -> TestResponse:
    """A new document set."""
    return caller.create("/v1/document-sets", "document-set", {"title": title}, **related)


def made(caller: Caller, **related: Any) -> str:
    """The path of a new document set."""
    return f"/v1/document-sets/{data(make(caller, **related))['id']}"


def change(caller: Caller, method: str, path: str, relation: str, *rows: int) -> TestResponse:
    """A request to a relationship URL."""
    document = {"data": linkage(TYPES[relation], list(rows))}
    return caller.send(method, f"{path}/relationships/{relation}", document)


def held(caller: Caller, path: str, relation: str) -> list[int]:
    """What a set holds, by every way in."""
    found = sorted(ids(caller.get(f"{path}/relationships/{relation}")))
    included = caller.get(f"{path}?include={relation}").get_json(force=True)
    assert sorted(ids(caller.get(f"{path}/{relation}"))) == found
    assert sorted(int(each["id"]) for each in included["data"]["relationships"][relation]["data"]) == found
    assert sorted(int(each["id"]) for each in included["included"]) == found
    return found


def rows_of(world: World, relation: str, role: str = "owner") -> dict[str, int]:
    """What could be selected: of each event, or uploads of somebody and of another."""
    if relation == "uploads":
        other = "stranger" if role != "stranger" else "owner"
        return {"published": world.upload(role), "others": world.upload(role, "other"), "foreign": world.upload(other)}
    return world.events if relation == "events" else world.faqs


def test_a_set_is_made_with_what_it_holds(world: World) -> None:
    upload = world.upload("stranger")

    answer = make(
        world.stranger,
        "  My selection ",
        events=[world.events["published"]],
        faqs=[world.faqs["others"], world.faqs["published"]],
        uploads=[upload],
    )

    assert answer.status_code == 201
    made = data(answer)
    assert made["attributes"].pop("created-at")
    assert made["attributes"] == {"title": "My selection", "deleted-at": None}
    assert made["relationships"]["owner"]["data"] == linkage("user", world.stranger.id)
    path = f"/v1/document-sets/{made['id']}"
    assert answer.headers["Location"] == world.app.config["PUBLIC_URL"] + path
    assert held(world.stranger, path, "events") == [world.events["published"]]
    assert held(world.stranger, path, "faqs") == sorted([world.faqs["others"], world.faqs["published"]])
    assert held(world.stranger, path, "uploads") == [upload]


@pytest.mark.parametrize("title", ["a", "x" * 50, f"  {'x' * 50}\n", "Ünï ©"])
def test_a_title_is_trimmed(world: World, title: str) -> None:
    answer = make(world.stranger, title)

    assert data(answer)["attributes"]["title"] == title.strip()
    path = f"/v1/document-sets/{data(answer)['id']}"
    assert data(world.stranger.update(path, "document-set", {"title": " New "}))["attributes"]["title"] == "New"


@pytest.mark.parametrize("title", [None, "", " \t\n", "x" * 51, f" {'x' * 51} ", 5, ["a"], "a\x00b"])
def test_what_is_no_title_is_422(world: World, title: Any) -> None:
    path = made(world.stranger)

    created, changed = make(world.stranger, title), world.stranger.update(path, "document-set", {"title": title})

    for answer in (created, changed):
        assert (answer.status_code, pointers(answer)) == (422, {"/data/attributes/title"})
    assert world.rows(DocumentSet) == 1


def test_a_title_is_required(world: World) -> None:
    answer = world.stranger.create("/v1/document-sets", "document-set", {})

    assert (answer.status_code, pointers(answer)) == (422, {"/data/attributes/title"})


@pytest.mark.parametrize("role", ROLES)
def test_whoever_is_signed_in_makes_sets(world: World, role: str) -> None:
    answer = make(world.callers[role], events=[world.events["published"]])

    assert answer.status_code == (401 if role == "anonymous" else 201)
    assert world.rows(DocumentSet) == (role != "anonymous")


@pytest.mark.parametrize("role", ["stranger", "admin"])
def test_the_creator_is_the_owner(world: World, role: str) -> None:
    caller = world.callers[role]
    path = made(caller)
    heir = {"data": linkage("user", world.owner.id)}

    chosen = make(caller, owner=world.owner.id)
    patched = caller.update(path, "document-set", None, owner=world.owner.id)
    related = caller.send("PATCH", f"{path}/relationships/owner", heir)

    assert [answer.status_code for answer in (chosen, patched, related)] == [403, 403, 403]
    assert pointers(chosen) == pointers(patched) == {"/data/relationships/owner"}
    assert ids(caller.get("/v1/document-sets")) == [int(path.rpartition("/")[2])]


@pytest.mark.parametrize("role", ROLES)
def test_a_set_is_its_owners_and_the_admins_on_every_way_in(world: World, role: str) -> None:
    path, caller = made(world.owner, events=[world.events["published"]]), world.callers[role]
    expected = {"anonymous": 401} | dict.fromkeys(ALLOWED, 200)
    event = {"name": "id", "op": "eq", "val": world.events["published"]}
    having = world.app.json.dumps([{"name": "events", "op": "any", "val": event}])

    for rest in ("", "?include=owner,events", *(f"/relationships/{name}" for name in ("owner", *RELATIONS))):
        assert caller.get(f"{path}{rest}").status_code == expected.get(role, 404), rest
    for rest in ("/owner", "/events", "/faqs"):  # these types have rows for everybody
        assert caller.get(f"{path}{rest}").status_code == (200 if role in ALLOWED else 404), rest
    assert caller.get(f"{path}/uploads").status_code == expected.get(role, 404)
    for query in ("", "?include=events", f"?filter={having}", f"?filter[owner]={world.owner.id}"):
        listed = caller.get(f"/v1/document-sets{query}")
        assert listed.status_code == (401 if role == "anonymous" else 200)
        if role != "anonymous":
            assert len(ids(listed)) == listed.get_json(force=True)["meta"]["count"] == (role in ALLOWED)


def test_sets_are_listed_newest_first(world: World) -> None:
    first, second = made(world.owner), made(world.owner)

    listed = [f"/v1/document-sets/{id_}" for id_ in ids(world.owner.get("/v1/document-sets"))]

    assert listed == [second, first]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_what_a_set_holds_is_changed_by_its_owner_and_admins(
    world: World, role: str, relation: str, method: str
) -> None:
    rows = rows_of(world, relation)
    one, other = rows["published"], rows["others"]
    path = made(world.owner, **{relation: [one]})
    expected = {"anonymous": 401} | dict.fromkeys(ALLOWED, 200)

    answer = change(world.callers[role], method, path, relation, one if method == "DELETE" else other)

    assert answer.status_code == expected.get(role, 404)
    after = {"POST": [one, other], "PATCH": [other], "DELETE": []}[method] if role in ALLOWED else [one]
    assert held(world.owner, path, relation) == sorted(after)
    if role in ALLOWED:
        assert sorted(ids(answer)) == sorted(after)


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_document_replaces_what_a_set_holds(world: World, relation: str) -> None:
    rows = rows_of(world, relation)
    one, other = rows["published"], rows["others"]
    path = made(world.owner, **{relation: [one]})

    both = world.owner.update(path, "document-set", {"title": "Both"}, **{relation: [other, one, other]})
    assert (both.status_code, held(world.owner, path, relation)) == (200, sorted([one, other]))

    none = world.owner.update(path, "document-set", None, **{relation: []})
    assert (none.status_code, held(world.owner, path, relation)) == (200, [])
    assert data(world.owner.get(path))["attributes"]["title"] == "Both"


@pytest.mark.parametrize("relation", RELATIONS)
def test_adding_and_removing_twice_is_as_good_as_once(world: World, relation: str) -> None:
    row = rows_of(world, relation)["published"]
    path = made(world.owner)

    added = [change(world.owner, "POST", path, relation, row, row).status_code for _ in range(2)]
    assert (added, held(world.owner, path, relation)) == ([200, 200], [row])

    removed = [change(world.owner, "DELETE", path, relation, row).status_code for _ in range(2)]
    assert (removed, held(world.owner, path, relation)) == ([200, 200], [])


@pytest.mark.parametrize("role", SEES)
@pytest.mark.parametrize("relation", ["events", "faqs"])
@pytest.mark.parametrize("state", ["published", "draft", "private", "trashed", "others"])
def test_only_what_the_caller_sees_is_taken(world: World, role: str, relation: str, state: str) -> None:
    row, caller = rows_of(world, relation)[state], world.callers[role]
    path, is_seen = made(caller), state in SEES[role]

    created = make(caller, **{relation: [row]})
    answers = [
        change(caller, "POST", path, relation, row),
        change(caller, "PATCH", path, relation, row),
        caller.update(path, "document-set", {"title": "New"}, **{relation: [row]}),
    ]

    assert created.status_code == (201 if is_seen else 404)
    assert [answer.status_code for answer in answers] == [200 if is_seen else 404] * 3
    assert held(caller, path, relation) == ([row] if is_seen else [])
    if not is_seen:
        in_document, in_linkage = {f"/data/relationships/{relation}/data"}, {"/data"}
        assert [pointers(each) for each in (created, *answers)] == [in_document, in_linkage, in_linkage, in_document]
        assert data(caller.get(path))["attributes"]["title"] == "Selected"
        assert len(ids(caller.get("/v1/document-sets"))) == 1


@pytest.mark.parametrize(("role", "status"), [("stranger", 404), ("organizer", 404), ("owner", 200)])
def test_only_ones_own_uploads_are_taken(world: World, role: str, status: int) -> None:
    upload, caller = world.upload("owner"), world.callers[role]
    path = made(caller)

    answer = change(caller, "POST", path, "uploads", upload)

    assert answer.status_code == status
    assert make(caller, uploads=[upload]).status_code == (201 if status == 200 else 404)
    assert held(caller, path, "uploads") == ([upload] if status == 200 else [])


def test_what_an_admin_adds_of_others_is_hidden_from_the_owner(world: World) -> None:
    upload, path = world.upload("stranger"), made(world.owner)

    assert change(world.admin, "POST", path, "uploads", upload).status_code == 200

    assert held(world.admin, path, "uploads") == [upload]
    assert held(world.owner, path, "uploads") == []


@pytest.mark.parametrize("relation", RELATIONS)
def test_one_that_is_not_there_refuses_all(world: World, relation: str) -> None:
    row, path = rows_of(world, relation)["published"], made(world.owner)

    answer = change(world.owner, "POST", path, relation, row, 999_999_999)

    assert (answer.status_code, pointers(answer)) == (404, {"/data"})
    assert held(world.owner, path, relation) == []


@pytest.mark.parametrize("relation", RELATIONS)
def test_so_many_at_once_and_no_more(world: World, relation: str) -> None:
    path, many = made(world.owner), [*range(1, MOST_LINKAGES + 2)]

    answers = [
        make(world.owner, **{relation: many}),
        change(world.owner, "POST", path, relation, *many),
        change(world.owner, "DELETE", path, relation, *many),
    ]

    assert [answer.status_code for answer in answers] == [422, 422, 422]
    assert pointers(answers[0]) == {f"/data/relationships/{relation}/data"}
    assert change(world.owner, "DELETE", path, relation, *many[1:]).status_code == 200


@pytest.mark.parametrize("relation", RELATIONS)
def test_what_is_trashed_is_hidden_and_comes_back(world: World, relation: str) -> None:
    rows = rows_of(world, relation)
    row, path = rows["published"], made(world.owner, **{relation: [rows["published"]]})
    target = f"/v1/{relation}/{row}"
    if relation == "uploads":  # without its file it is not restored
        url = data(world.owner.get(target))["attributes"]["url"]
        with world.app.app_context():
            current_storage().put(current_storage().name(url), b"image", "image/jpeg")
    assert world.owner.delete(target).status_code == 200

    for caller in (world.owner, world.admin):
        assert held(caller, path, relation) == []
    assert ids(world.admin.get(f"{path}/{relation}?get_trashed=true")) == [row]

    restoring = {"data": {"type": TYPES[relation], "id": str(row), "attributes": {"deleted-at": None}}}
    assert world.admin.send("PATCH", f"{target}?get_trashed=true", restoring).status_code == 200
    assert held(world.owner, path, relation) == [row]


def test_the_faqs_of_a_trashed_event_are_hidden(world: World) -> None:
    path = made(world.owner, faqs=[world.faqs["published"], world.faqs["draft"]])

    assert world.owner.delete(f"/v1/events/{world.events['published']}").status_code == 200

    assert held(world.owner, path, "faqs") == [world.faqs["draft"]]


@pytest.mark.parametrize("relation", ["events", "faqs"])
def test_who_leaves_a_team_sees_its_draft_no_more(world: World, relation: str) -> None:
    rows = rows_of(world, relation)
    path = made(world.coorganizer, **{relation: [rows["draft"], rows["published"]]})
    team = f"/v1/events/{world.events['draft']}/relationships/coorganizers"

    world.owner.send("DELETE", team, {"data": linkage("user", [world.coorganizer.id])})

    assert held(world.coorganizer, path, relation) == [rows["published"]]
    assert held(world.admin, path, relation) == sorted([rows["draft"], rows["published"]])


@pytest.mark.parametrize("relation", ["events", "faqs"])
def test_what_is_hidden_stays_while_the_rest_is_replaced(world: World, relation: str) -> None:
    set_id = world.document_set("stranger")
    path, rows = f"/v1/document-sets/{set_id}", rows_of(world, relation)

    assert change(world.stranger, "PATCH", path, relation, rows["published"]).status_code == 200

    assert held(world.stranger, path, relation) == [rows["published"]]
    assert held(world.admin, path, relation) == sorted([rows[name] for name in ("published", "draft", "private")])


def test_an_event_does_not_tell_of_its_sets(world: World) -> None:
    made(world.owner, events=[world.events["published"]])
    path = f"/v1/events/{world.events['published']}"

    assert world.owner.get(f"{path}?include=document-sets").status_code == 400
    assert world.owner.get(f"{path}/document-sets").status_code == 404
    assert "document-set" not in world.owner.get(path).text


@pytest.mark.parametrize("role", ROLES)
def test_changing_and_deleting(world: World, role: str) -> None:
    path, caller = made(world.owner), world.callers[role]
    expected = ({"anonymous": 401} | dict.fromkeys(ALLOWED, 200)).get(role, 404)

    assert caller.update(path, "document-set", {"title": "New"}).status_code == expected
    assert caller.delete(path).status_code == expected

    assert world.owner.get(path).status_code == (404 if expected == 200 else 200)


@pytest.mark.parametrize(("role", "status"), [("owner", 403), ("stranger", 403), ("anonymous", 401), ("admin", 200)])
def test_admins_take_a_set_out_of_the_trash(world: World, role: str, status: int) -> None:
    path = made(world.owner, events=[world.events["published"]])
    world.owner.delete(path)
    restoring = {"title": "Back", "deleted-at": None}

    answer = world.callers[role].update(f"{path}?get_trashed=true", "document-set", restoring)

    assert answer.status_code == status
    assert world.owner.get(path).status_code == (200 if status == 200 else 404)
    if status == 200:
        assert held(world.owner, path, "events") == [world.events["published"]]


def test_a_set_sent_back_whole_is_taken(world: World) -> None:
    path = made(world.owner, events=[world.events["draft"]], faqs=[world.faqs["published"]])
    read = data(world.owner.get(f"{path}?include=owner,events,faqs,uploads"))
    read["attributes"]["title"] = "Renamed"

    changed = world.owner.send("PATCH", path, {"data": read})

    assert data(changed)["attributes"]["title"] == "Renamed"
    assert held(world.owner, path, "events") == [world.events["draft"]]


def test_a_set_is_filled_in_one_operation(world: World) -> None:
    added = {"type": "document-set", "lid": "s", "attributes": {"title": "Both"}}
    ref = {"type": "document-set", "lid": "s", "relationship": "events"}
    event = linkage("event", [world.events["published"]])
    document = {"atomic:operations": [{"op": "add", "data": added}, {"op": "add", "ref": ref, "data": event}]}

    answer = world.stranger.send(
        "POST", "/v1/operations", document, Content_Type=f'{JSONAPI}; ext="{EXTENSION}"'
    ).get_json(force=True)

    path = answer["atomic:results"][0]["data"]["links"]["self"]
    assert held(world.stranger, path, "events") == [world.events["published"]]


def test_a_set_that_changed_meanwhile_is_not_overwritten(world: World) -> None:
    path = made(world.owner)
    url = f"{path}/relationships/events"
    tag = world.owner.get(url).headers["ETag"]
    assert change(world.owner, "POST", path, "events", world.events["draft"]).status_code == 200

    refused = world.owner.send("PATCH", url, {"data": []}, If_Match=tag)

    assert refused.status_code == 412
    assert errors(refused)[0]["source"] == {"header": "If-Match"}
    assert held(world.owner, path, "events") == [world.events["draft"]]
