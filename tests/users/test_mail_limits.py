"""Limits of the mails that users can cause to be sent to an address."""

from collections.abc import Callable
from email.message import EmailMessage
from itertools import product
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import mail, outbox
from app.extensions import db
from app.mail import MAX_MAILS_PER_DAY
from app.treatments.notifications import MAIL_CONSUMER
from app.users import accounts
from tests.dataset import JSONAPI, ApiClient, Dataset
from tests.users.conftest import EMAIL, Sql

Deliver = Callable[[], list[EmailMessage]]


@pytest.fixture
def ada(client: FlaskClient, user_id: int, log_in: Callable[..., dict[str, str]], deliver_mails: Deliver) -> ApiClient:
    """Create a user whose address is not verified; the verification mail is sent already."""
    deliver_mails()
    return ApiClient(client, log_in()["access_token"], user_id)


def vary_case(email: str, number: int) -> list[str]:
    """Return so many spellings of an address that differ in case alone."""
    local_part, _, domain = email.partition("@")
    cases = product(*((letter.lower(), letter.upper()) for letter in local_part))
    return ["".join(letters) + "@" + domain for letters in cases][:number]


def change_email(caller: ApiClient, email: str) -> int:
    return caller.update(f"/v1/users/{caller.id}", "user", {"email": email}).status_code


def list_subjects(mails: list[EmailMessage], to: str) -> list[str]:
    return [str(each["Subject"]) for each in mails if str(each["To"]).lower() == to]


def test_change_email_39_spellings_of_the_same_address_send_no_mail(ada: ApiClient, deliver_mails: Deliver) -> None:
    assert change_email(ada, "victim@example.com") == 200
    deliver_mails()

    assert [change_email(ada, each) for each in vary_case("victim@example.com", 39)] == [200] * 39

    assert deliver_mails() == []


def test_change_email_to_and_fro_sends_two_mails_and_no_notice_to_a_foreign_address(
    ada: ApiClient, deliver_mails: Deliver
) -> None:
    mails = []
    for _ in range(MAX_MAILS_PER_DAY + 3):
        for email in ("victim@example.com", "own@example.com"):
            assert change_email(ada, email) == 200
            mails += deliver_mails()

    assert list_subjects(mails, "victim@example.com") == ["Verify your e-mail address"] * mail.MAX_MAILS_PER_ORIGIN


@pytest.mark.parametrize("is_verified", [True, False])
def test_notices_go_to_the_old_address_if_it_was_verified(
    ada: ApiClient, deliver_mails: Deliver, run_sql: Sql, is_verified: bool
) -> None:
    run_sql("UPDATE users SET is_verified = :is_verified", is_verified=is_verified)
    assert change_email(ada, "new@example.com") == 200
    change = {"password": "another battery"}
    assert ada.update(f"/v1/users/{ada.id}", "user", change).status_code == 200
    assert ada.delete(f"/v1/users/{ada.id}").status_code == 200

    mails = deliver_mails()

    assert list_subjects(mails, EMAIL.lower()) == (["Your e-mail address was changed"] if is_verified else [])
    assert list_subjects(mails, "new@example.com") == []


def test_accounts_that_change_to_an_address_leave_its_owner_two_mails(
    client: FlaskClient,
    make_user: Callable[..., int],
    log_in: Callable[..., dict[str, str]],
    deliver_mails: Deliver,
    run_sql: Sql,
) -> None:
    """Change accounts at several client addresses to another address and order mails to it."""
    own, path = "victim@x.org", "/v1/auth/resend-verification-email"
    sent = []
    for number in range(6):
        made = f"made{number}@example.com"
        user_id = make_user(made)
        deliver_mails()
        origin: dict[str, Any] = {
            "headers": {"Authorization": f"JWT {log_in(made)['access_token']}"},
            "environ_base": {"REMOTE_ADDR": f"10.9.{number // 2}.1"},
        }
        change = {"data": {"type": "user", "id": str(user_id), "attributes": {"email": own}}}
        answer = client.patch(f"/v1/users/{user_id}", json=change, content_type=JSONAPI, **origin)
        assert answer.status_code == 200, answer.text
        sent += list_subjects(deliver_mails(), own)
        assert client.post(path, json={"email": own}, **origin).status_code == 200
        sent += list_subjects(deliver_mails(), own)
        run_sql("UPDATE users SET email = 'gone' || id || '@x.org', deleted_at = now() WHERE id = :id", id=user_id)
        run_sql("UPDATE outbox_entries SET done_at = now()")
    assert sent == ["Verify your e-mail address"] * mail.MAX_MAILS_BY_UNKNOWN_DEVICES

    sign_up(client, own)
    assert len(deliver_mails()) == 1
    for expected in (1, 0):
        assert client.post(path, json={"email": own}).status_code == 200
        assert len(deliver_mails()) == expected


