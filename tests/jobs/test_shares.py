"""Fair shares: an owner with many jobs does not delay others."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import func, insert, select

from app.database import PreparedStatement, commit, get_connection, open_transaction
from app.extensions import db, limiter
from app.jobs import executor, maintenance, shares, submission
from app.jobs.kinds import KINDS
from app.jobs.models import ANONYMOUS_SHARE, Job, JobShare
from app.jobs.records import JobRow
from app.jobs.tasks import run_job
from app.users.models import User
from tests.dataset import ApiClient, Dataset, get_errors
from tests.hooks.requests import build_signed_headers, call_hook, create_hook, get_job_id
from tests.jobs import kinds as _kinds  # noqa: F401  # declares them
from tests.jobs.db_helpers import get_job
from tests.worker_process import list_entries, run_process

Settings = Callable[..., None]

SLOW_PICTURE = "http://10.255.255.1/x.png"


@pytest.fixture
def settings(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return a function that changes settings of the app until the test ends."""

    def change(**values: int) -> None:
        for name, value in values.items():
            monkeypatch.setitem(app.config, name, value)

    return change


def enqueue_jobs(
    app: Flask, owner_id: int | None, count: int = 1, *, trigger: str = "api", **parameters: Any
) -> list[UUID]:
    """Commit jobs that sleep 0 s, one after the other."""
    ids = []
    with app.app_context():
        for _ in range(count):
            with open_transaction(is_read=False):
                job = submission.submit_job(
                    "sleep", {"seconds": 0, **parameters}, trigger=trigger, owner_id=owner_id
                ).job
                commit()
            ids.append(job.id)
    return ids


def verify_users(app: Flask, *, is_verified: bool) -> None:
    """Verify the addresses of all users, or of none."""
    with app.app_context(), open_transaction(is_read=False):
        get_connection().execute(User.__table__.update().values(is_verified=is_verified))
        commit()


def claim_next(app: Flask) -> JobRow | None:
    """Begin the job whose turn it is, as a worker does; it stays running."""
    with app.app_context():
        turn = executor._next_turn((), ())
        return turn and executor._claim_job(turn.id, "tests")


def run_next(app: Flask) -> None:
    """Run the job whose turn it is, as a worker does that got a message."""
    with app.app_context():
        run_job(str(UUID(int=0)))


def list_start_order(app: Flask) -> list[int | None]:
    """Return the owners of all jobs that have begun, in the order of their start."""
    with app.app_context(), open_transaction(is_read=True):
        statement = select(Job.owner_id).where(Job.started_at.is_not(None)).order_by(Job.started_at)
        return list(get_connection().scalars(statement))


def send_job(caller: ApiClient) -> Any:
    """POST a job that sleeps 0 s; return the response."""
    return caller.create("/v1/jobs", "job", {"kind": "sleep", "parameters": {"seconds": 0, "steps": 1}})


def test_owners_take_turns_however_many_jobs_one_has_queued(dataset: Dataset) -> None:
    a, b, c = dataset.owner.id, dataset.stranger.id, dataset.other.id
    enqueue_jobs(dataset.app, a, 4)
    enqueue_jobs(dataset.app, b, 2)
    enqueue_jobs(dataset.app, c)

    for _ in range(7):
        run_next(dataset.app)

    assert list_start_order(dataset.app) == [a, b, c, a, b, a, a]


def test_one_owner_never_has_all_slots(dataset: Dataset, settings: Settings) -> None:
    settings(WORKER_CONCURRENCY=3, MAX_RUNNING_JOBS_PER_OWNER=0)
    enqueue_jobs(dataset.app, dataset.owner.id, 30)

    begun = [claim_next(dataset.app) for _ in range(3)]
    assert [job is not None for job in begun] == [True, True, False]
    (others,) = enqueue_jobs(dataset.app, dataset.stranger.id)

    job = claim_next(dataset.app)
    assert job is not None
    assert job.id == others


def test_the_owner_with_fewer_running_jobs_is_next(dataset: Dataset, settings: Settings) -> None:
    settings(MAX_RUNNING_JOBS_PER_OWNER=3)
    enqueue_jobs(dataset.app, dataset.owner.id, 5)
    enqueue_jobs(dataset.app, dataset.stranger.id, 5)

    owners = [job.owner_id for job in (claim_next(dataset.app) for _ in range(6)) if job]

    assert owners.count(dataset.owner.id) == owners.count(dataset.stranger.id) == 3
    assert claim_next(dataset.app) is None


