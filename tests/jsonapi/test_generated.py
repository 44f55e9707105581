"""Whatever is sent: no 5xx, always a JSON:API answer, never a hidden value, never slow.

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
from tests.jsonapi.strategies import Request, Strategy, Wire
from tests.jsonapi.validator import faults
from tests.world import JSONAPI, World

pytestmark = pytest.mark.long

FEW = 200
CASES = int(os.environ.get("GENERATED_CASES", FEW))
SLOW = 2.0
GENERATED = settings(
    max_examples=CASES,
    derandomize=CASES == FEW,
    database=None,
    deadline=None,  # SLOW is ours
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
ADMINS = {"admin", "super_admin"}
TEAM = {"owner", "organizer", "coorganizer", *ADMINS}


@dataclass
class Tally:
    """How many requests had which status, and how long the slowest took."""

    statuses: Counter[int] = field(default_factory=Counter)
    slowest: float = 0.0

    def add(self, status: int, took: float) -> None:
        """One more."""
        self.statuses[status] += 1
        self.slowest = max(self.slowest, took)


@dataclass
class Planted:
    """A world in which every hidden value can be recognised, put back after each write."""

    world: World
    secrets: dict[str, set[str]]
    """Every hidden value, and the roles that may see it."""
    kept: psycopg.Connection[Any]

    def restore(self) -> None:
        """Every row as it was."""
        names = [sql.Identifier(table.name) for table in db.metadata.sorted_tables]
        kept = [sql.Identifier(f"kept_{table.name}") for table in db.metadata.sorted_tables]
        emptied = [sql.SQL("DELETE FROM {}").format(name) for name in reversed(names)]
        filled = [sql.SQL("INSERT INTO {} TABLE {}").format(*pair) for pair in zip(names, kept, strict=True)]
        self.kept.execute(sql.SQL("; ").join([*emptied, *filled]))
        self.kept.commit()

    def hidden_from(self, request: Request) -> set[str]:
        """What must not occur in the answer to this request."""
        sent = f"{request.path}?{request.query} {request.body}"
        return {
            secret
            for secret, roles in self.secrets.items()
            if request.role not in roles and secret not in sent and not self._opened(secret, request)
        }

    def _opened(self, secret: str, request: Request) -> bool:
        """A private event, and what belongs to it, opens to whoever names it by its identifier; trash to admins."""
        if "private" in secret:
            return self.world.identifiers["private"] in request.path + (request.body or "")
        return "trashed" in secret and request.role in ADMINS and "get_trashed" in request.query


@pytest.fixture
def planted(world: World, servers: dict[str, str]) -> Iterator[Planted]:
    """The world with recognisable values where somebody must not look."""
    secrets: dict[str, set[str]] = {world.identifiers["private"]: TEAM, world.identifiers["draft"]: TEAM}
    world.background()
    for role in ("owner", "stranger"):
        world.document_set(role, [world.upload(role, "kept"), world.upload("other", role)])
        secrets[f"All that {role} chose"] = {role, *ADMINS}
    with world.app.app_context():
        for name, caller in world.callers.items():
            if caller.id:
                values = {"password_hash": f"hash of {name} q7x", "contact": f"contact of {name} q7x"}
                values["email"] = f"q7x.{name}@example.com"
                db.session.execute(update(User).where(User.id == caller.id).values(values))
                secrets |= {values["password_hash"]: set(), values["contact"]: {name, *ADMINS}}
                secrets[values["email"]] = {name, *ADMINS}
        for state, roles in {"draft": TEAM, "private": TEAM, "trashed": set[str]()}.items():
            rows = ((Event, "name", world.events), (FaqType, "name", world.types), (Faq, "question", world.faqs))
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
        yield Planted(world, secrets, kept)


def send(planted: Planted, request: Request) -> tuple[TestResponse, float]:
    """The answer, and how many seconds it took; the world is as it was before."""
    body = None if request.body is None else request.body.encode(errors="surrogatepass")
    started = monotonic()
    answer = planted.world.callers[request.role].send(
        request.method, f"{request.path}?{request.query}", body, **request.headers
    )
    took = monotonic() - started
    if request.method not in ("GET", "HEAD", "OPTIONS"):
        planted.restore()
    return answer, took


def judge(planted: Planted, request: Request, tally: Tally) -> None:
    """Send it; every promise about the answer holds. The client checks documents by itself."""
    answer, took = send(planted, request)
    if took > SLOW:  # the machine may have been busy: what is slow is slow twice
        answer, took = send(planted, request)
    tally.add(answer.status_code, took)
    assert answer.status_code < 500, answer.text
    assert took < SLOW
    said = answer.text + str(answer.headers)
    assert not {secret for secret in planted.hidden_from(request) if secret in said}, answer.text
    assert not answer.data or answer.mimetype == JSONAPI or is_plain(request), answer.mimetype
    check_results(answer)


def is_plain(request: Request) -> bool:
    """Routes whose successes are no JSON:API documents."""
    if request.path.startswith("/v1/jobs/"):
        return request.path.rstrip("/").endswith("/progress")
    return request.path.startswith(("/auth/", "/v1/auth/", "/v1/users/check_email", "/v1/users/user-details/"))


def check_results(answer: TestResponse) -> None:
    """Every result of atomic operations is a document of its own."""
    results = (
        answer.get_json(force=True).get("atomic:results", []) if answer.data and answer.mimetype == JSONAPI else []
    )
    for result in results:
        assert not [*faults({**result, "meta": {}, "jsonapi": {"version": "1.1"}}, 200, sparse=False)], result


def run(planted: Planted, requests: Strategy) -> Tally:
    """Send generated requests."""
    tally = Tally()

    @GENERATED
    @given(requests)
    def case(request: Request) -> None:
        judge(planted, request, tally)

    case()
    return tally


@pytest.mark.timeout(max(120, CASES))
@pytest.mark.parametrize(
    ("kind", "successes"), [("reading", 0.3), ("writing", 0.1), ("operating", 0.05), ("anything", 0.05)]
)
def test_generated_requests(planted: Planted, kind: str, successes: float, record_testsuite_property: Any) -> None:
    requests = getattr(Wire(planted.world), kind)()

    tally = run(planted, requests)

    record_testsuite_property(kind, f"{dict(sorted(tally.statuses.items()))}, slowest {tally.slowest:.3f} s")
    assert tally.statuses[200] + tally.statuses[201] > successes * CASES, tally
