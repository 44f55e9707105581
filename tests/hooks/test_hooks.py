"""/v1/hooks: made, shown, changed, rotated and trashed, by whom it may be."""

import re
from base64 import b64decode
from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import select

from app.extensions import db
from app.hooks.models import Hook
from app.jobs.models import Job
from app.jsonapi.idempotency import IdempotencyKey
from app.jsonapi.operations import EXTENSION
from app.sealing import open_bytes, place
from tests.hooks.calls import call, made, make, path_of
from tests.world import JSONAPI, ROLES, World, data, errors, ids, pointers


def stored(world: World, hook: Any) -> Hook:
    """The row of a hook."""
    with world.app.app_context():
        return db.session.execute(select(Hook).where(Hook.id == int(hook["id"]))).scalar_one()


def document(**attributes: Any) -> dict[str, Any]:
    """A new hook as it is sent."""
    return {"data": {"type": "hook", "attributes": {"kind": "sleep", "parameters": {"seconds": 0}, **attributes}}}


def test_a_hook_is_made_and_shows_its_url_once(world: World) -> None:
    response = make(world.stranger, name="Nightly")

    assert response.status_code == 201
    hook = data(response)
    attributes = hook["attributes"]
    assert re.fullmatch(
        re.escape(world.app.config["PUBLIC_URL"]) + "/v1/hooks/[A-Za-z0-9_-]{43}", attributes.pop("url")
    )
    assert attributes.pop("created-at")
    assert attributes == {
        "name": "Nightly",
        "kind": "sleep",
        "parameters": {"seconds": 0},
        "allowed-parameters": None,
        "enabled": True,
        "signed": False,
        "secret": None,
        "last-called-at": None,
        "deleted-at": None,
    }
    assert hook["relationships"]["owner"]["data"] == {"type": "user", "id": str(world.stranger.id)}
    assert hook["relationships"]["event"]["data"] is None
    shown = data(world.stranger.get(f"/v1/hooks/{hook['id']}"))["attributes"]
    assert (shown["url"], shown["secret"]) == (None, None)


def test_only_the_hash_of_the_token_is_stored(world: World) -> None:
    hook = made(world.stranger, signed=True)

    row = stored(world, hook)

    token = path_of(hook).rpartition("/")[2]
    assert row.token_hash == sha256(token.encode()).digest()
    kept = repr({column.name: getattr(row, column.name) for column in Hook.__table__.c})
    assert token not in kept
    assert hook["attributes"]["secret"].removeprefix("whsec_") not in kept