def test_jobs_of_operator_are_not_limited_but_take_turns(dataset: Dataset, settings: Settings) -> None:
    settings(MAX_RUNNING_JOBS_PER_OWNER=1)
    enqueue_jobs(dataset.app, None, 3, trigger="cli")
    enqueue_jobs(dataset.app, dataset.owner.id)

    owners = [job.owner_id if job else "none" for job in (claim_next(dataset.app) for _ in range(5))]

    assert owners == [None, dataset.owner.id, None, None, "none"]


def test_callers_who_are_not_signed_in_have_one_share(app: Flask, settings: Settings) -> None:
    settings(MAX_RUNNING_JOBS_PER_OWNER=1)
    first, _second = enqueue_jobs(app, None, 2)

    job = claim_next(app)

    assert job is not None
    assert (job.id, job.share) == (first, ANONYMOUS_SHARE)
    assert claim_next(app) is None


def sign_up(dataset: Dataset, name: str) -> Any:
    """POST a user whose picture is fetched by a job; return the response."""
    attributes = {"email": f"{name}@example.com", "password": "correct horse battery", "avatar-url": SLOW_PICTURE}
    return dataset.anonymous.create("/v1/users", "user", attributes)


def send_job_from(address: str, caller: ApiClient) -> UUID:
    """POST a job from a client address and return its id."""
    caller.client.environ_base["REMOTE_ADDR"] = address
    response = send_job(caller)
    caller.client.environ_base["REMOTE_ADDR"] = "127.0.0.1"
    assert response.status_code == 202, response.text
    return UUID(response.json["data"]["id"])


def test_accounts_that_are_not_verified_take_turns_by_address(dataset: Dataset, settings: Settings) -> None:
    settings(WORKER_CONCURRENCY=1, MAX_RUNNING_JOBS_PER_OWNER=0)
    verify_users(dataset.app, is_verified=False)
    many = [send_job_from("2001:db8:1::1", dataset.owner) for _ in range(3)]
    many += [send_job_from("2001:db8:1:ffff::2", dataset.other) for _ in range(3)]
    run_next(dataset.app)
    other = send_job_from("2001:db8:2::1", dataset.stranger)

    for _ in range(2):  # the network whose job began earlier has the first of these turns
        run_next(dataset.app)

    assert get_job(dataset.app, other).state == "succeeded"
    assert len({get_job(dataset.app, id_).share for id_ in many}) == 1, "one network /48 has one share"
    assert get_job(dataset.app, many[0]).share < ANONYMOUS_SHARE


def test_many_addresses_have_one_turn_beside_a_verified_owner(dataset: Dataset, settings: Settings) -> None:
    settings(WORKER_CONCURRENCY=1, MAX_RUNNING_JOBS_PER_OWNER=0)
    with dataset.app.app_context(), open_transaction(is_read=False):
        get_connection().execute(
            User.__table__.update().where(User.id == dataset.stranger.id).values(is_verified=False)
        )
        commit()
    for number in range(5):
        send_job_from(f"203.0.113.{number}", dataset.stranger)
    enqueue_jobs(dataset.app, dataset.owner.id, 2)

    for _ in range(4):
        run_next(dataset.app)

    owner, stranger = dataset.owner.id, dataset.stranger.id
    assert list_start_order(dataset.app) == [stranger, owner, stranger, owner]


def test_all_addresses_together_have_a_quarter_of_the_slots(dataset: Dataset, settings: Settings) -> None:
    settings(WORKER_CONCURRENCY=8, MAX_RUNNING_JOBS_PER_OWNER=0)
    verify_users(dataset.app, is_verified=False)
    enqueue_jobs(dataset.app, dataset.stranger.id)  # of the share that rows of earlier versions have
    for number in range(4):
        send_job_from(f"203.0.113.{number}", dataset.owner)

    begun = [claim_next(dataset.app) for _ in range(3)]

    assert [job is not None for job in begun] == [True, True, False]
    assert len({job.share for job in begun if job}) == 2
    with dataset.app.app_context(), open_transaction(is_read=True):
        assert shares.list_full_pools() == [ANONYMOUS_SHARE]