@pytest.mark.parametrize(
    ("path", "email"),
    [("/v1/auth/reset-password", EMAIL), ("/v1/auth/resend-verification-email", EMAIL.upper())],
)
def test_mails_that_an_unverified_account_orders_are_three_a_day(
    client: FlaskClient, ada: ApiClient, deliver_mails: Deliver, run_sql: Sql, path: str, email: str
) -> None:
    run_sql("DELETE FROM mail_counts")
    mails = []
    for _ in range(MAX_MAILS_PER_DAY + 2):
        assert client.post(path, json={"email": email}).status_code == 200
        mails += deliver_mails()

    assert len(mails) == mail.MAX_MAILS_TO_UNVERIFIED_PER_ORIGIN
    run_sql("UPDATE mail_counts SET day = day - 1")
    client.post(path, json={"email": email})
    assert len(deliver_mails()) == 1, "the next day has mails of its own"


def sign_up(client: FlaskClient, email: str, address: str = "127.0.0.1") -> None:
    answer = client.post(
        "/v1/users",
        json={"data": {"type": "user", "attributes": {"email": email, "password": "x" * 8}}},
        content_type=JSONAPI,
        environ_base={"REMOTE_ADDR": address},
    )
    assert answer.status_code == 201, answer.text


def test_sign_ups_from_one_address_leave_two_mails_to_others(
    client: FlaskClient, deliver_mails: Deliver, run_sql: Sql
) -> None:
    for number in range(MAX_MAILS_PER_DAY):
        sign_up(client, "victim@x.org", "10.9.0.1")
        assert len(deliver_mails()) == (number < mail.MAX_MAILS_TO_UNVERIFIED_PER_ORIGIN)
        run_sql("UPDATE users SET email = 'gone' || id || '@x.org', deleted_at = now()")
        run_sql("UPDATE outbox_entries SET done_at = now()")

    sign_up(client, "victim@x.org", "10.9.0.2")
    assert len(deliver_mails()) == 1
    assert order_mail(client, "/v1/auth/resend-verification-email", "10.9.0.2", email="victim@x.org") == 200
    assert len(deliver_mails()) == 1


@pytest.mark.parametrize(
    ("tagged", "own"),
    [
        ("victim+{}@x.org", "victim@x.org"),
        ("vic.tim+{}@gmail.com", "victim@gmail.com"),
        ("vic.tim+{}@googlemail.com", "victim@gmail.com"),
    ],
)
def test_mail_count_sign_ups_with_tags_leave_the_mails_of_the_plain_address(
    client: FlaskClient, deliver_mails: Deliver, tagged: str, own: str
) -> None:
    for number in range(MAX_MAILS_PER_DAY + 3):
        sign_up(client, tagged.format(number), f"10.9.0.{number}")
    assert len(deliver_mails()) == MAX_MAILS_PER_DAY

    sign_up(client, own)
    for _ in range(mail.MAX_MAILS_PER_ORIGIN):
        assert client.post("/v1/auth/resend-verification-email", json={"email": own}).status_code == 200
        assert [each["To"] for each in deliver_mails()][-1:] == [own]


def test_mail_count_dots_make_another_mailbox_but_at_gmail(client: FlaskClient, deliver_mails: Deliver) -> None:
    for number in range(MAX_MAILS_PER_DAY + 3):
        sign_up(client, f"{'v' * (number + 1)}.ictim@x.org")
    assert len(deliver_mails()) == MAX_MAILS_PER_DAY + 3

    for number in range(mail.MAX_MAILS_PER_MAILBOX + 1):
        local_part = "abcdefghijklmno"
        sign_up(client, f"{local_part[: number + 1]}.{local_part[number + 1 :]}@gmail.com", f"10.9.0.{number}")
    assert len(deliver_mails()) == MAX_MAILS_PER_DAY


def test_mail_count_of_a_mailbox_is_ten_however_many_accounts_it_has(
    client: FlaskClient, deliver_mails: Deliver, run_sql: Sql
) -> None:
    for number in range(mail.MAX_MAILS_PER_MAILBOX + 2):
        sign_up(client, "victim@x.org")
        gone = f"gone{number}@x.org"
        run_sql("UPDATE users SET email = :gone, deleted_at = now() WHERE email = 'victim@x.org'", gone=gone)
        run_sql("UPDATE outbox_entries SET done_at = now()")
    run_sql("UPDATE users SET deleted_at = NULL, email = 'victim+' || id || '@x.org', is_verified = true")
    sent = []
    for (email,) in run_sql("SELECT email FROM users"):
        client.post(
            "/v1/auth/reset-password", json={"email": email}, environ_base={"REMOTE_ADDR": f"10.9.0.{len(sent)}"}
        )
        sent += deliver_mails()

    assert len(sent) == mail.MAX_MAILS_PER_MAILBOX


def order_mail(client: FlaskClient, path: str, address: str, **more: str) -> int:
    form = {"email": EMAIL, **more}
    return client.post(path, json=form, environ_base={"REMOTE_ADDR": address}).status_code