def test_a_signed_hook_shows_its_secret_once(world: World) -> None:
    hook = made(world.stranger, signed=True)

    secret = hook["attributes"]["secret"]

    assert secret.startswith("whsec_")
    assert len(b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert data(world.stranger.get(f"/v1/hooks/{hook['id']}"))["attributes"]["secret"] is None


def test_no_two_hooks_share_a_token_or_a_secret(world: World) -> None:
    hooks = [made(world.stranger, signed=True)["attributes"] for _ in range(3)]

    assert len({each["url"] for each in hooks}) == 3
    assert len({each["secret"] for each in hooks}) == 3


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"kind": "no-such-kind"}, {"/data/attributes/kind"}),
        ({"kind": ""}, {"/data/attributes/kind"}),
        ({"kind": "x" * 10_000}, {"/data/attributes/kind"}),
        ({"kind": None}, {"/data/attributes/kind"}),
        ({"name": "x" * 256}, {"/data/attributes/name"}),
        ({"parameters": []}, {"/data/attributes/parameters"}),
        ({"parameters": None}, {"/data/attributes/parameters"}),
        ({"parameters": {"seconds": "2"}}, {"/data/attributes/parameters/seconds"}),
        ({"parameters": {"steps": 0}}, {"/data/attributes/parameters/steps"}),
        ({"parameters": {"a/b": 1}}, {"/data/attributes/parameters/a~1b"}),
        ({"parameters": {"x" * 10_000: 1}}, {f"/data/attributes/parameters/{'x' * 10_000}"}),
        ({"parameters": {"x" * 70_000: 1}}, {"/data/attributes/parameters"}),
        ({"enabled": "maybe"}, {"/data/attributes/enabled"}),
        ({"signed": None}, {"/data/attributes/signed"}),
        ({"allowed-parameters": "steps"}, {"/data/attributes/allowed-parameters"}),
        ({"allowed-parameters": [1]}, {"/data/attributes/allowed-parameters"}),
        ({"allowed-parameters": ["steps", "steps"]}, {"/data/attributes/allowed-parameters"}),
        ({"allowed-parameters": ["x" * 256]}, {"/data/attributes/allowed-parameters"}),
        ({"allowed-parameters": [f"p{number}" for number in range(101)]}, {"/data/attributes/allowed-parameters"}),
        ({"allowed-parameters": ["seconds"]}, {"/data/attributes/allowed-parameters"}),
        ({"token-hash": "00"}, {"/data/attributes/token-hash"}),
    ],
)
def test_what_is_no_hook_is_422_with_pointers(world: World, attributes: Any, expected: set[str]) -> None:
    response = world.stranger.send("POST", "/v1/hooks", document(**attributes))

    assert response.status_code == 422
    assert pointers(response) == expected
    assert world.rows(Hook) == 0


def test_a_number_without_end_is_no_json(world: World) -> None:
    response = world.stranger.send("POST", "/v1/hooks", document(parameters={"steps": 10**400}))

    assert (response.status_code, pointers(response)) == (400, {"/data/attributes/parameters/steps"})
    assert world.rows(Hook) == 0


@pytest.mark.parametrize("name", ["url", "secret", "last-called-at", "created-at"])
def test_what_the_server_writes_is_not_taken(world: World, name: str) -> None:
    response = world.stranger.send("POST", "/v1/hooks", document(**{name: "2030-01-01T00:00:00+00:00"}))

    assert (response.status_code, pointers(response)) == (403, {f"/data/attributes/{name}"})
    assert world.rows(Hook) == 0


def test_fixed_parameters_may_be_incomplete(world: World) -> None:
    nothing = world.stranger.create("/v1/hooks", "hook", {"kind": "sleep"})
    some = make(world.stranger, parameters={"steps": 2})
    # Of a picture these need the picture, which comes with the call.
    options = make(world.stranger, "resize-image", {"width": 100})

    assert [each.status_code for each in (nothing, some, options)] == [201, 201, 201]
    assert data(nothing)["attributes"]["parameters"] == {}


@pytest.mark.parametrize("name", ["owner", "event"])
def test_relationships_are_not_chosen(world: World, name: str) -> None:
    related = {name: world.events["published"] if name == "event" else world.owner.id}

    response = world.stranger.create("/v1/hooks", "hook", {"kind": "sleep"}, **related)

    assert (response.status_code, pointers(response)) == (403, {f"/data/relationships/{name}"})


START = {"anonymous": 401, "stranger": 403} | dict.fromkeys(ROLES[2:], 201)


@pytest.mark.parametrize("role", ROLES)
def test_a_hook_about_an_event_is_made_by_its_team(world: World, role: str) -> None:
    response = make(world.callers[role], "import-images", {"event": world.events["published"]})

    assert response.status_code == START[role]
    if response.status_code == 201:
        event = {"type": "event", "id": str(world.events["published"])}
        assert data(response)["relationships"]["event"]["data"] == event
    else:
        assert world.rows(Hook) == 0


@pytest.mark.parametrize(("state", "expected"), [("draft", 404), ("trashed", 404), ("others", 403)])
def test_a_hook_about_another_event_is_refused(world: World, state: str, expected: int) -> None:
    caller = world.stranger if state == "draft" else world.owner

    response = make(caller, "import-images", {"event": world.events[state]})

    assert response.status_code == expected
    assert world.rows(Hook) == 0