def test_end_of_job_wakes_worker_for_another_address(dataset: Dataset, settings: Settings) -> None:
    settings(WORKER_CONCURRENCY=1)
    verify_users(dataset.app, is_verified=False)
    send_job_from("203.0.113.1", dataset.owner)
    other = send_job_from("203.0.113.2", dataset.stranger)
    before = len(list_entries(dataset.app))

    run_next(dataset.app)

    assert [entry.payload for entry in list_entries(dataset.app)][before:] == [{"id": str(other)}]


def test_a_locked_address_share_holds_up_no_owner(dataset: Dataset) -> None:
    verify_users(dataset.app, is_verified=False)
    for number in range(3):
        send_job_from(f"203.0.113.{number}", dataset.stranger)
    verify_users(dataset.app, is_verified=True)
    (own,) = enqueue_jobs(dataset.app, dataset.owner.id)
    with dataset.app.app_context(), db.engine.begin() as frozen:  # a worker that was stopped while it claimed a job
        frozen.execute(insert(JobShare).values(share=ANONYMOUS_SHARE))

        run_next(dataset.app)

    assert get_job(dataset.app, own).state == "succeeded"


def test_turns_of_addresses_are_pruned_after_a_day(dataset: Dataset) -> None:
    old = func.now() - 2 * shares.ADDRESS_RETENTION
    with dataset.app.app_context():
        with open_transaction(is_read=False):
            for share in (-7, ANONYMOUS_SHARE, dataset.owner.id):
                get_connection().execute(insert(JobShare).values(share=share, served_at=old))
            get_connection().execute(insert(JobShare).values(share=-8))
            commit()

        assert shares.prune_shares(timedelta(days=30)) == 0

        with open_transaction(is_read=True):
            left = set(get_connection().scalars(select(JobShare.share)))
    assert left == {-8, ANONYMOUS_SHARE, dataset.owner.id}


def test_an_account_that_is_not_verified_has_few_queued_jobs_whatever_its_address(dataset: Dataset) -> None:
    verify_users(dataset.app, is_verified=False)
    for number in range(submission.MAX_QUEUED_JOBS_PER_UNVERIFIED_OWNER):
        send_job_from(f"203.0.113.{number}", dataset.stranger)

    refused = send_job(dataset.stranger)

    assert refused.status_code == 429
    (error,) = get_errors(refused)
    assert (error["code"], error["detail"]) == (
        "too-many-jobs",
        "At most 20 jobs of an account whose e-mail address is not verified may be queued."
        " Verify the address, or wait until some of them have begun.",
    )
    assert send_job(dataset.owner).status_code == 202, "the jobs of others do not count"
    run_next(dataset.app)
    assert send_job(dataset.stranger).status_code == 202


def test_jobs_that_sign_ups_cause_have_one_share(dataset: Dataset, settings: Settings) -> None:
    settings(WORKER_CONCURRENCY=3, MAX_RUNNING_JOBS_PER_OWNER=0)
    assert [sign_up(dataset, f"new{number}").status_code for number in range(4)] == [201] * 4

    begun = [claim_next(dataset.app) for _ in range(2)]

    assert begun[0] is not None
    assert (begun[0].kind, begun[1]) == ("resize-image", None)
    with dataset.app.app_context(), open_transaction(is_read=True):
        queued = get_connection().execute(select(Job.share, Job.owner_id).where(Job.state == "queued")).all()
    assert {share for share, _owner in queued} == {begun[0].share}
    assert begun[0].share < ANONYMOUS_SHARE
    assert len({owner for _share, owner in queued}) == 3, "each still belongs to its user"


def test_a_job_of_a_sign_up_that_runs_again_stays_in_its_share(dataset: Dataset) -> None:
    sign_up(dataset, "new")
    with dataset.app.app_context(), open_transaction(is_read=False):
        (row,) = get_connection().execute(select(Job.__table__)).all()
        get_connection().execute(Job.__table__.update().values(state="failed", finished_at=func.now()))

        job = submission.resubmit_job(JobRow(*row)).job
        commit()

    assert (job.share, job.owner_id) == (row.share, row.owner_id)
    assert job.share < ANONYMOUS_SHARE


@pytest.mark.parametrize(("concurrency", "most"), [(1, 1), (2, 1), (4, 1), (8, 2), (64, 16)])
def test_callers_who_are_not_signed_in_have_a_quarter_of_the_slots(
    app: Flask, settings: Settings, concurrency: int, most: int
) -> None:
    settings(WORKER_CONCURRENCY=concurrency, MAX_RUNNING_JOBS_PER_OWNER=0)

    with app.app_context():
        assert shares.max_running(ANONYMOUS_SHARE) == most


