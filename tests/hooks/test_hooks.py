"""/v1/hooks: creation, reading, update, rotation and deletion, with permissions."""

import re
from base64 import b64decode
from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import select

from app.encryption import build_associated_data, decrypt_bytes
from app.extensions import db
from app.hooks.models import Hook
from app.jobs.models import Job
from app.jsonapi.atomic_operations import EXTENSION
from app.jsonapi.idempotency import IdempotencyKey
from tests.dataset import JSONAPI, ROLES, Dataset, get_data, get_errors, get_ids, get_pointers
from tests.hooks.requests import call_hook, create_hook, get_hook_path, post_hook


def get_hook_row(dataset: Dataset, hook: Any) -> Hook:
    """Return the row of a hook."""
    with dataset.app.app_context():
        return db.session.execute(select(Hook).where(Hook.id == int(hook["id"]))).scalar_one()


def build_hook_document(**attributes: Any) -> dict[str, Any]:
    """Return the document of a new hook."""
    return {"data": {"type": "hook", "attributes": {"kind": "sleep", "parameters": {"seconds": 0}, **attributes}}}


def test_a_hook_is_made_and_shows_its_url_once(dataset: Dataset) -> None:
    response = post_hook(dataset.stranger, name="Nightly")

    assert response.status_code == 201
    hook = get_data(response)
    attributes = hook["attributes"]
    assert re.fullmatch(
        re.escape(dataset.app.config["PUBLIC_URL"]) + "/v1/hooks/[A-Za-z0-9_-]{43}", attributes.pop("url")
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
    assert hook["relationships"]["owner"]["data"] == {"type": "user", "id": str(dataset.stranger.id)}
    assert hook["relationships"]["event"]["data"] is None
    shown = get_data(dataset.stranger.get(f"/v1/hooks/{hook['id']}"))["attributes"]
    assert (shown["url"], shown["secret"]) == (None, None)


def test_only_the_hash_of_the_token_is_stored(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger, signed=True)

    row = get_hook_row(dataset, hook)

    token = get_hook_path(hook).rpartition("/")[2]
    assert row.token_hash == sha256(token.encode()).digest()
    kept = repr({column.name: getattr(row, column.name) for column in Hook.__table__.c})
    assert token not in kept
    assert hook["attributes"]["secret"].removeprefix("whsec_") not in kept


def test_a_signed_hook_shows_its_secret_once(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger, signed=True)

    secret = hook["attributes"]["secret"]

    assert secret.startswith("whsec_")
    assert len(b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert get_data(dataset.stranger.get(f"/v1/hooks/{hook['id']}"))["attributes"]["secret"] is None


def test_no_two_hooks_share_a_token_or_a_secret(dataset: Dataset) -> None:
    hooks = [create_hook(dataset.stranger, signed=True)["attributes"] for _ in range(3)]

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
def test_invalid_hook_is_422_with_pointers(dataset: Dataset, attributes: Any, expected: set[str]) -> None:
    response = dataset.stranger.send("POST", "/v1/hooks", build_hook_document(**attributes))

    assert response.status_code == 422
    assert get_pointers(response) == expected
    assert dataset.count_rows(Hook) == 0


def test_a_number_without_end_is_no_json(dataset: Dataset) -> None:
    response = dataset.stranger.send("POST", "/v1/hooks", build_hook_document(parameters={"steps": 10**400}))

    assert (response.status_code, get_pointers(response)) == (400, {"/data/attributes/parameters/steps"})
    assert dataset.count_rows(Hook) == 0


@pytest.mark.parametrize("name", ["url", "secret", "last-called-at", "created-at"])
def test_server_managed_attributes_are_403(dataset: Dataset, name: str) -> None:
    response = dataset.stranger.send("POST", "/v1/hooks", build_hook_document(**{name: "2030-01-01T00:00:00+00:00"}))

    assert (response.status_code, get_pointers(response)) == (403, {f"/data/attributes/{name}"})
    assert dataset.count_rows(Hook) == 0


def test_fixed_parameters_may_be_incomplete(dataset: Dataset) -> None:
    nothing = dataset.stranger.create("/v1/hooks", "hook", {"kind": "sleep"})
    some = post_hook(dataset.stranger, parameters={"steps": 2})
    # Of a picture these need the picture, which comes with the call.
    options = post_hook(dataset.stranger, "resize-image", {"width": 100})

    assert [each.status_code for each in (nothing, some, options)] == [201, 201, 201]
    assert get_data(nothing)["attributes"]["parameters"] == {}


@pytest.mark.parametrize("name", ["owner", "event"])
def test_relationships_are_not_chosen(dataset: Dataset, name: str) -> None:
    related = {name: dataset.events["published"] if name == "event" else dataset.owner.id}

    response = dataset.stranger.create("/v1/hooks", "hook", {"kind": "sleep"}, **related)

    assert (response.status_code, get_pointers(response)) == (403, {f"/data/relationships/{name}"})


START_STATUSES = {"anonymous": 401, "stranger": 403} | dict.fromkeys(ROLES[2:], 201)


@pytest.mark.parametrize("role", ROLES)
def test_a_hook_about_an_event_is_made_by_its_team(dataset: Dataset, role: str) -> None:
    response = post_hook(dataset.callers[role], "import-images", {"event": dataset.events["published"]})

    assert response.status_code == START_STATUSES[role]
    if response.status_code == 201:
        event = {"type": "event", "id": str(dataset.events["published"])}
        assert get_data(response)["relationships"]["event"]["data"] == event
    else:
        assert dataset.count_rows(Hook) == 0


@pytest.mark.parametrize(("state", "expected"), [("draft", 404), ("trashed", 404), ("others", 403)])
def test_a_hook_about_another_event_is_refused(dataset: Dataset, state: str, expected: int) -> None:
    caller = dataset.stranger if state == "draft" else dataset.owner

    response = post_hook(caller, "import-images", {"event": dataset.events[state]})

    assert response.status_code == expected
    assert dataset.count_rows(Hook) == 0


def test_nobody_resizes_the_picture_of_another_user(dataset: Dataset) -> None:
    refused = post_hook(dataset.stranger, "resize-image", {"user": dataset.owner.id})
    own = post_hook(dataset.stranger, "resize-image", {"user": dataset.stranger.id})

    assert (refused.status_code, own.status_code) == (403, 201)


def test_a_hook_is_its_owners_and_the_admins(dataset: Dataset) -> None:
    hook = create_hook(dataset.coorganizer, "import-images", {"event": dataset.events["published"]})
    path = f"/v1/hooks/{hook['id']}"
    urls = [f"{path}{rest}" for rest in ("", "/event", "/owner", "/relationships/owner", "/relationships/event")]

    for role in ROLES:
        caller = dataset.callers[role]
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
            assert post_hook(caller).status_code == 401
        else:
            assert (int(hook["id"]) in get_ids(listed)) == (expected == 200), role


def test_hooks_are_listed_newest_first_and_filtered(dataset: Dataset) -> None:
    first, second = create_hook(dataset.stranger), create_hook(dataset.stranger, "sleep-once", enabled=False)

    def list_hooks(query: str) -> list[int]:
        return get_ids(dataset.stranger.get(f"/v1/hooks{query}"))

    assert list_hooks("") == [int(second["id"]), int(first["id"])]
    assert list_hooks("?filter[kind]=sleep") == [int(first["id"])]
    assert list_hooks("?filter[enabled]=false&include=owner,event") == [int(second["id"])]


@pytest.mark.parametrize("name", ["token_hash", "token-hash", "url", "secret", "parameters"])
def test_the_token_is_no_way_to_find_a_hook(dataset: Dataset, name: str) -> None:
    create_hook(dataset.stranger)

    for query in (f"filter[{name}]=x", f"filter[{name}][is-null]=true", f"fields[hook]={name}", f"sort={name}"):
        response = dataset.stranger.get(f"/v1/hooks?{query}")
        if response.status_code == 200:  # as good as no order, and null
            assert name in ("url", "secret", "parameters")
            assert get_data(response)[0]["attributes"].get(name) in (None, {"seconds": 0})
        else:
            assert response.status_code == 400


@pytest.mark.parametrize(
    "query", ["", "?fields[hook]=name,url,secret", "?include=owner", "?filter[kind]=sleep", "?get_trashed=true"]
)
def test_no_answer_but_the_first_shows_the_token(dataset: Dataset, query: str) -> None:
    hook = create_hook(dataset.admin, signed=True)
    token = get_hook_path(hook).rpartition("/")[2]
    hidden = (token, hook["attributes"]["secret"], sha256(token.encode()).hexdigest())

    answers = [
        dataset.admin.get(f"/v1/hooks{query}"),
        *([dataset.admin.get(f"/v1/hooks/{hook['id']}{query}")] if "filter" not in query else []),
        dataset.admin.update(f"/v1/hooks/{hook['id']}", "hook", {"name": "New"}),
        dataset.admin.get(f"/v1/hooks/{hook['id']}/owner"),
    ]

    assert {each.status_code for each in answers} == {200}
    assert not any(secret in each.text for each in answers for secret in hidden)


def test_the_url_is_left_out_where_it_is_not_asked_for(dataset: Dataset) -> None:
    hook = get_data(dataset.stranger.send("POST", "/v1/hooks?fields[hook]=kind", build_hook_document()))

    assert hook["attributes"] == {"kind": "sleep"}


def test_name_parameters_and_enabled_are_changed(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger)
    changes = {"name": "Other", "parameters": {"steps": 3}, "enabled": False}

    response = dataset.stranger.update(f"/v1/hooks/{hook['id']}", "hook", changes)

    attributes = get_data(response)["attributes"]
    assert response.status_code == 200
    assert {name: attributes[name] for name in changes} == changes


@pytest.mark.parametrize("change", [{"kind": "sleep-once"}, {"signed": True}])
def test_kind_and_signed_are_chosen_on_creation(dataset: Dataset, change: Any) -> None:
    hook = create_hook(dataset.stranger)

    response = dataset.stranger.update(f"/v1/hooks/{hook['id']}", "hook", change)

    assert (response.status_code, get_pointers(response)) == (403, {f"/data/attributes/{name}" for name in change})


def test_a_client_may_send_back_all_it_was_shown(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger, signed=True)
    path = f"/v1/hooks/{hook['id']}"

    same = dataset.stranger.update(path, "hook", {**hook["attributes"], "enabled": False})
    other = dataset.stranger.update(path, "hook", {"url": hook["attributes"]["url"][:-1], "secret": "whsec_AAAA"})

    assert (same.status_code, get_data(same)["attributes"]["enabled"]) == (200, False)
    assert (other.status_code, get_pointers(other)) == (403, {"/data/attributes/url", "/data/attributes/secret"})


def test_changed_parameters_are_checked_as_new_ones(dataset: Dataset) -> None:
    hook = create_hook(dataset.coorganizer, "import-images", {"event": dataset.events["published"]})
    path = f"/v1/hooks/{hook['id']}"

    def change(**parameters: Any) -> int:
        return dataset.coorganizer.update(path, "hook", {"parameters": parameters}).status_code

    assert change(event=dataset.events["others"]) == 403
    assert change(event=dataset.events["trashed"]) == 404
    assert change(event="one") == 422
    assert change(other=1) == 422
    assert get_data(dataset.coorganizer.get(path))["attributes"]["parameters"] == {"event": dataset.events["published"]}
    assert change() == 200
    assert get_data(dataset.coorganizer.get(path))["relationships"]["event"]["data"] is None
    assert change(event=dataset.events["draft"]) == 200
    shown = get_data(dataset.coorganizer.get(path))["relationships"]["event"]["data"]
    assert shown == {"type": "event", "id": str(dataset.events["draft"])}


def test_rotation_makes_another_url_and_the_old_one_void(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger)

    response = dataset.stranger.send("POST", f"/v1/hooks/{hook['id']}/rotate")

    rotated = get_data(response)
    assert response.status_code == 200
    assert rotated["id"] == hook["id"]
    assert call_hook(dataset.app, hook).status_code == 404
    assert call_hook(dataset.app, rotated).status_code == 202


def test_rotation_makes_another_secret(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger, signed=True)

    rotated = get_data(dataset.stranger.send("POST", f"/v1/hooks/{hook['id']}/rotate"))

    assert rotated["attributes"]["secret"].startswith("whsec_")
    assert rotated["attributes"]["secret"] != hook["attributes"]["secret"]


@pytest.mark.parametrize("path", ["/v1/hooks", "/v1/hooks/{id}/rotate"])
def test_the_answer_for_a_key_comes_again_without_the_token(dataset: Dataset, path: str) -> None:
    hook = create_hook(dataset.stranger, signed=True)
    sent = build_hook_document(signed=True) if path == "/v1/hooks" else None
    path = path.replace("{id}", hook["id"])

    first = dataset.stranger.send("POST", path, sent, Idempotency_Key="one")
    again = dataset.stranger.send("POST", path, sent, Idempotency_Key="one")

    assert again.headers["Idempotent-Replayed"] == "true"
    assert (get_data(again)["id"], again.status_code) == (get_data(first)["id"], first.status_code)
    shown, replayed = get_data(first)["attributes"], get_data(again)["attributes"]
    assert replayed == {**shown, "url": None, "secret": None}
    assert call_hook(dataset.app, get_data(first)).status_code == 401  # it is the token, only the signature is missing
    with dataset.app.app_context():
        (stored,) = db.session.execute(select(IdempotencyKey.body)).scalars()
        kept = decrypt_bytes(stored, build_associated_data("idempotency_keys", "body", f"{dataset.stranger.id}.one"))
    assert get_data(first)["id"].encode() in kept
    assert shown["url"].encode() not in kept
    assert shown["secret"].encode() not in kept


def test_a_hook_made_by_operations_gets_its_url_by_rotation(dataset: Dataset) -> None:
    operations = {"atomic:operations": [{"op": "add", "data": build_hook_document()["data"]}]}
    content_type = f'{JSONAPI}; ext="{EXTENSION}"'

    response = dataset.stranger.send("POST", "/v1/operations", operations, Content_Type=content_type)

    hook = response.get_json(force=True)["atomic:results"][0]["data"]
    assert hook["attributes"]["url"] is None
    assert get_hook_row(dataset, hook).token_hash is None
    assert (
        call_hook(dataset.app, get_data(dataset.stranger.send("POST", f"/v1/hooks/{hook['id']}/rotate"))).status_code
        == 202
    )


def test_a_hook_goes_to_the_trash_and_comes_back(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger)
    path = f"/v1/hooks/{hook['id']}"

    deleted = dataset.stranger.delete(path)

    assert deleted.status_code == 200
    assert dataset.stranger.get(path).status_code == 404
    assert dataset.admin.get(path).status_code == 404
    assert dataset.stranger.get(f"{path}?get_trashed=true").status_code == 403
    assert call_hook(dataset.app, hook).status_code == 404
    restored = dataset.admin.update(f"{path}?get_trashed=true", "hook", {"deleted-at": None})
    assert restored.status_code == 200
    assert call_hook(dataset.app, hook).status_code == 202


@pytest.mark.parametrize("id_", ["0", "999999999", "abc", "0" * 400, "%00", "-1"])
def test_an_unknown_id_is_404(dataset: Dataset, id_: str) -> None:
    for below in ("", "/owner", "/relationships/event"):
        assert dataset.admin.get(f"/v1/hooks/{id_}{below}").status_code == 404
    assert dataset.admin.update(f"/v1/hooks/{id_}", "hook", {"name": "New"}).status_code in (404, 409)
    assert dataset.admin.send("POST", f"/v1/hooks/{id_}/rotate").status_code == 404


@pytest.mark.parametrize("rest", ["", "/owner", "/event", "/relationships/owner", "/rotate"])
def test_an_error_never_repeats_a_token(dataset: Dataset, rest: str) -> None:
    hook = create_hook(dataset.stranger)
    path = get_hook_path(hook)

    for method in ("GET", "POST", "PATCH", "PUT", "DELETE"):
        if (method, rest) == ("POST", ""):
            continue
        for caller in (dataset.stranger, dataset.anonymous):
            body = {"data": {"type": "hook", "id": hook["id"]}} if method == "PATCH" else None
            response = caller.send(method, f"{path}{rest}", body)
            assert response.status_code >= 400
            assert path.rpartition("/")[2] not in response.text


def test_a_changed_hook_is_only_changed_by_who_knows_it(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger)
    path = f"/v1/hooks/{hook['id']}"

    refused = dataset.stranger.send("DELETE", path, If_Match='"other"')
    etag = dataset.stranger.get(path).headers["ETag"]
    accepted = dataset.stranger.send("DELETE", path, If_Match=etag)

    assert (refused.status_code, accepted.status_code) == (412, 200)


def test_making_a_hook_starts_nothing(dataset: Dataset) -> None:
    create_hook(dataset.stranger)

    assert dataset.count_rows(Job) == 0


def test_an_unknown_query_parameter_is_400(dataset: Dataset) -> None:
    hook = create_hook(dataset.stranger)

    response = dataset.stranger.send("POST", f"/v1/hooks/{hook['id']}/rotate?force=1")

    assert response.status_code == 400
    assert get_errors(response)[0]["source"] == {"parameter": "force"}