def test_nobody_resizes_the_picture_of_another_user(world: World) -> None:
    refused = make(world.stranger, "resize-image", {"user": world.owner.id})
    own = make(world.stranger, "resize-image", {"user": world.stranger.id})

    assert (refused.status_code, own.status_code) == (403, 201)


def test_a_hook_is_its_owners_and_the_admins(world: World) -> None:
    hook = made(world.coorganizer, "import-images", {"event": world.events["published"]})
    path = f"/v1/hooks/{hook['id']}"
    urls = [f"{path}{rest}" for rest in ("", "/event", "/owner", "/relationships/owner", "/relationships/event")]

    for role in ROLES:
        caller = world.callers[role]
        expected = {"anonymous": 401, "coorganizer": 200, "admin": 200, "super_admin": 200}.get(role, 404)
        read = {url: caller.get(url).status_code for url in urls}
        changes = [
            caller.update(path, "hook", {"name": role}),
            caller.send("POST", f"{path}/rotate"),
            caller.delete(path) if role in ("anonymous", "stranger", "owner") else caller.get(path),
        ]
        assert {read[path], read[urls[3]], read[urls[4]]} == {expected}, role
        assert {each.status_code for each in changes} == {expected}, role
        listed = caller.get("/v1/hooks")
        if role == "anonymous":
            assert listed.status_code == 401
            assert make(caller).status_code == 401
        else:
            assert (int(hook["id"]) in ids(listed)) == (expected == 200), role


def test_hooks_are_listed_newest_first_and_filtered(world: World) -> None:
    first, second = made(world.stranger), made(world.stranger, "sleep-once", enabled=False)

    def listed(query: str) -> list[int]:
        return ids(world.stranger.get(f"/v1/hooks{query}"))

    assert listed("") == [int(second["id"]), int(first["id"])]
    assert listed("?filter[kind]=sleep") == [int(first["id"])]
    assert listed("?filter[enabled]=false&include=owner,event") == [int(second["id"])]


@pytest.mark.parametrize("name", ["token_hash", "token-hash", "url", "secret", "parameters"])
def test_the_token_is_no_way_to_find_a_hook(world: World, name: str) -> None:
    made(world.stranger)

    for query in (f"filter[{name}]=x", f"filter[{name}][is-null]=true", f"fields[hook]={name}", f"sort={name}"):
        response = world.stranger.get(f"/v1/hooks?{query}")
        if response.status_code == 200:  # as good as no order, and null
            assert name in ("url", "secret", "parameters")
            assert data(response)[0]["attributes"].get(name) in (None, {"seconds": 0})
        else:
            assert response.status_code == 400


@pytest.mark.parametrize(
    "query", ["", "?fields[hook]=name,url,secret", "?include=owner", "?filter[kind]=sleep", "?get_trashed=true"]
)
def test_no_answer_but_the_first_shows_the_token(world: World, query: str) -> None:
    hook = made(world.admin, signed=True)
    token = path_of(hook).rpartition("/")[2]
    hidden = (token, hook["attributes"]["secret"], sha256(token.encode()).hexdigest())

    answers = [
        world.admin.get(f"/v1/hooks{query}"),
        *([world.admin.get(f"/v1/hooks/{hook['id']}{query}")] if "filter" not in query else []),
        world.admin.update(f"/v1/hooks/{hook['id']}", "hook", {"name": "New"}),
        world.admin.get(f"/v1/hooks/{hook['id']}/owner"),
    ]

    assert {each.status_code for each in answers} == {200}
    assert not any(secret in each.text for each in answers for secret in hidden)


def test_the_url_is_left_out_where_it_is_not_asked_for(world: World) -> None:
    hook = data(world.stranger.send("POST", "/v1/hooks?fields[hook]=kind", document()))

    assert hook["attributes"] == {"kind": "sleep"}