def test_new_owner_waits_behind_owner_who_has_waited_longer(dataset: Dataset, settings: Settings) -> None:
    settings(WORKER_CONCURRENCY=1)
    enqueue_jobs(dataset.app, dataset.owner.id)
    run_next(dataset.app)
    (waiting,) = enqueue_jobs(dataset.app, dataset.owner.id)
    (newcomer,) = enqueue_jobs(dataset.app, dataset.stranger.id)

    run_next(dataset.app)

    assert (get_job(dataset.app, waiting).state, get_job(dataset.app, newcomer).state) == ("succeeded", "queued")


def test_an_owner_who_comes_back_waits_behind_one_who_waits_for_longer(dataset: Dataset) -> None:
    enqueue_jobs(dataset.app, dataset.owner.id)
    run_next(dataset.app)
    (waiting,) = enqueue_jobs(dataset.app, dataset.stranger.id)
    (later,) = enqueue_jobs(dataset.app, dataset.owner.id)

    run_next(dataset.app)

    assert (get_job(dataset.app, waiting).state, get_job(dataset.app, later).state) == ("succeeded", "queued")


def test_end_of_job_wakes_worker_for_next_job_of_owner(dataset: Dataset, settings: Settings) -> None:
    settings(MAX_RUNNING_JOBS_PER_OWNER=1)
    _first, second = enqueue_jobs(dataset.app, dataset.owner.id, 2)
    before = len(list_entries(dataset.app))

    run_next(dataset.app)

    assert [entry.payload for entry in list_entries(dataset.app)][before:] == [{"id": str(second)}]
    run_next(dataset.app)
    assert len(list_entries(dataset.app)) == before + 1
    assert get_job(dataset.app, second).state == "succeeded"


