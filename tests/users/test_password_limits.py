"""Attacks on passwords against a web process with active limits, behind a proxy that names the clients."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask
from redis import Redis

from app.throttle import GLOBAL_ACCOUNT_LIMIT, NETWORK_FACTOR
from app.users.accounts import MAX_WRONG_PASSWORDS
from app.users.auth_routes import LOG_OUT_LIMIT
from app.users.request_body import MAX_FORM_BYTES
from tests.conftest import Processes
from tests.dataset import JSONAPI
from tests.users.conftest import PASSWORD, get_mailed_token
from tests.web_server import is_up

ATOMIC = 'application/vnd.api+json; ext="https://jsonapi.org/ext/atomic"'
LOG_IN = "/v1/auth/login"
NEW_PASSWORD = "another good one"
MAX_LOG_IN_SECONDS = 3
"""Seconds for the slowest request of others during an attack, on a machine that also runs other tests."""

address_numbers = count(1)


@pytest.fixture(scope="module")
def web(
    app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., Any]
) -> Iterator[Processes]:
    """Run a web process that trusts one proxy and has active limits."""
    running = Processes(environment, tmp_path_factory.mktemp("web"))
    process = running.start("web", RATELIMIT_ENABLED="1", TRUSTED_PROXIES="1")
    try:
        wait_until(lambda: is_up(running.base_url), 60)
        yield running
    finally:
        running.stop(process)


@pytest.fixture
def http(web: Processes) -> Iterator[httpx.Client]:
    """Return an HTTP client of the web process."""
    with httpx.Client(base_url=web.base_url, timeout=30, limits=httpx.Limits(max_connections=60)) as client:
        yield client


@pytest.fixture
def redis_client(environment: dict[str, str]) -> Iterator[Redis]:
    """Return a client of the Redis of the limits."""
    with Redis.from_url(environment["REDIS_URL"]) as client:
        yield client


@pytest.fixture
def email(make_user: Callable[..., int]) -> str:
    """Create an account for this test and return its address."""
    address = f"ada{next(address_numbers)}@example.com"
    make_user(address)
    return address


def new_address() -> str:
    """Return an IPv4 address that no request has come from yet."""
    number = next(address_numbers)
    return f"127.1.{number // 250}.{number % 250}"


def log_in(http: httpx.Client, email: str, password: str, address: str, **members: str) -> httpx.Response:
    return http.post(
        LOG_IN, json={"email": email, "password": password, **members}, headers={"X-Forwarded-For": address}
    )


def list_statuses(answers: Iterator[httpx.Response]) -> list[int]:
    return [answer.status_code for answer in answers]


def set_passwords(user_id: int, number: int) -> dict[str, Any]:
    """Return operations that set the own password so many times."""
    data = {"type": "user", "id": str(user_id), "attributes": {"password": NEW_PASSWORD}}
    return {"atomic:operations": [{"op": "update", "data": data}] * number}


def test_log_in_wrong_tries_from_one_address_do_not_lock_the_owner_out(http: httpx.Client, email: str) -> None:
    attacker = new_address()

    assert list_statuses(log_in(http, email, "wrong one", attacker) for _ in range(6)) == [401] * 5 + [429]

    assert log_in(http, email, PASSWORD, attacker).status_code == 429
    assert log_in(http, email, PASSWORD, new_address()).status_code == 200


def test_log_in_many_addresses_together_have_a_limit(http: httpx.Client, email: str) -> None:
    a_minute = int(GLOBAL_ACCOUNT_LIMIT.partition("/")[0])

    tried = list_statuses(log_in(http, email, "wrong one", new_address()) for _ in range(a_minute + 1))

    assert tried == [401] * a_minute + [429]


def exhaust_account_limit(http: httpx.Client, email: str) -> None:
    """Try wrong passwords from new addresses until a new address is refused."""
    for _ in range(100):
        if log_in(http, email, "wrong one", new_address()).status_code == 429:
            return
    pytest.fail("many addresses have no limit together")


def test_log_in_from_a_known_address_passes_while_others_are_refused(http: httpx.Client, email: str) -> None:
    home, neighbour = f"2001:db8:2:{next(address_numbers):x}::1", f"2001:db8:3:{next(address_numbers):x}::1"
    assert log_in(http, email, PASSWORD, home).status_code == 200

    exhaust_account_limit(http, email)

    assert log_in(http, email, PASSWORD, home.removesuffix("1") + "2").status_code == 200
    assert log_in(http, email, PASSWORD, neighbour).status_code == 429


def test_log_in_with_the_refresh_token_of_an_earlier_session_passes(
    http: httpx.Client, email: str, make_user: Callable[..., int]
) -> None:
    make_user("other@example.com")
    tokens = log_in(http, email, PASSWORD, new_address()).json()
    others = log_in(http, "other@example.com", PASSWORD, new_address()).json()
    http.post("/v1/auth/logout", headers={"Authorization": f"JWT {tokens['access_token']}"})
    exhaust_account_limit(http, email)

    def attempt(password: str, refresh_token: str) -> int:
        return log_in(http, email, password, new_address(), refresh_token=refresh_token).status_code

    assert attempt(PASSWORD, tokens["refresh_token"]) == 200
    assert attempt(PASSWORD, others["refresh_token"]) == 429, "another account's device"
    assert attempt(PASSWORD, "nonsense") == 429
    assert [attempt("wrong one", tokens["refresh_token"]) for _ in range(5)] == [401] * 4 + [429]


def test_log_in_after_a_reset_by_mail_passes_at_its_address(
    http: httpx.Client, email: str, deliver_mails: Callable[[], list[EmailMessage]]
) -> None:
    exhaust_account_limit(http, email)
    home = new_address()
    assert log_in(http, email, PASSWORD, home).status_code == 429
    headers = {"X-Forwarded-For": home}

    assert http.post("/v1/auth/reset-password", json={"email": email}, headers=headers).status_code == 200
    (mail,) = [each for each in deliver_mails() if each["Subject"] == "Reset your password"]
    body = {"token": get_mailed_token(mail), "password": NEW_PASSWORD}
    assert http.patch("/v1/auth/reset-password", json=body, headers=headers).status_code == 200

    assert log_in(http, email, NEW_PASSWORD, home).status_code == 200
    assert log_in(http, email, NEW_PASSWORD, new_address()).status_code == 429


def test_sign_in_page_in_a_browser_that_was_signed_in_before_passes(http: httpx.Client, email: str) -> None:
    def sign_in(password: str) -> int:
        page = http.get("/jobs/sign-in")
        (token,) = re.findall(r'name="token" value="([^"]+)"', page.text)
        form = {"email": email, "password": password, "token": token}
        return http.post("/jobs/sign-in", data=form, headers={"X-Forwarded-For": new_address()}).status_code

    assert sign_in(PASSWORD) == 303
    exhaust_account_limit(http, email)
    http.cookies.delete("jobs-sign-in")

    assert sign_in("wrong one") == 401
    assert sign_in(PASSWORD) == 303
    http.cookies.clear()
    assert sign_in(PASSWORD) == 429


def test_log_in_ipv6_counts_by_network(http: httpx.Client, email: str) -> None:
    same = [f"2001:db8:0:{next(address_numbers):x}::"] * 6
    tried = list_statuses(log_in(http, email, "wrong one", f"{network}{n:x}") for n, network in enumerate(same, 1))

    assert tried == [401] * 5 + [429]
    assert log_in(http, email, PASSWORD, f"2001:db8:1:{next(address_numbers):x}::1").status_code == 200


def test_log_in_ipv4_in_ipv6_is_the_same_address(http: httpx.Client, email: str) -> None:
    address = new_address()
    spelled = [address, f"::ffff:{address}"] * 3

    assert list_statuses(log_in(http, email, "wrong one", each) for each in spelled) == [401] * 5 + [429]


@pytest.mark.parametrize(
    "spelled",
    ["v\u0130ctim{n}@example.com", "\uff56ictim{n}@example.com", "victim{n}@\uff45xample.com", "victim{n}@example.com.",
     " VICTIM{n}@EXAMPLE.COM ", "victim{n}@example\u3002com"],
)  # fmt: skip
def test_log_in_no_spelling_has_tries_of_its_own_for_an_account(
    http: httpx.Client, make_user: Callable[..., int], spelled: str
) -> None:
    """Check that each spelling is counted for the account, or is no account."""
    number, address = next(address_numbers), new_address()
    email = f"victim{number}@example.com"
    make_user(email)
    opens = log_in(http, spelled.format(n=number), PASSWORD, new_address()).status_code == 200

    list_statuses(log_in(http, spelled.format(n=number), "wrong one", address) for _ in range(5))

    assert log_in(http, email, PASSWORD, address).status_code == (429 if opens else 200)


def change_password(http: httpx.Client, token: str, address: str) -> httpx.Response:
    """Try to change a password, with a wrong old one."""
    headers = {"Authorization": f"JWT {token}", "X-Forwarded-For": address}
    body = {"old-password": "wrong one", "new-password": NEW_PASSWORD}
    return http.post("/v1/auth/change-password", json=body, headers=headers)


def test_change_password_wrong_tries_count_for_the_session_wherever_it_is(http: httpx.Client, email: str) -> None:
    tokens = log_in(http, email, PASSWORD, new_address()).json()

    tried = [change_password(http, tokens["access_token"], new_address()) for _ in range(6)]

    assert [answer.status_code for answer in tried] == [400] * 5 + [429]
    assert 0 < int(tried[-1].headers["Retry-After"]) <= 60
    with_token = log_in(http, email, PASSWORD, new_address(), refresh_token=tokens["refresh_token"])
    assert with_token.status_code == 429, "the same device"
    assert log_in(http, email, PASSWORD, new_address()).status_code == 200


def test_change_password_of_many_sessions_together_has_a_limit_that_log_ins_of_others_do_not_use_up(
    http: httpx.Client, email: str
) -> None:
    tokens = [log_in(http, email, PASSWORD, new_address()).json()["access_token"] for _ in range(8)]
    exhaust_account_limit(http, email)
    a_minute = int(GLOBAL_ACCOUNT_LIMIT.partition("/")[0])

    tried = [change_password(http, tokens[n // 4], new_address()).status_code for n in range(a_minute + 1)]

    assert tried == [400] * a_minute + [429]


def test_session_ends_after_ten_wrong_passwords(
    http: httpx.Client, web: Processes, make_user: Callable[..., int], redis_client: Redis
) -> None:
    email = f"ada{next(address_numbers)}@example.com"
    user_id = make_user(email)
    tokens = log_in(http, email, PASSWORD, new_address()).json()
    others = log_in(http, email, PASSWORD, new_address()).json()
    tried = []
    for _ in range(MAX_WRONG_PASSWORDS):
        tried.append(change_password(http, tokens["access_token"], new_address()))
        expire_minute_counts(redis_client)

    assert [answer.status_code for answer in tried] == [400] * (MAX_WRONG_PASSWORDS - 1) + [401]
    (error,) = tried[-1].json()["errors"]
    assert (error["code"], "10 wrong passwords" in error["detail"]) == ("token-revoked", True)
    assert change_password(http, tokens["access_token"], new_address()).status_code == 401
    refreshed = http.post("/v1/auth/token/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert refreshed.status_code == 401
    assert change_password(http, others["access_token"], new_address()).status_code == 400, "another session goes on"
    (line,) = [each for each in web.log("web").read_text().splitlines() if "session revoked after wrong pass" in each]
    assert f"account_id={user_id}" in line


def expire_minute_counts(redis_client: Redis) -> None:
    """Let the counts of this minute end, and no others."""
    for key in redis_client.scan_iter("*/1/minute"):
        redis_client.delete(key)


def test_devices_of_before_a_reset_are_unknown_afterwards(
    http: httpx.Client, email: str, deliver_mails: Callable[[], list[EmailMessage]]
) -> None:
    attacker, home = new_address(), new_address()
    tokens = log_in(http, email, PASSWORD, attacker).json()
    http.post("/v1/auth/reset-password", json={"email": email}, headers={"X-Forwarded-For": home})
    (mail,) = [each for each in deliver_mails() if each["Subject"] == "Reset your password"]
    body = {"token": get_mailed_token(mail), "password": NEW_PASSWORD}
    assert http.patch("/v1/auth/reset-password", json=body, headers={"X-Forwarded-For": home}).status_code == 200
    exhaust_account_limit(http, email)

    assert log_in(http, email, "wrong one", attacker).status_code == 429
    by_token = log_in(http, email, "wrong one", new_address(), refresh_token=tokens["refresh_token"])
    assert by_token.status_code == 429
    assert log_in(http, email, NEW_PASSWORD, home).status_code == 200


def test_log_in_networks_of_one_ipv6_site_have_four_times_the_limit_of_one(http: httpx.Client) -> None:
    site = f"2001:db8:{next(address_numbers):x}"

    tried = list_statuses(
        log_in(http, f"nobody{n}@example.com", "x" * 2000, f"{site}:{n % 50:x}::1")
        for n in range(20 * NETWORK_FACTOR + 1)
    )

    assert tried == [401] * (20 * NETWORK_FACTOR) + [429]
    assert log_in(http, "nobody@example.com", "x" * 2000, f"2001:db8:{next(address_numbers):x}::1").status_code == 401


@pytest.mark.parametrize("form", ["{}:{port}", "{}:0{port}"])
def test_forwarded_address_with_a_port_is_counted_without_it(http: httpx.Client, email: str, form: str) -> None:
    address = new_address()

    spelled = [form.format(address, port=4000 + n) for n in range(5)]
    assert list_statuses(log_in(http, email, "wrong one", each) for each in [*spelled, address]) == [401] * 5 + [429]


def test_forwarded_ipv6_address_with_a_port_is_counted_without_it(http: httpx.Client, email: str) -> None:
    network = f"2001:db8:f:{next(address_numbers):x}:"
    spelled = [f"[{network}:{n}]:{4000 + n}" for n in range(1, 5)]
    spelled += [f"[{network}:1]", f"{network}:1"]

    assert list_statuses(log_in(http, email, "wrong one", each) for each in spelled) == [401] * 5 + [429]


def test_forwarded_addresses_that_are_none_count_as_one(http: httpx.Client, email: str) -> None:
    spelled = ["unknown", "_hidden", "1.2.3.4.5", "[::1", "1.2.3.4:x", "1.2.3.4:1:2"]

    assert list_statuses(log_in(http, email, "wrong one", each) for each in spelled) == [401] * 5 + [429]


def test_form_of_a_megabyte_is_refused_and_counted_before_it_is_read(http: httpx.Client) -> None:
    headers = {"X-Forwarded-For": new_address(), "Content-Type": "application/json"}
    body = b"[" + b"[]," * 349_000 + b"[]]"
    assert len(body) > MAX_FORM_BYTES

    tried = [http.post(LOG_IN, content=body, headers=headers) for _ in range(21)]

    assert [answer.status_code for answer in tried] == [413] * 20 + [429]
    assert http.post(LOG_IN, content=b"[", headers=headers).status_code == 429, "before it is parsed"


def test_document_of_many_arrays_is_refused_before_it_is_parsed(http: httpx.Client, email: str) -> None:
    token = log_in(http, email, PASSWORD, new_address()).json()["access_token"]
    headers = {"Authorization": f"JWT {token}", "X-Forwarded-For": new_address(), "Content-Type": JSONAPI}

    answer = http.post("/v1/events", content=b"[" + b"[]," * 349_000 + b"[]]", headers=headers)

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "too-large")


def test_operations_45_passwords_of_ten_accounts_delay_no_others(
    http: httpx.Client, make_user: Callable[..., int], email: str
) -> None:
    attackers = []
    for _ in range(10):
        address = f"eve{next(address_numbers)}@example.com"
        user_id = make_user(address)
        token = log_in(http, address, PASSWORD, new_address()).json()["access_token"]
        attackers.append((user_id, token))

    def attack(attacker: tuple[int, str]) -> httpx.Response:
        user_id, token = attacker
        headers = {"Authorization": f"JWT {token}", "X-Forwarded-For": new_address(), "Content-Type": ATOMIC}
        return http.post("/v1/operations", json=set_passwords(user_id, 45), headers={**headers, "Accept": ATOMIC})

    def measure(send: Callable[[], httpx.Response]) -> tuple[int, float]:
        begun = time.monotonic()
        return send().status_code, time.monotonic() - begun

    with ThreadPoolExecutor(20) as pool:
        attacks = [pool.submit(attack, attacker) for attacker in attackers]
        others = [pool.submit(measure, lambda: log_in(http, email, PASSWORD, new_address())) for _ in range(4)]
        others += [pool.submit(measure, lambda: http.get("/v1/events")) for _ in range(10)]
        refused = [each.result() for each in attacks]
        served = [each.result() for each in others]

    for answer in refused:
        (error,) = answer.json()["errors"]
        assert (answer.status_code, error["code"]) == (422, "too-many-passwords")
        assert error["source"]["pointer"] == "/atomic:operations/1/data/attributes/password"
    assert {status for status, _ in served} == {200}
    assert max(seconds for _, seconds in served) < MAX_LOG_IN_SECONDS


@pytest.mark.parametrize(("is_admin", "most"), [(False, 5), (True, 20)])
def test_set_password_is_counted_per_account(
    http: httpx.Client, make_user: Callable[..., int], is_admin: bool, most: int
) -> None:
    email = f"eve{next(address_numbers)}@example.com"
    user_id = make_user(email, is_admin=is_admin)
    token = log_in(http, email, PASSWORD, new_address()).json()["access_token"]

    def change(length: int) -> int:
        data = {"type": "user", "id": str(user_id), "attributes": {"password": "x" * length}}
        headers = {"Authorization": f"JWT {token}", "X-Forwarded-For": address, "Content-Type": JSONAPI}
        return http.patch(f"/v1/users/{user_id}", json={"data": data}, headers=headers).status_code

    address = new_address()
    assert [change(10) for _ in range(most + 1)] == [200] * most + [429]


def test_change_email_every_spelling_is_counted(http: httpx.Client, make_user: Callable[..., int]) -> None:
    email = f"eve{next(address_numbers)}@example.com"
    user_id = make_user(email)
    token = log_in(http, email, PASSWORD, new_address()).json()["access_token"]
    headers = {"Authorization": f"JWT {token}", "X-Forwarded-For": new_address(), "Content-Type": JSONAPI}

    def change(spelled: str) -> int:
        data = {"type": "user", "id": str(user_id), "attributes": {"email": spelled}}
        return http.patch(f"/v1/users/{user_id}", json={"data": data}, headers=headers).status_code

    spelled = [email[:n].upper() + email[n:] for n in range(1, 7)]
    spelled = [*list(dict.fromkeys(spelled))[:3], "other@example.com", "Other@example.com", "OTher@example.com"]
    assert [change(each) for each in spelled] == [200] * 5 + [429]


def test_identifiers_of_events_are_not_found_by_trying(http: httpx.Client, app: Flask, dataset: Any) -> None:
    headers = {"X-Forwarded-For": new_address()}
    private = f"/v1/events/{dataset.identifiers['private']}"
    assert http.get(private, headers=headers).status_code == 200

    guessed = list_statuses(http.get(f"/v1/events/{0xA0000000 + n:08x}", headers=headers) for n in range(60))

    assert guessed == [404] * 60
    assert http.get(private, headers=headers).status_code == 429, "or the guess that hits would show"
    assert http.get(f"/v1/events/{dataset.events['published']}", headers=headers).status_code == 200
    assert http.get(private, headers={"X-Forwarded-For": new_address()}).status_code == 200


def test_log_of_the_process_names_the_account_and_never_the_password(
    http: httpx.Client, web: Processes, make_user: Callable[..., int]
) -> None:
    email, address = f"eve{next(address_numbers)}@example.com", new_address()
    user_id = make_user(email)

    log_in(http, email, "a secret guess", address)

    log: Path = web.log("web")
    (line,) = [line for line in log.read_text().splitlines() if "log-in failed" in line and address in line]
    assert f"account_id={user_id}" in line
    assert LOG_IN in line
    assert "a secret guess" not in log.read_text()


def test_log_outs_of_one_address_are_limited_and_those_of_others_are_not(http: httpx.Client) -> None:
    attacker = new_address()
    a_minute = int(LOG_OUT_LIMIT.partition("/")[0])

    def log_out(address: str) -> int:
        return http.post("/v1/auth/logout", headers={"X-Forwarded-For": address}).status_code

    tried = [log_out(attacker) for _ in range(a_minute + 1)]

    assert tried == [401] * a_minute + [429]
    assert log_out(new_address()) == 401