def test_name_parameters_and_enabled_are_changed(world: World) -> None:
    hook = made(world.stranger)
    changes = {"name": "Other", "parameters": {"steps": 3}, "enabled": False}

    response = world.stranger.update(f"/v1/hooks/{hook['id']}", "hook", changes)

    attributes = data(response)["attributes"]
    assert response.status_code == 200
    assert {name: attributes[name] for name in changes} == changes


@pytest.mark.parametrize("change", [{"kind": "sleep-once"}, {"signed": True}])
def test_kind_and_signed_are_chosen_on_creation(world: World, change: Any) -> None:
    hook = made(world.stranger)

    response = world.stranger.update(f"/v1/hooks/{hook['id']}", "hook", change)

    assert (response.status_code, pointers(response)) == (403, {f"/data/attributes/{name}" for name in change})


def test_a_client_may_send_back_all_it_was_shown(world: World) -> None:
    hook = made(world.stranger, signed=True)
    path = f"/v1/hooks/{hook['id']}"

    same = world.stranger.update(path, "hook", {**hook["attributes"], "enabled": False})
    other = world.stranger.update(path, "hook", {"url": hook["attributes"]["url"][:-1], "secret": "whsec_AAAA"})

    assert (same.status_code, data(same)["attributes"]["enabled"]) == (200, False)
    assert (other.status_code, pointers(other)) == (403, {"/data/attributes/url", "/data/attributes/secret"})


def test_changed_parameters_are_checked_as_new_ones(world: World) -> None:
    hook = made(world.coorganizer, "import-images", {"event": world.events["published"]})
    path = f"/v1/hooks/{hook['id']}"

    def change(**parameters: Any) -> int:
        return world.coorganizer.update(path, "hook", {"parameters": parameters}).status_code

    assert change(event=world.events["others"]) == 403
    assert change(event=world.events["trashed"]) == 404
    assert change(event="one") == 422
    assert change(other=1) == 422
    assert data(world.coorganizer.get(path))["attributes"]["parameters"] == {"event": world.events["published"]}
    assert change() == 200
    assert data(world.coorganizer.get(path))["relationships"]["event"]["data"] is None
    assert change(event=world.events["draft"]) == 200
    shown = data(world.coorganizer.get(path))["relationships"]["event"]["data"]
    assert shown == {"type": "event", "id": str(world.events["draft"])}


def test_rotation_makes_another_url_and_the_old_one_void(world: World) -> None:
    hook = made(world.stranger)

    response = world.stranger.send("POST", f"/v1/hooks/{hook['id']}/rotate")

    rotated = data(response)
    assert response.status_code == 200
    assert rotated["id"] == hook["id"]
    assert call(world.app, hook).status_code == 404
    assert call(world.app, rotated).status_code == 202


def test_rotation_makes_another_secret(world: World) -> None:
    hook = made(world.stranger, signed=True)

    rotated = data(world.stranger.send("POST", f"/v1/hooks/{hook['id']}/rotate"))

    assert rotated["attributes"]["secret"].startswith("whsec_")
    assert rotated["attributes"]["secret"] != hook["attributes"]["secret"]


@pytest.mark.parametrize("path", ["/v1/hooks", "/v1/hooks/{id}/rotate"])
def test_the_answer_for_a_key_comes_again_without_the_token(world: World, path: str) -> None:
    hook = made(world.stranger, signed=True)
    sent = document(signed=True) if path == "/v1/hooks" else None
    path = path.replace("{id}", hook["id"])

    first = world.stranger.send("POST", path, sent, Idempotency_Key="one")
    again = world.stranger.send("POST", path, sent, Idempotency_Key="one")

    assert again.headers["Idempotent-Replayed"] == "true"
    assert (data(again)["id"], again.status_code) == (data(first)["id"], first.status_code)
    shown, replayed = data(first)["attributes"], data(again)["attributes"]
    assert replayed == {**shown, "url": None, "secret": None}
    assert call(world.app, data(first)).status_code == 401  # it is the token, only the signature is missing
    with world.app.app_context():
        (stored,) = db.session.execute(select(IdempotencyKey.body)).scalars()
        kept = open_bytes(stored, place("idempotency_keys", "body", f"{world.stranger.id}.one"))
    assert data(first)["id"].encode() in kept
    assert shown["url"].encode() not in kept
    assert shown["secret"].encode() not in kept


