"""Only super admins can change and start again what a super admin owns."""

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
from tests.dataset import Dataset, get_data, get_errors


@pytest.fixture
def super_admin_resources(dataset: Dataset) -> dict[str, str]:
    """Give the resources of the dataset that have an owner to the super admin; return their ids."""
    ids = dataset.get_background_ids()
    with dataset.app.app_context():
        for model, name in ((Job, "job"), (Hook, "hook"), (Upload, "upload"), (DocumentSet, "document-set")):
            key: Any = UUID(ids[name]) if name == "job" else int(ids[name])
            db.session.execute(update(model).where(model.id == key).values(owner_id=dataset.super_admin.id))
        db.session.execute(update(Treatment).values(requested_by_id=dataset.super_admin.id))
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
    dataset: Dataset, super_admin_resources: dict[str, str], method: str, path: str, sent: Any
) -> None:
    document = (
        None if sent is None else {"data": {**sent, "id": sent["id"].format(**super_admin_resources)} if sent else sent}
    )

    refused = dataset.admin.send(method, path.format(**super_admin_resources), document)
    permitted = dataset.super_admin.send(method, path.format(**super_admin_resources), document)

    assert (refused.status_code, get_errors(refused)[0]["code"]) == (403, "forbidden")
    assert "whsec_" not in refused.text
    assert permitted.status_code != 403


def test_an_admin_still_acts_for_everybody_else(dataset: Dataset) -> None:
    ids = dataset.get_background_ids()

    for path in ("/v1/hooks/{hook}/rotate", "/v1/jobs/{job}/retry"):
        assert dataset.admin.send("POST", path.format(**ids)).status_code in (200, 202)
    for path in ("/v1/hooks/{hook}", "/v1/uploads/{upload}", "/v1/document-sets/{document-set}"):
        assert dataset.admin.delete(path.format(**ids)).status_code == 200


def test_an_admin_changes_no_event_of_a_super_admin(dataset: Dataset) -> None:
    event = get_data(
        dataset.super_admin.create("/v1/events", "event", {"name": "x", "timezone": "UTC", "bank-details": "DE"})
    )
    path = f"/v1/events/{event['id']}"
    admin = {"type": "user", "id": str(dataset.admin.id)}

    refused = [
        dataset.admin.send("PATCH", f"{path}/relationships/owner", {"data": admin}),
        dataset.admin.send("PATCH", f"{path}/relationships/pending-owner", {"data": admin}),
        dataset.admin.send("POST", f"{path}/relationships/organizers", {"data": [admin]}),
        dataset.admin.update(path, "event", {}, owner=dataset.admin.id),
        dataset.admin.update(path, "event", {"name": "y"}),
        dataset.admin.update(path, "event", {"bank-details": "mine"}),
        dataset.admin.delete(path),
    ]

    assert [(each.status_code, get_errors(each)[0]["code"]) for each in refused] == [(403, "forbidden")] * len(refused)
    assert get_data(dataset.admin.get(path))["attributes"]["name"] == "x"
    dataset.super_admin.send("POST", f"{path}/relationships/organizers", {"data": [admin]})
    assert dataset.admin.update(path, "event", {"name": "y"}).status_code == 200  # as a member of the team
    assert dataset.admin.update(path, "event", {"bank-details": "mine"}).status_code == 403
    assert dataset.super_admin.delete(path).status_code == 200
    others = f"/v1/events/{dataset.events['published']}"
    assert dataset.admin.update(others, "event", {"name": "y"}).status_code == 200
