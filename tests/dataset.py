"""Dataset for tests: an event in every state, a user in every role, and API clients for them."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import insert
from werkzeug.test import TestResponse

from app.documents.models import SET_EVENTS, SET_FAQS, SET_UPLOADS, DocumentSet
from app.events.models import Event, EventRole
from app.events.permissions import list_types_of_events
from app.extensions import db
from app.faqs.models import Faq, FaqType
from app.gallery.models import EventImage
from app.hooks.models import Hook
from app.jobs.models import Artifact, Job, JobEvent
from app.relay import RelayHeartbeat
from app.treatments.models import Region, Similarity, Treatment
from app.uploads.models import Upload
from app.users import login_sessions
from app.users.models import User
from tests.samples import sample_columns

JSONAPI = "application/vnd.api+json"
NEXT_MONTH = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)


class ApiClient:
    """API client of a user: sends JSON:API documents and returns responses."""

    def __init__(self, client: FlaskClient, token: str | None = None, id: int = 0) -> None:
        self.client = client
        self.token = token
        self.id = id

    def send(self, method: str, path: str, document: Any = None, **headers: str) -> TestResponse:
        """Send a request with an optional JSON:API document; return the response."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            sent.setdefault("Authorization", f"JWT {self.token}")
        if document is None:
            return self.client.open(path, method=method, headers=sent)
        body = document if isinstance(document, bytes | str) else self.client.application.json.dumps(document)
        return self.client.open(path, method=method, headers={"Content-Type": JSONAPI, **sent}, data=body)

    def get(self, path: str, **headers: str) -> TestResponse:
        """GET."""
        return self.send("GET", path, **headers)

    def create(self, path: str, type_: str, attributes: Any = None, **related: Any) -> TestResponse:
        """Send a POST request with a resource; `event=3` and `faq_type=None` become to-one linkage."""
        return self.send("POST", path, {"data": build_resource(type_, None, attributes, related)})

    def update(self, path: str, type_: str, attributes: Any = None, **related: Any) -> TestResponse:
        """Send a PATCH request with a resource to a URL that ends with its id."""
        id_ = path.partition("?")[0].rstrip("/").rpartition("/")[2]
        return self.send("PATCH", path, {"data": build_resource(type_, id_, attributes, related)})

    def delete(self, path: str) -> TestResponse:
        """DELETE."""
        return self.send("DELETE", path)


TYPES_BY_MEMBER = {
    "event": "event",
    "events": "event",
    "faq_type": "faq-type",
    "faqs": "faq",
    "uploads": "upload",
    "images": "event-image",
    "document_set": "document-set",
    "owner": "user",
    "pending_owner": "user",
    "organizers": "user",
    "coorganizers": "user",
}


def build_resource(type_: str, id_: str | None, attributes: Any, related: dict[str, Any]) -> dict[str, Any]:
    """Return a resource object."""
    made: dict[str, Any] = {"type": type_}
    if id_ is not None:
        made["id"] = id_
    if attributes is not None:
        made["attributes"] = attributes
    if related:
        made["relationships"] = {
            name.replace("_", "-"): {"data": build_linkage(TYPES_BY_MEMBER[name], value)}
            for name, value in related.items()
        }
    return made


def build_linkage(type_: str, value: Any) -> Any:
    """Return linkage for an id, a list of ids or None."""
    if isinstance(value, list):
        return [build_linkage(type_, each) for each in value]
    return None if value is None else {"type": type_, "id": str(value)}


def get_errors(response: TestResponse) -> list[dict[str, Any]]:
    """Return the error objects of a response."""
    listed: list[dict[str, Any]] = response.get_json(force=True)["errors"]
    return listed


def get_pointers(response: TestResponse) -> set[str]:
    """Return the pointers of the errors of a response."""
    return {error["source"]["pointer"] for error in get_errors(response)}


def get_data(response: TestResponse) -> Any:
    """Return the primary data of a successful response."""
    document = response.get_json(force=True)
    assert "errors" not in document, document
    return document["data"]


def get_ids(response: TestResponse) -> list[int]:
    """Return the ids in a list response."""
    return [int(item["id"]) for item in get_data(response)]