@pytest.mark.parametrize("path", ["/v1/auth/reset-password", "/v1/auth/resend-verification-email"])
@pytest.mark.parametrize("device", ["address", "refresh token", "access token"])
def test_mails_ordered_by_others_leave_some_to_the_owner(
    client: FlaskClient,
    user_id: int,
    log_in: Callable[..., dict[str, str]],
    deliver_mails: Deliver,
    run_sql: Sql,
    path: str,
    device: str,
) -> None:
    tokens = log_in()
    deliver_mails()
    run_sql("DELETE FROM mail_counts")
    if device != "address":
        run_sql("UPDATE sign_ins SET address_key = 'elsewhere'")
    for number in range(mail.MAX_MAILS_PER_ORIGIN + 3):
        assert order_mail(client, path, "10.9.0.1") == 200
        if number < mail.MAX_MAILS_PER_ORIGIN + 1:
            deliver_mails()
    run_sql("UPDATE outbox_entries SET done_at = now()")
    for number in range(8):
        assert order_mail(client, path, f"10.9.1.{number}") == 200
        deliver_mails()
    ((by_others,),) = run_sql("SELECT max(sent) FROM mail_counts")
    assert by_others == mail.MAX_MAILS_BY_UNKNOWN_DEVICES

    own = []
    for _ in range(4):
        if device == "address":
            assert order_mail(client, path, "127.0.0.1") == 200
        elif device == "refresh token":
            assert order_mail(client, path, "10.9.2.1", refresh_token=tokens["refresh_token"]) == 200
        else:
            headers = {"Authorization": f"JWT {tokens['access_token']}"}
            answer = client.post(path, json={"email": EMAIL}, headers=headers, environ_base={"REMOTE_ADDR": "10.9.2.1"})
            assert answer.status_code == 200
        own += deliver_mails()

    assert [each["To"] for each in own] == [EMAIL] * (MAX_MAILS_PER_DAY - mail.MAX_MAILS_BY_UNKNOWN_DEVICES)


def test_mails_ordered_from_one_address_are_two(client: FlaskClient, user_id: int, deliver_mails: Deliver) -> None:
    deliver_mails()
    sent = []
    for _ in range(4):
        assert order_mail(client, "/v1/auth/reset-password", "10.9.0.1") == 200
        sent += deliver_mails()
    assert len(sent) == mail.MAX_MAILS_PER_ORIGIN

    assert order_mail(client, "/v1/auth/reset-password", "10.9.0.2") == 200
    assert len(deliver_mails()) == 1


def test_an_order_of_others_is_not_merged_with_one_of_a_known_device(
    client: FlaskClient, user_id: int, log_in: Callable[..., dict[str, str]], deliver_mails: Deliver
) -> None:
    log_in()
    deliver_mails()
    path = "/v1/auth/resend-verification-email"
    assert order_mail(client, path, "127.0.0.1") == order_mail(client, path, "10.9.0.1") == 200

    assert len(deliver_mails()) == 2


def test_security_notices_are_not_used_up_by_accounts_with_tags(
    app: Flask, client: FlaskClient, make_user: Callable[..., int], deliver_mails: Deliver
) -> None:
    own = make_user("victim@x.org")
    tagged = [make_user(f"victim+{number}@x.org") for number in range(MAX_MAILS_PER_DAY + 1)]
    deliver_mails()
    with app.app_context(), db.session.begin():
        for user_id in tagged:
            address = f"victim+{tagged.index(user_id)}@x.org"
            accounts.notify_password_changed(user_id, address, is_verified=False)
    assert deliver_mails() == []

    with app.app_context(), db.session.begin():
        accounts.notify_password_changed(own, "victim@x.org", is_verified=True)
    assert [each["To"] for each in deliver_mails()] == ["victim@x.org"]


def test_mail_count_of_a_mail_that_is_sent_again_stays(
    app: Flask, ada: ApiClient, deliver_mails: Deliver, run_sql: Sql
) -> None:
    """Roll the count back when a consumer fails after counting."""
    with app.app_context():
        assert mail._increment_count("mailbox:x@example.com", "test", 5)
        db.session.rollback()

    assert run_sql("SELECT count(*) FROM mail_counts WHERE kind = 'test'") == [(0,)]


def test_mail_counts_hold_no_address_and_are_pruned(app: Flask, ada: ApiClient, run_sql: Sql) -> None:
    assert all(b"ada" not in bytes(row[0]) for row in run_sql("SELECT mailbox FROM mail_counts"))  # type: ignore[call-overload]
    ((number,),) = run_sql("SELECT count(*) FROM mail_counts")
    run_sql("UPDATE mail_counts SET day = day - 1")

    with app.app_context():
        assert mail.prune_counts(mail.timedelta(days=30)) == number == 3


@pytest.mark.parametrize(("is_verified", "number"), [(True, MAX_MAILS_PER_DAY + 2), (False, MAX_MAILS_PER_DAY)])
def test_mails_about_treatments_are_limited_until_the_address_is_verified(
    app: Flask, dataset: Dataset, deliver_mails: Deliver, run_sql: Sql, is_verified: bool, number: int
) -> None:
    treatment_id = dataset.get_background_ids()["treatment"]
    run_sql("UPDATE users SET is_verified = :is_verified", is_verified=is_verified)
    deliver_mails()
    with app.app_context(), db.session.begin():
        outbox.enqueue_entries(MAIL_CONSUMER, "treatment.failed", [{"id": treatment_id}] * (MAX_MAILS_PER_DAY + 2))

    assert len(deliver_mails()) == number
