"""Purge of the trash: old rows are removed with what belongs to them; newer ones can be restored."""

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select, text, update

from app import trash
from app.database import commit, get_connection, open_transaction
from app.documents.models import SET_EVENTS, DocumentSet
from app.events.models import Event, EventRole
from app.extensions import Model
from app.faqs.models import Faq, FaqType
from app.gallery.models import EventImage
from app.hooks.models import Hook
from app.jobs.models import Job
from app.outbox import OutboxEntry
from app.stored_files import DELETE_CONSUMER
from app.treatments.models import Treatment
from app.uploads.models import Upload
from app.users.models import User
from tests.dataset import Dataset, get_data
from tests.worker_process import run_state_hooks


def soft_delete_days_ago(app: Flask, model: type[Any], id_: Any, days: int) -> None:
    """Put a row into the trash, so many days ago."""
    with app.app_context(), open_transaction(is_read=False):
        deleted_at = func.now() - timedelta(days=days)
        get_connection().execute(update(model).where(model.id == id_).values(deleted_at=deleted_at))
        commit()


def purge_and_count(app: Flask) -> int:
    """Purge as the relay does; return how many rows of the trash are gone."""
    app.extensions.pop("next_trash_purge", None)
    gone = 0
    with app.app_context():
        while count := trash.purge_trash(timedelta(days=1)):
            gone += count
    return gone


def count_rows(app: Flask, model: type[Any], *conditions: Any) -> int:
    """Return how many rows a table has."""
    with app.app_context(), open_transaction(is_read=True):
        return int(get_connection().scalar(select(func.count()).select_from(model).where(*conditions)) or 0)


def test_event_goes_with_all_that_belongs_to_it(app: Flask, dataset: Dataset) -> None:
    background = dataset.get_background_ids()  # a job and a hook about an event
    with app.app_context(), open_transaction(is_read=True):
        event_id = get_connection().scalar(select(Hook.event_id).where(Hook.id == int(background["hook"])))
    others = {model: count_rows(app, model) for model in (EventRole, Faq, FaqType, EventImage)}
    own = {model: count_rows(app, model, model.event_id == event_id) for model in others}
    assert all(own.values())
    set_id = int(background["document-set"])
    assert count_rows(app, DocumentSet, DocumentSet.id == set_id) == 1
    soft_delete_days_ago(app, Event, event_id, 31)

    assert purge_and_count(app) == 1

    assert count_rows(app, Event, Event.id == event_id) == 0
    assert {model: count_rows(app, model) for model in others} == {model: others[model] - own[model] for model in own}
    assert count_rows(app, Hook, Hook.id == int(background["hook"])) == 0
    assert count_rows(app, Job, Job.kind == "sleep", Job.event_id.is_(None)) == 1, "jobs go when they are old"
    with app.app_context(), open_transaction(is_read=True):
        links = select(func.count()).select_from(SET_EVENTS).where(SET_EVENTS.c.event_id == event_id)
        assert get_connection().scalar(links) == 0
    assert count_rows(app, OutboxEntry, OutboxEntry.consumer == DELETE_CONSUMER) == 1, "files of its gallery"
    run_state_hooks(app)
    assert get_data(dataset.owner.get(f"/v1/document-sets/{set_id}?include=events"))["id"] == str(set_id)
    assert get_data(dataset.owner.get("/v1/events"))
    assert get_data(dataset.owner.get("/v1/jobs"))


def test_row_that_was_deleted_later_stays_and_is_restored(app: Flask, dataset: Dataset) -> None:
    event_id = dataset.events["published"]
    soft_delete_days_ago(app, Event, event_id, 29)

    assert purge_and_count(app) == 0
    answer = dataset.admin.update(f"/v1/events/{event_id}?get_trashed=true", "event", {"deleted-at": None})
    assert get_data(answer)["attributes"]["deleted-at"] is None
    assert get_data(dataset.owner.get(f"/v1/events/{event_id}?include=faqs"))["relationships"]["faqs"]["data"]


def test_faq_stays_without_the_purged_type(app: Flask, dataset: Dataset) -> None:
    type_id, faq_id = dataset.types["published"], dataset.faqs["published"]
    soft_delete_days_ago(app, FaqType, type_id, 31)

    assert purge_and_count(app) == 1
    assert count_rows(app, Faq, Faq.id == faq_id, Faq.faq_type_id.is_(None)) == 1


def test_faq_upload_and_hook_leave_the_trash(app: Flask, dataset: Dataset) -> None:
    background = dataset.get_background_ids()
    rows = ((Faq, dataset.faqs["published"]), (Upload, int(background["upload"])), (Hook, int(background["hook"])))
    for model, id_ in rows:
        soft_delete_days_ago(app, model, id_, 31)

    assert purge_and_count(app) == 3
    assert [count_rows(app, model, model.id == id_) for model, id_ in rows] == [0, 0, 0]


def test_document_set_stays_as_long_as_it_has_a_treatment(app: Flask, dataset: Dataset) -> None:
    treated, other = int(dataset.get_background_ids()["document-set"]), dataset.create_document_set("owner")
    for set_id in (treated, other):
        soft_delete_days_ago(app, DocumentSet, set_id, 31)

    assert purge_and_count(app) == 1
    assert count_rows(app, DocumentSet, DocumentSet.id == treated) == 1
    assert count_rows(app, Treatment) == 1
    with app.app_context(), open_transaction(is_read=False):
        get_connection().execute(text("DELETE FROM jobs"))
        commit()
    assert purge_and_count(app) == 1


def test_purge_keeps_users_and_images(app: Flask, dataset: Dataset) -> None:
    soft_delete_days_ago(app, User, dataset.stranger.id, 31)
    soft_delete_days_ago(app, EventImage, dataset.images["published"], 31)

    assert purge_and_count(app) == 0
    assert count_rows(app, EventImage, EventImage.deleted_at.is_not(None)) == 1


@pytest.mark.usefixtures("dataset")
def test_trash_is_kept_for_ever_where_the_setting_is_0(
    app: Flask, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "TRASH_RETENTION_DAYS", 0)
    soft_delete_days_ago(app, Faq, dataset.faqs["published"], 4000)
    assert purge_and_count(app) == 0


def test_trash_is_looked_at_once_an_hour(app: Flask, dataset: Dataset) -> None:
    assert purge_and_count(app) == 0
    soft_delete_days_ago(app, Faq, dataset.faqs["published"], 31)
    with app.app_context():
        assert trash.purge_trash(timedelta(days=1)) == 0
    assert purge_and_count(app) == 1


def test_row_that_a_request_holds_is_left_alone(app: Flask, dataset: Dataset) -> None:
    event_id = dataset.events["published"]
    soft_delete_days_ago(app, Event, event_id, 31)
    with app.app_context():
        engine = app.extensions["autocommit"]
        with engine.connect().execution_options(isolation_level="READ COMMITTED") as held:
            held.execute(text("SELECT 1 FROM events WHERE id = :id FOR UPDATE"), {"id": event_id})
            assert purge_and_count(app) == 0
            held.rollback()
    assert purge_and_count(app) == 1


def test_every_table_with_a_trash_is_purged_or_kept_by_name() -> None:
    tables = {table.name for table in Model.metadata.tables.values() if "deleted_at" in table.c}
    assert tables == {table.name for table in trash._list_tables()} | trash.EXCLUDED_TABLES
