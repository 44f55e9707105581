"""Spellings of addresses and passwords that are treated as the same."""

from collections.abc import Callable
from email.message import EmailMessage
from urllib.parse import quote

import pytest
from argon2 import PasswordHasher
from flask import Flask
from flask.testing import FlaskClient

from app.extensions import db
from app.jobs.cli import _find_owner_id
from app.users.emails import email_key, normalize_email, normalize_pattern
from app.users.passwords import hash_password
from tests.dataset import Dataset, get_data, get_errors, get_ids
from tests.users.conftest import PASSWORD, Sql, bearer_header, get_mailed_token

pytestmark = pytest.mark.long

Deliver = Callable[[], list[EmailMessage]]

STORED = "eva@müller.example"
SPELLINGS = (
    "eva@xn--mller-kva.example",
    "eva@XN--MLLER-KVA.EXAMPLE",
    "eva@müller.example",
    "eva@mu\u0308ller.example",
    "eva@MÜLLER.example",
    "EVA@Müller.Example",
    "eva@müller\uff0eexample",
    "eva@müller\u3002example",
    " eva@müller.example\n",
)


def sign_up(client: FlaskClient, email: str, password: str = PASSWORD) -> int:
    """Sign up and return the status."""
    document = {"data": {"type": "user", "attributes": {"email": email, "password": password}}}
    headers = {"Content-Type": "application/vnd.api+json"}
    return client.post("/v1/users", data=client.application.json.dumps(document), headers=headers).status_code


def log_in(client: FlaskClient, email: str, password: str = PASSWORD) -> int:
    """Log in and return the status."""
    return client.post("/v1/auth/login", json={"email": email, "password": password}).status_code


@pytest.mark.parametrize("email", SPELLINGS)
def test_email_any_spelling_signs_up_and_logs_in(client: FlaskClient, email: str, run_sql: Sql) -> None:
    assert sign_up(client, email) == 201

    assert {each: log_in(client, each) for each in SPELLINGS} == dict.fromkeys(SPELLINGS, 200)
    assert {each: sign_up(client, each) for each in SPELLINGS} == dict.fromkeys(SPELLINGS, 409)
    assert run_sql("SELECT lower(email) FROM users") == [(STORED,)]


@pytest.mark.parametrize("email", SPELLINGS)
def test_email_any_spelling_is_found_by_every_look_up(
    app: Flask, client: FlaskClient, email: str, deliver_mails: Deliver
) -> None:
    sign_up(client, SPELLINGS[0])
    assert [mail["To"] for mail in deliver_mails()] == ["eva@xn--mller-kva.example"]

    assert client.post("/v1/users/check_email", json={"email": email}).get_json() == {"exists": True}
    client.post("/v1/auth/resend-verification-email", json={"email": email})
    client.post("/v1/auth/reset-password", json={"email": email})
    assert sorted(str(mail["Subject"]) for mail in deliver_mails()) == [
        "Reset your password",
        "Verify your e-mail address",
    ]
    with app.app_context():
        assert _find_owner_id(email)
        db.session.rollback()


def test_email_capital_i_with_dot_is_no_other_spelling(client: FlaskClient) -> None:
    sign_up(client, "victim@example.com")

    assert log_in(client, "v\u0130ctim@example.com") == 401
    assert log_in(client, "v\u0131ctim@example.com") == 401
    assert client.post("/v1/users/check_email", json={"email": "v\u0130ctim@example.com"}).get_json() == {
        "exists": False
    }


@pytest.mark.parametrize("email", SPELLINGS)
def test_email_filters_find_any_spelling(dataset: Dataset, client: FlaskClient, email: str) -> None:
    sign_up(client, SPELLINGS[0])

    def find_emails(query: str) -> list[str]:
        return [user["attributes"]["email"] for user in get_data(dataset.admin.get(f"/v1/users?{query}"))]

    assert find_emails(f"filter[email]={quote(email)}") == [STORED]
    assert find_emails(f"filter[email][in]={quote(email)},nobody@example.com") == [STORED]
    assert find_emails(f"filter[email][ilike]={quote(email.strip())}") == [STORED]
    assert STORED not in find_emails(f"filter[email][ne]={quote(email)}")


def test_email_filter_finds_part_of_a_domain_in_its_ascii_form(dataset: Dataset, client: FlaskClient) -> None:
    sign_up(client, SPELLINGS[0])

    assert len(get_ids(dataset.admin.get("/v1/users?filter[email][ilike]=%25@xn--mller-kva.%25"))) == 1