def test_a_hook_made_by_operations_gets_its_url_by_rotation(world: World) -> None:
    operations = {"atomic:operations": [{"op": "add", "data": document()["data"]}]}
    content_type = f'{JSONAPI}; ext="{EXTENSION}"'

    response = world.stranger.send("POST", "/v1/operations", operations, Content_Type=content_type)

    hook = response.get_json(force=True)["atomic:results"][0]["data"]
    assert hook["attributes"]["url"] is None
    assert stored(world, hook).token_hash is None
    assert call(world.app, data(world.stranger.send("POST", f"/v1/hooks/{hook['id']}/rotate"))).status_code == 202


def test_a_hook_goes_to_the_trash_and_comes_back(world: World) -> None:
    hook = made(world.stranger)
    path = f"/v1/hooks/{hook['id']}"

    deleted = world.stranger.delete(path)

    assert deleted.status_code == 200
    assert world.stranger.get(path).status_code == 404
    assert world.admin.get(path).status_code == 404
    assert world.stranger.get(f"{path}?get_trashed=true").status_code == 403
    assert call(world.app, hook).status_code == 404
    restored = world.admin.update(f"{path}?get_trashed=true", "hook", {"deleted-at": None})
    assert restored.status_code == 200
    assert call(world.app, hook).status_code == 202


@pytest.mark.parametrize("id_", ["0", "999999999", "abc", "0" * 400, "%00", "-1"])
def test_an_unknown_id_is_404(world: World, id_: str) -> None:
    for below in ("", "/owner", "/relationships/event"):
        assert world.admin.get(f"/v1/hooks/{id_}{below}").status_code == 404
    assert world.admin.update(f"/v1/hooks/{id_}", "hook", {"name": "New"}).status_code in (404, 409)
    assert world.admin.send("POST", f"/v1/hooks/{id_}/rotate").status_code == 404


@pytest.mark.parametrize("rest", ["", "/owner", "/event", "/relationships/owner", "/rotate"])
def test_an_error_never_repeats_a_token(world: World, rest: str) -> None:
    hook = made(world.stranger)
    path = path_of(hook)

    for method in ("GET", "POST", "PATCH", "PUT", "DELETE"):
        if (method, rest) == ("POST", ""):
            continue
        for caller in (world.stranger, world.anonymous):
            body = {"data": {"type": "hook", "id": hook["id"]}} if method == "PATCH" else None
            response = caller.send(method, f"{path}{rest}", body)
            assert response.status_code >= 400
            assert path.rpartition("/")[2] not in response.text


def test_a_changed_hook_is_only_changed_by_who_knows_it(world: World) -> None:
    hook = made(world.stranger)
    path = f"/v1/hooks/{hook['id']}"

    refused = world.stranger.send("DELETE", path, If_Match='"other"')
    etag = world.stranger.get(path).headers["ETag"]
    accepted = world.stranger.send("DELETE", path, If_Match=etag)

    assert (refused.status_code, accepted.status_code) == (412, 200)


def test_making_a_hook_starts_nothing(world: World) -> None:
    made(world.stranger)

    assert world.rows(Job) == 0


def test_an_unknown_query_parameter_is_400(world: World) -> None:
    hook = made(world.stranger)

    response = world.stranger.send("POST", f"/v1/hooks/{hook['id']}/rotate?force=1")

    assert response.status_code == 400
    assert errors(response)[0]["source"] == {"parameter": "force"}
