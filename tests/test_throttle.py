"""Rate limits, counted in Redis, and in memory if Redis is down or hangs."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import config
from app import database, embedded, errors, request_bodies, throttle
from app.extensions import db, limiter
from app.users import auth, auth_routes

SLOW = 1.0
"""Maximum for a request: far more than two waits of 0.1 s, far less than a wait for a hung server."""


@pytest.fixture
def own_redis(tmp_path: Path) -> embedded.Redis:
    """Return a Redis that this test may stop."""
    return embedded.Redis(tmp_path)


@pytest.fixture
def redis_process(own_redis: embedded.Redis) -> Iterator[subprocess.Popen[bytes]]:
    """Start it and wait until it is ready."""
    with embedded.run_server(own_redis) as process:
        embedded.wait_until(own_redis.is_ready, "redis does not answer")
        yield process
        process.send_signal(signal.SIGCONT)


@pytest.fixture
def client_with_limits(
    app: Flask, environment: dict[str, str], own_redis: embedded.Redis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FlaskClient]:
    """Yield a client of the account routes with rate limits, which the app of the other tests disables.

    A second `create_app` in one process would connect the signal handlers twice.
    """
    monkeypatch.setattr(limiter, "_storage_dead", False)  # shared by all apps: an earlier test may have killed Redis
    throttled = Flask("throttled")
    settings = config.read_config({**environment, "REDIS_URL": own_redis.url, "RATELIMIT_ENABLED": "1"})
    throttled.config.update(settings)
    database.init_app(throttled)
    request_bodies.init_app(throttled)
    throttle.init_app(throttled)
    throttled.extensions["authenticate"] = auth.authenticate_request
    throttled.register_blueprint(auth_routes.routes)
    throttled.add_url_rule("/free", view_func=lambda: "free")
    errors.register_error_handlers(throttled)
    yield throttled.test_client()
    with throttled.app_context():
        db.engine.dispose()


def log_in(client: FlaskClient, email: str = "ada@example.com", address: str = "10.0.0.1") -> TestResponse:
    body = {"email": email, "password": "x" * 200}  # too long to be hashed: quick
    return client.post("/v1/auth/login", json=body, environ_base={"REMOTE_ADDR": address})


def list_statuses(send: Callable[[int], TestResponse], times: int) -> list[int]:
    return [send(number).status_code for number in range(times)]


@pytest.mark.usefixtures("redis_process")
def test_an_account_is_tried_five_times_a_minute_from_one_address(
    client_with_limits: FlaskClient, own_redis: embedded.Redis
) -> None:
    tried = list_statuses(lambda n: log_in(client_with_limits, ["ada@example.com", " ADA@example.com"][n % 2]), 6)

    assert tried == [401] * 5 + [429]
    assert log_in(client_with_limits, "eve@example.com").status_code == 401
    assert log_in(client_with_limits, address="10.0.0.2").status_code == 401, "its owner is elsewhere"
    with redis.Redis.from_url(own_redis.url) as client:
        keys = client.keys()
    assert keys
    assert not any(b"ada" in key for key in keys)


@pytest.mark.usefixtures("redis_process")
def test_every_spelling_of_an_account_counts_as_that_account(client_with_limits: FlaskClient) -> None:
    spelled = ["eva@xn--mller-kva.example", "EVA@Müller.example", "eva@mu\u0308ller\uff0eexample", "eva@MÜLLER.EXAMPLE"]

    assert list_statuses(lambda n: log_in(client_with_limits, spelled[n % 4]), 6) == [401] * 5 + [429]


@pytest.mark.usefixtures("redis_process")
def test_an_address_tries_twenty_times_a_minute_whichever_account(client_with_limits: FlaskClient) -> None:
    assert list_statuses(lambda n: log_in(client_with_limits, f"user{n}@example.com"), 21) == [401] * 20 + [429]
    assert log_in(client_with_limits, "other@example.com", "10.0.0.2").status_code == 401


@pytest.mark.usefixtures("redis_process")
def test_both_routes_of_log_in_count_together(client_with_limits: FlaskClient) -> None:
    body = {"username": "ada@example.com", "password": "x" * 200}

    assert (
        list_statuses(lambda n: client_with_limits.post(["/auth/session", "/v1/auth/login"][n % 2], json=body), 6)[-1]
        == 429
    )


@pytest.mark.usefixtures("redis_process")
def test_too_many_tries_are_a_json_api_error_that_says_when_to_come_back(client_with_limits: FlaskClient) -> None:
    refused = [log_in(client_with_limits) for _ in range(6)][-1]

    assert refused.status_code == 429
    assert refused.content_type == "application/vnd.api+json"
    assert refused.get_json(force=True)["errors"][0]["code"] == "too-many-requests"
    assert 0 < int(refused.headers["Retry-After"]) <= 60


@pytest.mark.usefixtures("redis_process")
@pytest.mark.parametrize(
    ("method", "path", "body", "most"),
    [
        ("POST", "/v1/users/check_email", {"email": "ada@example.com"}, 20),
        ("POST", "/v1/auth/reset-password", {"email": "ada@example.com"}, 5),
        ("POST", "/v1/auth/resend-verification-email", {"email": "ada@example.com"}, 5),
        ("PATCH", "/v1/auth/reset-password", {"token": "x", "password": "long enough"}, 20),
    ],
)
def test_other_routes_are_counted_too(
    client_with_limits: FlaskClient, method: str, path: str, body: dict[str, Any], most: int
) -> None:
    answers = list_statuses(lambda _: client_with_limits.open(path, method=method, json=body), most + 1)

    assert answers[-1] == 429
    assert 429 not in answers[:-1]
    assert log_in(client_with_limits).status_code == 401


@pytest.mark.usefixtures("redis_process")
def test_uncounted_route_has_no_limit(client_with_limits: FlaskClient, own_redis: embedded.Redis) -> None:
    assert set(list_statuses(lambda _: client_with_limits.get("/free"), 50)) == {200}

    with redis.Redis.from_url(own_redis.url) as client:
        assert client.keys() == []


def test_limits_are_off_when_the_setting_says_so(client: FlaskClient) -> None:
    assert set(list_statuses(lambda _: log_in(client), 25)) == {401}


@pytest.mark.parametrize("failure", [signal.SIGSTOP, signal.SIGKILL])
def test_without_redis_this_process_counts_and_nobody_waits(
    client_with_limits: FlaskClient,
    own_redis: embedded.Redis,
    redis_process: subprocess.Popen[bytes],
    wait_until: Callable[..., Any],
    failure: signal.Signals,
) -> None:
    assert log_in(client_with_limits).status_code == 401
    redis_process.send_signal(failure)

    begun = monotonic()
    answers = list_statuses(lambda _: log_in(client_with_limits), 6)
    free = list_statuses(lambda _: client_with_limits.get("/free"), 20)

    assert monotonic() - begun < SLOW
    assert answers == [401] * 5 + [429]
    assert set(free) == {200}
    if failure == signal.SIGSTOP:
        redis_process.send_signal(signal.SIGCONT)
        wait_until(lambda: _is_counted_in(own_redis, client_with_limits), 20)


def test_requests_that_nobody_counts_never_ask_whether_redis_is_back(
    client_with_limits: FlaskClient, redis_process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_process.kill()
    redis_process.wait()
    log_in(client_with_limits)
    asked = []
    monkeypatch.setattr(limiter.storage, "check", lambda: asked.append("check"))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)

    client_with_limits.get("/free")
    assert asked == []
    log_in(client_with_limits)
    assert asked == ["check"]


@pytest.mark.usefixtures("redis_process")
def test_forwarding_headers_from_no_trusted_proxy_change_nothing_and_warn_once(
    client_with_limits: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    def send_forwarded(number: int) -> TestResponse:
        body = {"email": "ada@example.com", "password": "x" * 200}
        headers = {("X-Forwarded-For", "Forwarded")[number % 2]: f"10.1.0.{number}"}
        return client_with_limits.post("/v1/auth/login", json=body, headers=headers)

    assert log_in(client_with_limits).status_code == 401
    assert "TRUSTED_PROXIES" not in caplog.text

    assert list_statuses(send_forwarded, 6) == [401] * 5 + [429]
    assert caplog.text.count("TRUSTED_PROXIES is 0") == 1


@pytest.mark.usefixtures("redis_process")
def test_exceeded_limit_is_logged_with_address_and_route(
    client_with_limits: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    list_statuses(lambda _: log_in(client_with_limits), 6)

    (line,) = [record.getMessage() for record in caplog.records if "rate limit exceeded" in record.getMessage()]
    assert "10.0.0.1" in line
    assert "POST /v1/auth/login" in line
    assert "ada" not in line


@pytest.mark.usefixtures("redis_process")
@pytest.mark.parametrize(
    ("addresses", "are_one"),
    [
        (["2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"], True),
        (["2001:db8::1", "2001:db8:0:1::1"], False),
        (["10.0.0.1", "::ffff:10.0.0.1"], True),
        (["10.0.0.1", "10.0.0.2"], False),
        (["fe80::1%eth0", "fe80::2%eth1"], True),
    ],
)
def test_addresses_are_counted_by_what_one_client_has(
    client_with_limits: FlaskClient, addresses: list[str], are_one: bool
) -> None:
    tried = list_statuses(lambda n: log_in(client_with_limits, f"user{n}@example.com", addresses[n % 2]), 21)

    assert tried == [401] * 20 + [429 if are_one else 401]


def _is_counted_in(server: embedded.Redis, client: FlaskClient) -> bool:
    log_in(client, "later@example.com", "10.0.0.9")
    with redis.Redis.from_url(server.url) as connection:
        return bool(connection.keys("*10.0.0.9*"))