def test_email_of_an_event_has_one_spelling(dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['draft']}"
    changed = dataset.owner.update(path, "event", {"paypal-email": "Shop@xn--mller-kva.example"})

    assert get_data(changed)["attributes"]["paypal-email"] == "Shop@müller.example"


def test_email_same_address_in_another_spelling_stays_verified(dataset: Dataset) -> None:
    path = f"/v1/users/{dataset.stranger.id}"

    changed = get_data(dataset.stranger.update(path, "user", {"email": "STRANGER@Example.com"}))["attributes"]

    assert (changed["email"], changed["is-verified"]) == ("STRANGER@example.com", True)


def test_email_key_is_what_the_index_has_of_the_stored_address() -> None:
    for email in SPELLINGS:
        assert email_key(email) == normalize_email(email).lower() == STORED
    assert email_key("JU\u0308RGEN@x") == "jürgen@x"
    assert email_key("x" * 100_000) == "x" * 100_000


@pytest.mark.parametrize(
    ("pattern", "stored"),
    [
        ("%@xn--mller-kva.example", "%@müller.example"),
        ("%XN--MLLER-KVA%", "%müller%"),
        ("%@mu\u0308ller\uff0eexample", "%@müller.example"),
        ("%xn--zzzzzzzz%", "%xn--zzzzzzzz%"),
        ("a_c%", "a_c%"),
    ],
)
def test_normalize_pattern_respells_domains(pattern: str, stored: str) -> None:
    assert normalize_pattern(pattern) == stored


COMPOSED, DECOMPOSED = "p\u00e4ssword \u00fc", "pa\u0308ssword u\u0308"


@pytest.mark.parametrize("typed", [COMPOSED, DECOMPOSED])
def test_password_either_normal_form_logs_in(client: FlaskClient, typed: str) -> None:
    sign_up(client, "ada@example.com", typed)

    assert [log_in(client, "ada@example.com", each) for each in (COMPOSED, DECOMPOSED, "password u")] == [200, 200, 401]


def test_password_hash_of_the_decomposed_form_still_works_and_is_replaced(
    client: FlaskClient, make_user: Callable[..., int], run_sql: Sql
) -> None:
    user_id = make_user()
    old = PasswordHasher(2, 19 * 1024, 1).hash(DECOMPOSED)
    run_sql("UPDATE users SET password_hash = :old WHERE id = :id", old=old, id=user_id)

    assert log_in(client, "ada@example.com", COMPOSED) == 401
    assert log_in(client, "ada@example.com", DECOMPOSED) == 200
    assert log_in(client, "ada@example.com", COMPOSED) == 200
    assert run_sql("SELECT password_hash FROM users") != [(old,)]


def test_password_old_hash_of_one_that_is_too_short_now_still_works(
    client: FlaskClient, make_user: Callable[..., int], run_sql: Sql
) -> None:
    make_user()
    run_sql("UPDATE users SET password_hash = :old", old=PasswordHasher(2, 19 * 1024, 1).hash("a\u0308" * 4))

    assert log_in(client, "ada@example.com", "a\u0308" * 4) == 200
    assert log_in(client, "ada@example.com", "\u00e4" * 4) == 200


def test_password_length_counts_in_normal_form() -> None:
    assert hash_password("a\u0308" * 128)
    for length in (7, 129):
        with pytest.raises(ValueError, match="8 to 128"):
            hash_password("a\u0308" * length)


def test_password_change_takes_either_normal_form(client: FlaskClient, make_user: Callable[..., int]) -> None:
    make_user(password=DECOMPOSED)
    tokens = client.post("/v1/auth/login", json={"email": "ada@example.com", "password": COMPOSED}).get_json()

    changed = client.post(
        "/v1/auth/change-password",
        json={"old-password": COMPOSED, "new-password": "another " + DECOMPOSED},
        headers=bearer_header(tokens),
    )

    assert changed.status_code == 200
    assert log_in(client, "ada@example.com", "another " + COMPOSED) == 200


NEW_PASSWORD = "another good one"


def list_mails(mails: list[EmailMessage]) -> list[tuple[str, str]]:
    """Return the recipients and subjects of mails."""
    return sorted((str(mail["To"]), str(mail["Subject"])) for mail in mails)