@dataclass
class Dataset:
    """Users, clients and ids of the rows of the dataset, which are in the database."""

    app: Flask
    callers: dict[str, ApiClient]
    events: dict[str, int]
    identifiers: dict[str, str]
    types: dict[str, int]
    faqs: dict[str, int]
    images: dict[str, int]
    belongings: dict[str, dict[str, int]]
    """Ids of the resources of each event, by type: a FAQ, a FAQ type, an image, and one of every other type."""
    _background: dict[str, str] | None = None

    def __getattr__(self, name: str) -> ApiClient:
        try:
            return self.callers[name]
        except KeyError:
            raise AttributeError(name) from None

    def copy_dataset(self) -> "Dataset":
        """Return a copy of the dataset with its own client and dictionaries."""
        client = self.app.test_client()
        callers = {role: ApiClient(client, caller.token, caller.id) for role, caller in self.callers.items()}
        named = {field.name: deepcopy(getattr(self, field.name)) for field in fields(self)[2:]}
        return replace(self, callers=callers, **named)

    def get_background_ids(self) -> dict[str, str]:
        """Return the ids, by type, of rows of the owner: a job about the draft and its rows, a hook and others.

        They are created at the first call.
        """
        if self._background is None:
            event_id = self.events["draft"]
            with self.app.app_context():
                # It has ended, so that a stream of it ends too.
                ended = {"state": "failed", "last_seq": 1, "finished_at": datetime.now(UTC)}
                about = {"owner_id": self.owner.id, "event_id": event_id}
                job = Job(kind="sleep", parameters={"seconds": 0}, trigger="api", **about, **ended)
                db.session.add(job)
                db.session.flush()
                said = JobEvent(job_id=job.id, seq=1, state="failed", message="It could not.")
                made = Artifact(
                    job_id=job.id,
                    name="made.json",
                    media_type="application/json",
                    size=2,
                    sha256="",
                    storage_key="jobs/gone/made.json",
                )
                hook = Hook(kind="sleep", parameters={}, **about)
                rows = {"job": job, "job-event": said, "job-artifact": made, "hook": hook}
                db.session.add_all(rows.values())
                db.session.commit()
                self._background = {name: str(row.id) for name, row in rows.items()}
            upload = self.create_upload("owner")
            set_id = self.create_document_set("owner", [upload])
            self._background |= {"upload": str(upload), "document-set": str(set_id)}
            self._background |= self._create_treatment(UUID(self._background["job"]), set_id)
        return self._background

    def _create_treatment(self, job_id: UUID, set_id: int) -> dict[str, str]:
        """Insert a treatment with the id of this job, and its results; return the ids by type."""
        with self.app.app_context():
            about = {"document_set_id": set_id, "requested_by_id": self.owner.id}
            # Not by the session, which would send a change signal: the job already exists.
            treatment = {"id": job_id, "task_type": "regions", "api_parameters": {}, **about}
            db.session.execute(insert(Treatment).values(treatment))
            document = {"treatment_id": job_id, "document": f"event-{self.events['draft']}-image"}
            region = Region(source="image", x=0, y=0, width=40, height=20, **document)
            similarity = Similarity(a="event-1", b="event-2", score=0.5, **document)
            db.session.add_all([region, similarity])
            db.session.commit()
            return {"treatment": str(job_id), "region": str(region.id), "similarity": str(similarity.id)}

    def create_upload(self, role: str, name: str = "picture") -> int:
        """Insert an upload of a user, without its file; return its id."""
        with self.app.app_context():
            storage_key = f"uploads/{sha256(f'{role} {name}'.encode()).hexdigest()}.jpg"
            about = {"media_type": "image/jpeg", "width": 80, "height": 40, "size": 1000}
            upload = Upload(owner_id=self.callers[role].id, storage_key=storage_key, **about)
            db.session.add(upload)
            db.session.commit()
            return upload.id

    def create_document_set(self, role: str, uploads: Iterable[int] = ()) -> int:
        """Insert a document set of a user with all events and FAQs, even hidden ones; return its id."""
        with self.app.app_context():
            made = DocumentSet(title=f"All that {role} chose", owner_id=self.callers[role].id)
            db.session.add(made)
            db.session.flush()
            for table, ids in (
                (SET_EVENTS, self.events.values()),
                (SET_FAQS, self.faqs.values()),
                (SET_UPLOADS, uploads),
            ):
                rows = [(made.id, id_) for id_ in ids]
                if rows:
                    db.session.execute(insert(table).values(rows))
            db.session.commit()
            return made.id

    def count_rows(self, model: type[Any]) -> int:
        """Return the number of rows of a table."""
        with self.app.app_context():
            return db.session.query(model).count()


