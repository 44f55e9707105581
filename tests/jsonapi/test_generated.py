"""Generated requests: no 5xx, always a JSON:API response, never a hidden value, never slow.

`GENERATED_CASES=10000` runs so many cases of each kind, chosen anew each time; without it the same few every time.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from psycopg import sql
from sqlalchemy import update
from werkzeug.test import TestResponse

from app.events.models import Event
from app.extensions import db
from app.faqs.models import Faq, FaqType
from app.users.models import User
from tests.dataset import JSONAPI, Dataset
from tests.jsonapi.strategies import Request, RequestStrategies, Strategy
from tests.jsonapi.validator import find_faults

pytestmark = [pytest.mark.faults, pytest.mark.long]

DEFAULT_CASE_COUNT = 200
CASE_COUNT = int(os.environ.get("GENERATED_CASES", DEFAULT_CASE_COUNT))
MAX_REQUEST_SECONDS = 2.0
GENERATED = settings(
    max_examples=CASE_COUNT,
    derandomize=CASE_COUNT == DEFAULT_CASE_COUNT,
    database=None,
    deadline=None,  # MAX_REQUEST_SECONDS is checked instead
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
ADMINS = {"admin", "super_admin"}
TEAM = {"owner", "organizer", "coorganizer", *ADMINS}


@dataclass
class StatusTally:
    """Number of requests by status, and the seconds of the slowest one."""

    statuses: Counter[int] = field(default_factory=Counter)
    slowest: float = 0.0

    def add(self, status: int, took: float) -> None:
        """Count one request."""
        self.statuses[status] += 1
        self.slowest = max(self.slowest, took)


@dataclass
class SeededDataset:
    """A dataset with recognisable hidden values, restored after each write."""

    dataset: Dataset
    secrets: dict[str, set[str]]
    """Hidden values, each with the roles that may read it."""
    kept: psycopg.Connection[Any]

    def restore(self) -> None:
        """Restore all rows."""
        names = [sql.Identifier(table.name) for table in db.metadata.sorted_tables]
        kept = [sql.Identifier(f"kept_{table.name}") for table in db.metadata.sorted_tables]
        emptied = [sql.SQL("DELETE FROM {}").format(name) for name in reversed(names)]
        filled = [sql.SQL("INSERT INTO {} TABLE {}").format(*pair) for pair in zip(names, kept, strict=True)]
        self.kept.execute(sql.SQL("; ").join([*emptied, *filled]))
        self.kept.commit()

    def list_secrets_for(self, request: Request) -> set[str]:
        """Return the values that must not occur in the response to this request."""
        sent = f"{request.path}?{request.query} {request.body}"
        return {
            secret
            for secret, roles in self.secrets.items()
            if request.role not in roles and secret not in sent and not self._is_revealed(secret, request)
        }

    def _is_revealed(self, secret: str, request: Request) -> bool:
        """Return whether the request may read hidden rows: by the identifier of a private event, or as admin."""
        if "private" in secret:
            return self.dataset.identifiers["private"] in request.path + (request.body or "")
        return "trashed" in secret and request.role in ADMINS and "get_trashed" in request.query


@pytest.fixture
def seed_dataset(dataset: Dataset, servers: dict[str, str]) -> Iterator[SeededDataset]:
    """Write recognisable values into the hidden attributes of the dataset, and return it."""
    secrets: dict[str, set[str]] = {dataset.identifiers["private"]: TEAM, dataset.identifiers["draft"]: TEAM}
    dataset.get_background_ids()
    for role in ("owner", "stranger"):
        dataset.create_document_set(role, [dataset.create_upload(role, "kept"), dataset.create_upload("other", role)])
        secrets[f"All that {role} chose"] = {role, *ADMINS}
    with dataset.app.app_context():
        for name, caller in dataset.callers.items():
            if caller.id:
                values = {"password_hash": f"hash of {name} q7x", "contact": f"contact of {name} q7x"}
                values["email"] = f"q7x.{name}@example.com"
                db.session.execute(update(User).where(User.id == caller.id).values(values))
                secrets |= {values["password_hash"]: set(), values["contact"]: {name, *ADMINS}}
                secrets[values["email"]] = {name, *ADMINS}
        for state, roles in {"draft": TEAM, "private": TEAM, "trashed": set[str]()}.items():
            rows = ((Event, "name", dataset.events), (FaqType, "name", dataset.types), (Faq, "question", dataset.faqs))
            for model, column, ids in rows:
                secret = f"{state} {model.__name__} q7x"
                db.session.execute(update(model).where(model.id == ids[state]).values({column: secret}))
                secrets[secret] = roles
        db.session.commit()
    with psycopg.connect(servers["DATABASE_URL"], options="-c lock_timeout=10s") as kept:
        for table in db.metadata.sorted_tables:
            names = sql.Identifier(f"kept_{table.name}"), sql.Identifier(table.name)
            kept.execute(sql.SQL("CREATE TEMP TABLE {} AS TABLE {}").format(*names))
        kept.commit()
        yield SeededDataset(dataset, secrets, kept)


def send_request(seed_dataset: SeededDataset, request: Request) -> tuple[TestResponse, float]:
    """Send a request, restore the dataset, and return the response and its seconds."""
    body = None if request.body is None else request.body.encode(errors="surrogatepass")
    started = monotonic()
    answer = seed_dataset.dataset.callers[request.role].send(
        request.method, f"{request.path}?{request.query}", body, **request.headers
    )
    took = monotonic() - started
    if request.method not in ("GET", "HEAD", "OPTIONS"):
        seed_dataset.restore()
    return answer, took


def check_request(seed_dataset: SeededDataset, request: Request, tally: StatusTally) -> None:
    """Send a request and check all rules for its response; the client checks documents itself."""
    answer, took = send_request(seed_dataset, request)
    if took > MAX_REQUEST_SECONDS:  # the machine may have been busy: try again
        answer, took = send_request(seed_dataset, request)
    tally.add(answer.status_code, took)
    assert answer.status_code < 500, answer.text
    assert took < MAX_REQUEST_SECONDS
    said = answer.text + str(answer.headers)
    assert not {secret for secret in seed_dataset.list_secrets_for(request) if secret in said}, answer.text
    assert not answer.data or answer.mimetype == JSONAPI or is_plain(request), answer.mimetype
    check_results(answer)


def is_plain(request: Request) -> bool:
    """Return whether successful responses of this route are not JSON:API documents."""
    if request.path.startswith("/v1/jobs/"):
        return request.path.rstrip("/").endswith("/progress")
    return request.path.startswith(("/auth/", "/v1/auth/", "/v1/users/check_email", "/v1/users/user-details/"))


def check_results(answer: TestResponse) -> None:
    """Check each result of atomic operations as a document."""
    results = (
        answer.get_json(force=True).get("atomic:results", []) if answer.data and answer.mimetype == JSONAPI else []
    )
    for result in results:
        assert not [*find_faults({**result, "meta": {}, "jsonapi": {"version": "1.1"}}, 200, sparse=False)], result


def run_requests(seed_dataset: SeededDataset, requests: Strategy) -> StatusTally:
    """Send generated requests."""
    tally = StatusTally()

    @GENERATED
    @given(requests)
    def case(request: Request) -> None:
        check_request(seed_dataset, request, tally)

    case()
    return tally


@pytest.mark.timeout(max(120, CASE_COUNT))
@pytest.mark.parametrize(
    ("kind", "successes"), [("reading", 0.3), ("writing", 0.1), ("operating", 0.05), ("anything", 0.05)]
)
def test_generated_requests(
    seed_dataset: SeededDataset, kind: str, successes: float, record_testsuite_property: Any
) -> None:
    requests = getattr(RequestStrategies(seed_dataset.dataset), kind)()

    tally = run_requests(seed_dataset, requests)

    record_testsuite_property(kind, f"{dict(sorted(tally.statuses.items()))}, slowest {tally.slowest:.3f} s")
    assert tally.statuses[200] + tally.statuses[201] > successes * CASE_COUNT, tally