def test_notice_change_of_password_is_mailed_once(
    client: FlaskClient, make_user: Callable[..., int], deliver_mails: Deliver, run_sql: Sql
) -> None:
    make_user("ada@example.com", is_verified=True)
    tokens = client.post("/v1/auth/login", json={"email": "ada@example.com", "password": PASSWORD}).get_json()
    deliver_mails()

    wrong = {"old-password": "wrong one", "new-password": NEW_PASSWORD}
    assert client.post("/v1/auth/change-password", json=wrong, headers=bearer_header(tokens)).status_code == 400
    assert deliver_mails() == []
    right = {"old-password": PASSWORD, "new-password": NEW_PASSWORD}
    assert client.post("/v1/auth/change-password", json=right, headers=bearer_header(tokens)).status_code == 200

    (mail,) = deliver_mails()
    assert (mail["To"], mail["Subject"]) == ("ada@example.com", "Your password was changed")
    assert NEW_PASSWORD not in mail.get_content()
    assert PASSWORD not in mail.get_content()
    run_sql("UPDATE outbox_entries SET done_at = NULL")
    (again,) = deliver_mails()
    assert (again["Message-ID"], again.as_bytes()) == (mail["Message-ID"], mail.as_bytes())


def test_notice_rehash_at_log_in_is_no_change(
    client: FlaskClient, make_user: Callable[..., int], deliver_mails: Deliver, run_sql: Sql
) -> None:
    make_user(is_verified=True)
    run_sql("UPDATE users SET password_hash = :old", old=PasswordHasher(1, 8, 1).hash(PASSWORD))

    assert log_in(client, "ada@example.com") == 200

    assert deliver_mails() == []


def test_notice_reset_of_password_is_mailed_and_verifies_the_address(
    client: FlaskClient, make_user: Callable[..., int], deliver_mails: Deliver, run_sql: Sql
) -> None:
    make_user("ada@example.com")
    (verification,) = deliver_mails()
    client.post("/v1/auth/reset-password", json={"email": "ada@example.com"})
    (reset,) = deliver_mails()
    body = {"token": get_mailed_token(reset), "password": NEW_PASSWORD}

    assert client.patch("/v1/auth/reset-password", json=body).status_code == 200

    assert list_mails(deliver_mails()) == [("ada@example.com", "Your password was changed")]
    assert run_sql("SELECT is_verified, email_verified_at IS NOT NULL FROM users") == [(True, True)]
    assert client.patch("/v1/auth/reset-password", json=body).status_code == 400
    assert client.post("/v1/auth/verify-email", json={"token": get_mailed_token(verification)}).status_code == 400
    assert deliver_mails() == []


def test_notice_change_of_address_goes_to_the_old_one(dataset: Dataset, deliver_mails: Deliver) -> None:
    path = f"/v1/users/{dataset.stranger.id}"
    deliver_mails()

    assert dataset.stranger.update(path, "user", {"email": "new@xn--mller-kva.example"}).status_code == 200

    mails = deliver_mails()
    assert list_mails(mails) == [
        ("new@xn--mller-kva.example", "Verify your e-mail address"),
        ("stranger@example.com", "Your e-mail address was changed"),
    ]
    old = next(mail for mail in mails if mail["To"] == "stranger@example.com")
    assert "ller" not in old.get_content()
    assert "eyJ" not in old.get_content()


def test_notice_another_spelling_of_the_address_is_no_change(dataset: Dataset, deliver_mails: Deliver) -> None:
    deliver_mails()

    dataset.stranger.update(f"/v1/users/{dataset.stranger.id}", "user", {"email": "Stranger@EXAMPLE.com"})

    assert deliver_mails() == []


def test_notice_change_by_patch_of_both_reaches_the_old_address(dataset: Dataset, deliver_mails: Deliver) -> None:
    deliver_mails()
    changes = {"email": "new@example.com", "password": NEW_PASSWORD}

    assert dataset.admin.update(f"/v1/users/{dataset.stranger.id}", "user", changes).status_code == 200

    assert list_mails(deliver_mails()) == [
        ("new@example.com", "Verify your e-mail address"),
        ("stranger@example.com", "Your e-mail address was changed"),
        ("stranger@example.com", "Your password was changed"),
    ]


def test_notice_reaches_the_old_address_when_the_account_is_deleted_since(
    dataset: Dataset, deliver_mails: Deliver
) -> None:
    deliver_mails()
    path = f"/v1/users/{dataset.stranger.id}"
    dataset.stranger.update(path, "user", {"email": "new@example.com"})
    assert dataset.admin.delete(path).status_code == 200

    assert ("stranger@example.com", "Your e-mail address was changed") in list_mails(deliver_mails())


def test_notice_refused_change_is_not_mailed(dataset: Dataset, deliver_mails: Deliver) -> None:
    deliver_mails()

    refused = dataset.stranger.update(f"/v1/users/{dataset.stranger.id}", "user", {"email": "owner@example.com"})

    assert (refused.status_code, get_errors(refused)[0]["detail"]) == (409, "Email already exists")
    assert deliver_mails() == []