ROLES = ("anonymous", "stranger", "coorganizer", "organizer", "owner", "admin", "super_admin")
EVENTS = ("published", "draft", "private", "trashed")


MAX_SAVED_DATASET_SECONDS = 60
"""Age at which the saved rows are created again: tokens expire, and some tests search for recent rows."""

RAISE_SEQUENCES = """
SELECT setval(sequencename::regclass, saved.value)
FROM pg_sequences JOIN unnest(%s::text[], %s::bigint[]) AS saved (name, value) ON sequencename = saved.name
WHERE coalesce(last_value, 0) < saved.value
"""
"""Statement that raises sequences: some tests restart them, and new rows must not get the ids of saved ones."""

EMPTY_COPY_BYTES = 21
"""Size of header and trailer of a binary copy."""


@dataclass
class SavedDataset:
    """The last dataset, the rows of each table in the format of COPY, and the values of sequences."""

    dataset: Dataset
    rows: dict[str, bytes]
    sequences: dict[str, int]
    made_at: float

    def is_recent(self) -> bool:
        """Return whether the rows are recent enough to be inserted again."""
        return monotonic() - self.made_at < MAX_SAVED_DATASET_SECONDS

    def insert(self) -> Dataset:
        """Insert the rows, parents first; return a copy of the dataset."""
        with driver_connection(self.dataset.app) as connection:
            for table, rows in self.rows.items():
                with connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT binary)") as copy:
                    copy.write(rows)
            connection.execute(RAISE_SEQUENCES, (list(self.sequences), list(self.sequences.values())))
        # The events have the same ids as before, so they would get an inbox that an earlier test filled.
        files = Path(unquote(urlsplit(self.dataset.app.config["STORAGE_URL"]).path))
        shutil.rmtree(files / "inbox", ignore_errors=True)
        return self.dataset.copy_dataset()


@contextmanager
def driver_connection(app: Flask) -> Iterator[psycopg.Connection[Any]]:
    """Return a connection of the app's pool, in a transaction, without SQLAlchemy."""
    with app.app_context():
        pooled = db.engine.raw_connection()
        assert isinstance(pooled.driver_connection, psycopg.Connection)
        try:
            with pooled.driver_connection.transaction():
                yield pooled.driver_connection
        finally:
            pooled.close()


def copy_tables(app: Flask) -> dict[str, bytes]:
    """Return the rows of each non-empty table, parents first; without the heartbeat that a running relay inserts."""
    copied = {}
    with driver_connection(app) as connection:
        for table in db.metadata.sorted_tables:
            if table is RelayHeartbeat.__table__:
                continue
            with connection.cursor().copy(f"COPY {table.name} TO STDOUT (FORMAT binary)") as copy:
                copied[table.name] = b"".join(copy)
    return {name: rows for name, rows in copied.items() if len(rows) > EMPTY_COPY_BYTES}


def read_sequences(app: Flask) -> dict[str, int]:
    """Return the last value of each sequence that has been used."""
    with driver_connection(app) as connection:
        return dict(
            connection.execute("SELECT sequencename, last_value FROM pg_sequences WHERE last_value IS NOT NULL")
        )


@pytest.fixture(scope="session")
def dataset_cache(app: Flask) -> list[SavedDataset]:
    """Return a list with the last dataset of this process, if there is one: most tests begin with the same rows."""
    return []