def test_a_kind_that_is_full_does_not_hold_up_other_jobs_of_its_owner(
    dataset: Dataset, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(MAX_RUNNING_JOBS_PER_OWNER=10)
    monkeypatch.setitem(KINDS.declared, "tests-one", replace(KINDS["sleep"], name="tests-one", concurrency=1))
    with dataset.app.app_context():
        for _ in range(2):
            with open_transaction(is_read=False):
                submission.submit_job("tests-one", {"seconds": 0}, trigger="api", owner_id=dataset.owner.id)
                commit()
    assert claim_next(dataset.app) is not None
    (other,) = enqueue_jobs(dataset.app, dataset.owner.id)

    run_next(dataset.app)

    assert get_job(dataset.app, other).state == "succeeded"


def test_maintenance_wakes_no_worker_for_owners_at_their_limit(
    dataset: Dataset, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(MAX_RUNNING_JOBS_PER_OWNER=1)
    enqueue_jobs(dataset.app, dataset.owner.id, 2)
    assert claim_next(dataset.app) is not None
    with dataset.app.app_context():
        with open_transaction(is_read=False):
            get_connection().execute(
                Job.__table__.update().values(queued_at=func.now() - 2 * maintenance.REQUEUE_AFTER)
            )
            commit()
        before = len(list_entries(dataset.app))

        maintenance.run_maintenance()

    assert len(list_entries(dataset.app)) == before


def test_a_locked_share_does_not_hold_up_others(dataset: Dataset) -> None:
    enqueue_jobs(dataset.app, dataset.owner.id)
    (other,) = enqueue_jobs(dataset.app, dataset.stranger.id)
    with dataset.app.app_context(), db.engine.begin() as frozen:  # a worker that was stopped while it claimed a job
        frozen.execute(insert(JobShare).values(share=dataset.owner.id))

        run_next(dataset.app)

    assert get_job(dataset.app, other).state == "succeeded"


def test_more_queued_jobs_than_an_owner_may_have_are_429(dataset: Dataset, settings: Settings) -> None:
    settings(MAX_QUEUED_JOBS_PER_OWNER=2)
    assert [send_job(dataset.owner).status_code for _ in range(2)] == [202, 202]

    refused = send_job(dataset.owner)

    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "10"
    (error,) = get_errors(refused)
    assert (error["code"], error["detail"]) == (
        "too-many-jobs",
        "At most 2 jobs of one owner may be queued. Wait until some of them have begun.",
    )
    assert send_job(dataset.stranger).status_code == 202
    run_next(dataset.app)
    assert send_job(dataset.owner).status_code == 202


def change_picture(dataset: Dataset) -> Any:
    """PATCH the picture of an event, which starts a job; return the response."""
    url = f"/v1/events/{dataset.events['draft']}"
    return dataset.owner.update(url, "event", {"original-image-url": "https://example.com/a.png"})


def test_a_change_that_starts_one_more_job_than_its_author_may_queue_is_429(
    dataset: Dataset, settings: Settings
) -> None:
    settings(MAX_QUEUED_JOBS_PER_OWNER=1)
    assert send_job(dataset.owner).status_code == 202

    refused = change_picture(dataset)

    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
    assert get_errors(refused)[0]["code"] == "too-many-jobs"
    assert dataset.count_rows(Job) == 1
    run_next(dataset.app)
    assert change_picture(dataset).status_code == 200
    assert dataset.count_rows(Job) == 2


def test_a_change_is_not_refused_because_of_jobs_of_others_in_its_share(dataset: Dataset, settings: Settings) -> None:
    settings(MAX_QUEUED_JOBS_PER_OWNER=1)
    verify_users(dataset.app, is_verified=False)
    enqueue_jobs(dataset.app, dataset.stranger.id)

    assert change_picture(dataset).status_code == 200


def test_accounts_that_are_not_verified_have_one_share_and_leave_slots_to_others(
    dataset: Dataset, settings: Settings
) -> None:
    settings(WORKER_CONCURRENCY=2, MAX_RUNNING_JOBS_PER_OWNER=0)
    fresh = [sign_up(dataset, f"fresh{number}").json["data"]["id"] for number in range(18)]
    for user_id in fresh:
        enqueue_jobs(dataset.app, int(user_id), 2)
    (own,) = enqueue_jobs(dataset.app, dataset.owner.id)

    begun = [claim_next(dataset.app) for _ in range(3)]

    assert begun[0] is not None
    assert begun[0].share < 0
    assert begun[1] is not None
    assert (begun[1].id, begun[2]) == (own, None)


@pytest.mark.parametrize("role", ["is_verified", "is_admin"])
def test_a_verified_account_and_an_admin_have_a_share_of_their_own(dataset: Dataset, role: str) -> None:
    verify_users(dataset.app, is_verified=False)
    (first,) = enqueue_jobs(dataset.app, dataset.owner.id)
    with dataset.app.app_context(), open_transaction(is_read=False):
        get_connection().execute(User.__table__.update().where(User.id == dataset.owner.id).values({role: True}))
        commit()

    (second,) = enqueue_jobs(dataset.app, dataset.owner.id)

    assert get_job(dataset.app, first).share == ANONYMOUS_SHARE
    assert get_job(dataset.app, second).share == dataset.owner.id


def test_calls_of_a_hook_count_for_its_owner_and_for_the_hook(dataset: Dataset, settings: Settings) -> None:
    settings(MAX_QUEUED_JOBS_PER_HOOK=2)
    busy, idle = create_hook(dataset.owner), create_hook(dataset.owner)
    assert [call_hook(dataset.app, busy).status_code for _ in range(2)] == [202, 202]

    refused = call_hook(dataset.app, busy)

    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
    assert refused.get_json(force=True)["errors"][0]["code"] == "too-many-jobs"
    job = get_job(dataset.app, UUID(get_job_id(call_hook(dataset.app, idle))))
    assert (job.share, job.hook_id) == (dataset.owner.id, int(idle["id"]))
    settings(MAX_QUEUED_JOBS_PER_OWNER=3)
    assert call_hook(dataset.app, idle).status_code == 429


@pytest.fixture
def app_with_limits(make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> Flask:
    """Return an app with rate limits, of three hook calls a minute; the app of the suite has none."""
    monkeypatch.setattr(limiter, "_storage_dead", False)  # one object for all apps
    return make_app(RATELIMIT_ENABLED="1", MAX_HOOK_CALLS_PER_MINUTE="3")


def test_more_calls_of_a_hook_than_a_minute_may_have_are_429(dataset: Dataset, app_with_limits: Flask) -> None:
    busy, idle = create_hook(dataset.owner), create_hook(dataset.owner)
    assert [call_hook(app_with_limits, busy).status_code for _ in range(3)] == [202] * 3

    refused = call_hook(app_with_limits, busy)

    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    error = refused.get_json(force=True)["errors"][0]
    assert error["detail"] == "At most 3 calls a minute are accepted. Try again later."
    assert call_hook(app_with_limits, idle).status_code == 202


def test_calls_without_the_signature_do_not_use_up_those_of_a_signed_hook(
    dataset: Dataset, app_with_limits: Flask
) -> None:
    hook = create_hook(dataset.owner, signed=True)
    assert {call_hook(app_with_limits, hook).status_code for _ in range(5)} == {401}

    assert call_hook(app_with_limits, hook, **build_signed_headers(hook)).status_code == 202


@pytest.mark.faults
def test_a_job_begins_at_once_beside_thirty_slow_ones_of_another_owner(
    dataset: Dataset,
    environment: dict[str, str],
    make_app: Callable[..., Flask],
    tmp_path: Path,
    wait_until: Callable[..., Any],
) -> None:
    settings = {"WORKER_CONCURRENCY": "2", "MAX_RUNNING_JOBS_PER_OWNER": "0", "VAR_DIR": str(tmp_path)}
    changed = {**environment, **settings}
    app = make_app(**settings)
    with ExitStack() as stack:
        stack.enter_context(run_process(changed, tmp_path / "relay", "relay", "60"))
        stack.enter_context(run_process(changed, tmp_path / "worker", "worker"))
        enqueue_jobs(app, dataset.owner.id, 30, seconds=100)
        hook = create_hook(dataset.owner)
        for _ in range(20):
            get_job_id(call_hook(dataset.app, hook))
        wait_until(lambda: list_start_order(app), 60)

        (other,) = enqueue_jobs(app, dataset.stranger.id)

        wait_until(lambda: get_job(app, other).state == "succeeded", 10)
        assert list_start_order(app).count(dataset.owner.id) == 1


def test_a_turn_is_found_by_an_index_among_many_jobs(dataset: Dataset) -> None:
    submitted = (
        "INSERT INTO jobs (id, kind, parameters, trigger, share)"
        " SELECT gen_random_uuid(), 'sleep', '{}', 'api', mod(n, 3) + 1 FROM generate_series(1, 10000) n"
    )
    statement = shares._select_next.text
    lists = dict.fromkeys(("full_kinds", "remote_kinds"), "'{}'::text[]")
    lists |= dict.fromkeys(("full_pools", "full_remote_pools"), "'{}'::bigint[]")
    values = {"most": "1", "most_anonymous": "1", "has_free_run": "true", **lists}
    for number, name in enumerate(shares._select_next._names, start=1):
        statement = statement.replace(f"${number}", values[name])
    with dataset.app.app_context(), db.engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("SET LOCAL statement_timeout = '60s'")
        connection.exec_driver_sql(submitted)
        connection.exec_driver_sql("ANALYZE jobs")
        plan = list(connection.exec_driver_sql(f"EXPLAIN {statement}").scalars())
        connection.exec_driver_sql("ROLLBACK")
    assert not [line for line in plan if "Seq Scan on jobs" in line], plan


@pytest.mark.parametrize("statement", [shares._select_oldest, shares._count_queued, shares._count_queued_of_owner])
def test_queued_jobs_are_found_by_an_index_among_many(dataset: Dataset, statement: PreparedStatement) -> None:
    submitted = (
        "INSERT INTO jobs (id, kind, parameters, trigger, share, owner_id)"
        " SELECT gen_random_uuid(), 'sleep', '{}', 'api', -mod(n, 5000) - 2,"
        " CASE WHEN n < 20 THEN %s ELSE %s END FROM generate_series(1, 10000) n"
    )
    values = {"share": -9, "first": -(2**63), "last": -1, "most": 20, "owner_id": dataset.owner.id}
    with dataset.app.app_context(), db.engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("SET LOCAL statement_timeout = '60s'")
        connection.exec_driver_sql(submitted, (dataset.owner.id, dataset.stranger.id))
        connection.exec_driver_sql("ANALYZE jobs")
        explained = statement.text
        for number, name in enumerate(statement._names, start=1):
            explained = explained.replace(f"${number}", f"({values[name]})")
        plan = list(connection.exec_driver_sql(f"EXPLAIN {explained}").scalars())
        connection.exec_driver_sql("ROLLBACK")
    assert not [line for line in plan if "Seq Scan on jobs" in line or "Sort" in line], plan
