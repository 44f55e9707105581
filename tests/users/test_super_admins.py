"""What a super admin owns is changed, and started again, by super admins alone."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update

from app.documents.models import DocumentSet
from app.extensions import db
from app.hooks.models import Hook
from app.jobs.models import Job
from app.treatments.models import Treatment
from app.uploads.models import Upload
from tests.world import World, data, errors


@pytest.fixture
def owned(world: World) -> dict[str, str]:
    """What the world has of everything that belongs to one user: now to the super admin."""
    ids = world.background()
    with world.app.app_context():
        for model, name in ((Job, "job"), (Hook, "hook"), (Upload, "upload"), (DocumentSet, "document-set")):
            key: Any = UUID(ids[name]) if name == "job" else int(ids[name])
            db.session.execute(update(model).where(model.id == key).values(owner_id=world.super_admin.id))
        db.session.execute(update(Treatment).values(requested_by_id=world.super_admin.id))
        db.session.commit()
    return ids


REQUESTS = [
    ("POST", "/v1/hooks/{hook}/rotate", None),
    ("PATCH", "/v1/hooks/{hook}", {"type": "hook", "id": "{hook}", "attributes": {"parameters": {"seconds": 9}}}),
    ("PATCH", "/v1/document-sets/{document-set}", {"type": "document-set", "id": "{document-set}", "attributes": {}}),
    ("PATCH", "/v1/document-sets/{document-set}/relationships/events", []),
    ("PATCH", "/v1/treatments/{treatment}", {"type": "treatment", "id": "{treatment}", "attributes": {}}),
    ("POST", "/v1/treatments/{treatment}/relaunch", None),
    ("POST", "/v1/jobs/{job}/cancel", None),
    ("POST", "/v1/jobs/{job}/retry", None),
    ("DELETE", "/v1/treatments/{treatment}", None),
    ("DELETE", "/v1/hooks/{hook}", None),
    ("DELETE", "/v1/uploads/{upload}", None),
    ("DELETE", "/v1/document-sets/{document-set}", None),
]


@pytest.mark.parametrize(("method", "path", "sent"), REQUESTS, ids=[f"{method} {path}" for method, path, _ in REQUESTS])
def test_an_admin_changes_nothing_of_a_super_admin(
    world: World, owned: dict[str, str], method: str, path: str, sent: Any
) -> None:
    document = None if sent is None else {"data": {**sent, "id": sent["id"].format(**owned)} if sent else sent}

    refused = world.admin.send(method, path.format(**owned), document)
    permitted = world.super_admin.send(method, path.format(**owned), document)

    assert (refused.status_code, errors(refused)[0]["code"]) == (403, "forbidden")
    assert "whsec_" not in refused.text
    assert permitted.status_code != 403


def test_an_admin_still_acts_for_everybody_else(world: World) -> None:
    ids = world.background()

    for path in ("/v1/hooks/{hook}/rotate", "/v1/jobs/{job}/retry"):
        assert world.admin.send("POST", path.format(**ids)).status_code in (200, 202)
    for path in ("/v1/hooks/{hook}", "/v1/uploads/{upload}", "/v1/document-sets/{document-set}"):
        assert world.admin.delete(path.format(**ids)).status_code == 200


def test_an_admin_changes_no_event_of_a_super_admin(world: World) -> None:
    event = data(
        world.super_admin.create("/v1/events", "event", {"name": "x", "timezone": "UTC", "bank-details": "DE"})
    )
    path = f"/v1/events/{event['id']}"
    admin = {"type": "user", "id": str(world.admin.id)}

    refused = [
        world.admin.send("PATCH", f"{path}/relationships/owner", {"data": admin}),
        world.admin.send("PATCH", f"{path}/relationships/pending-owner", {"data": admin}),
        world.admin.send("POST", f"{path}/relationships/organizers", {"data": [admin]}),
        world.admin.update(path, "event", {}, owner=world.admin.id),
        world.admin.update(path, "event", {"name": "y"}),
        world.admin.update(path, "event", {"bank-details": "mine"}),
        world.admin.delete(path),
    ]

    assert [(each.status_code, errors(each)[0]["code"]) for each in refused] == [(403, "forbidden")] * len(refused)
    assert data(world.admin.get(path))["attributes"]["name"] == "x"
    world.super_admin.send("POST", f"{path}/relationships/organizers", {"data": [admin]})
    assert world.admin.update(path, "event", {"name": "y"}).status_code == 200  # as a member of the team
    assert world.admin.update(path, "event", {"bank-details": "mine"}).status_code == 403
    assert world.super_admin.delete(path).status_code == 200
    others = f"/v1/events/{world.events['published']}"
    assert world.admin.update(others, "event", {"name": "y"}).status_code == 200