@pytest.fixture
def dataset(app: Flask, dataset_cache: list[SavedDataset]) -> Dataset:
    """Return the dataset: the team runs all four events, the stranger none, and `other` owns a published event."""
    if dataset_cache and dataset_cache[0].is_recent():
        return dataset_cache[0].insert()
    is_alone = not copy_tables(app)  # rows of other fixtures are not part of the dataset
    made_at = monotonic()
    made = make_dataset(app)
    if is_alone:
        dataset_cache[:] = [SavedDataset(made.copy_dataset(), copy_tables(app), read_sequences(app), made_at)]
    return made


def make_dataset(app: Flask) -> Dataset:
    """Insert the rows of the dataset through the models."""
    client = app.test_client()
    with app.app_context():
        people = {name: _build_user(name) for name in (*ROLES[1:], "other")}
        db.session.flush()
        events = {name: _build_event(name, people["owner"]) for name in EVENTS}
        events["others"] = _build_event("others", people["other"])
        db.session.flush()
        for event in events.values():
            _build_team(event, people)
        types = {name: FaqType(name=f"{name} type", event_id=event.id) for name, event in events.items()}
        db.session.add_all(types.values())
        db.session.flush()
        faqs = {
            name: Faq(question=f"{name} question", answer="yes", event_id=event.id, faq_type_id=types[name].id)
            for name, event in events.items()
        }
        db.session.add_all(faqs.values())
        images = {name: _build_image(name, event) for name, event in events.items()}
        rows = {"faq-type": types, "faq": faqs, "event-image": images, **_add_other_resources(events)}
        db.session.flush()
        callers = {"anonymous": ApiClient(client)}
        for name, user in people.items():
            callers[name] = ApiClient(client, login_sessions.create_session(user.id).access_token, user.id)
        made = Dataset(
            app,
            callers,
            {name: event.id for name, event in events.items()},
            {name: event.identifier for name, event in events.items()},
            {name: each.id for name, each in types.items()},
            {name: each.id for name, each in faqs.items()},
            {name: each.id for name, each in images.items()},
            {type_: {name: each.id for name, each in made.items()} for type_, made in rows.items()},
        )
        db.session.commit()
    return made


def _build_user(name: str) -> User:
    user = User(
        email=f"{name}@example.com",
        password_hash="!",
        public_name=f"{name} in public",
        contact=f"{name} in private",
        is_admin=name == "admin",
        is_super_admin=name == "super_admin",
        is_verified=True,
    )
    db.session.add(user)
    return user


def _build_event(name: str, owner: User) -> Event:
    event = Event(
        name=f"{name} event",
        starts_at=NEXT_MONTH,
        ends_at=NEXT_MONTH + timedelta(days=2),
        timezone="Europe/Berlin",
        state="draft" if name == "draft" else "published",
        privacy="private" if name == "private" else "public",
        owner_id=owner.id,
        deleted_at=datetime.now(UTC) if name == "trashed" else None,
    )
    db.session.add(event)
    return event


def _build_image(name: str, event: Event) -> EventImage:
    digest = sha256(name.encode()).hexdigest()
    image = EventImage(
        event_id=event.id,
        name=f"{name}.jpg",
        storage_key=f"images/{digest}.jpg",
        media_type="image/jpeg",
        width=80,
        height=40,
        size=1000,
        sha256=digest,
        source_sha256=digest,
    )
    db.session.add(image)
    return image


def _add_other_resources(events: dict[str, Event]) -> dict[str, dict[str, Any]]:
    """Add a resource of each other type to each event."""
    rows = {
        type_.name: {name: type_.model(**sample_columns(type_), event_id=event.id) for name, event in events.items()}
        for type_ in list_types_of_events()
        if type_.name not in ("faq-type", "faq", "event-image")
    }
    db.session.add_all(row for made in rows.values() for row in made.values())
    return rows


def _build_team(event: Event, people: dict[str, User]) -> None:
    db.session.add(EventRole(event_id=event.id, user_id=event.owner_id, role="owner"))
    if event.owner_id == people["owner"].id:
        for role in ("organizer", "coorganizer"):
            db.session.add(EventRole(event_id=event.id, user_id=people[role].id, role=role))
