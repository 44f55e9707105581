"""Mails that a user can have sent to an address, and how many of them are."""

from collections.abc import Callable
from email.message import EmailMessage
from itertools import product

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import mail, outbox
from app.extensions import db
from app.mail import MAX_MAILS_PER_DAY
from app.treatments.mailing import MAIL
from tests.users.conftest import EMAIL, Sql
from tests.world import Caller, World

Deliver = Callable[[], list[EmailMessage]]


@pytest.fixture
def ada(client: FlaskClient, user_id: int, log_in: Callable[..., dict[str, str]], deliver: Deliver) -> Caller:
    """Ada, whose address is not verified; the mail about it is out already."""
    deliver()
    return Caller(client, log_in()["access_token"], user_id)


def spellings(email: str, number: int) -> list[str]:
    """Return so many spellings of an address that differ in case alone."""
    local_part, _, domain = email.partition("@")
    cases = product(*((letter.lower(), letter.upper()) for letter in local_part))
    return ["".join(letters) + "@" + domain for letters in cases][:number]


def change_email(caller: Caller, email: str) -> int:
    return caller.update(f"/v1/users/{caller.id}", "user", {"email": email}).status_code


def subjects(mails: list[EmailMessage], to: str) -> list[str]:
    return [str(each["Subject"]) for each in mails if str(each["To"]).lower() == to]


def test_change_email_39_spellings_of_the_same_address_send_no_mail(ada: Caller, deliver: Deliver) -> None:
    assert change_email(ada, "victim@example.com") == 200
    deliver()

    assert [change_email(ada, each) for each in spellings("victim@example.com", 39)] == [200] * 39

    assert deliver() == []


def test_change_email_to_and_fro_sends_five_mails_of_each_kind_to_an_address(ada: Caller, deliver: Deliver) -> None:
    mails = []
    for _ in range(MAX_MAILS_PER_DAY + 3):
        for email in ("victim@example.com", "own@example.com"):
            assert change_email(ada, email) == 200
            mails += deliver()

    sent = subjects(mails, "victim@example.com")
    assert sent.count("Your e-mail address was changed") == MAX_MAILS_PER_DAY
    assert sent.count("Verify your e-mail address") == MAX_MAILS_PER_DAY
    assert len(sent) == 2 * MAX_MAILS_PER_DAY


@pytest.mark.parametrize(
    ("path", "email"),
    [("/v1/auth/reset-password", EMAIL), ("/v1/auth/resend-verification-email", EMAIL.upper())],
)
def test_mails_that_anyone_can_order_are_five_a_day(
    client: FlaskClient, ada: Caller, deliver: Deliver, sql: Sql, path: str, email: str
) -> None:
    sql("DELETE FROM mail_counts")
    mails = []
    for _ in range(MAX_MAILS_PER_DAY + 2):
        assert client.post(path, json={"email": email}).status_code == 200
        mails += deliver()

    assert len(mails) == MAX_MAILS_PER_DAY
    sql("UPDATE mail_counts SET day = day - 1")
    client.post(path, json={"email": email})
    assert len(deliver()) == 1, "the next day has mails of its own"


def test_mail_count_is_that_of_a_mailbox_not_of_a_tag(client: FlaskClient, deliver: Deliver, app: Flask) -> None:
    for number in range(MAX_MAILS_PER_DAY + 3):
        document = {"data": {"type": "user", "attributes": {"email": f"vic.tim+{number}@x.org", "password": "x" * 8}}}
        body = app.json.dumps(document)
        assert client.post("/v1/users", data=body, content_type="application/vnd.api+json").status_code == 201

    assert len(deliver()) == MAX_MAILS_PER_DAY


def test_mail_count_of_a_mail_that_is_sent_again_stays(app: Flask, ada: Caller, deliver: Deliver, sql: Sql) -> None:
    """A consumer that fails after it has counted rolls the count back with everything else."""
    with app.app_context():
        assert mail._count("x@example.com", "test")
        db.session.rollback()

    assert sql("SELECT count(*) FROM mail_counts WHERE kind = 'test'") == [(0,)]


def test_mail_counts_hold_no_address_and_are_pruned(app: Flask, ada: Caller, sql: Sql) -> None:
    assert all(b"ada" not in bytes(row[0]) for row in sql("SELECT mailbox FROM mail_counts"))  # type: ignore[call-overload]
    ((number,),) = sql("SELECT count(*) FROM mail_counts")
    sql("UPDATE mail_counts SET day = day - 1")

    with app.app_context():
        assert mail.prune(mail.timedelta(days=30)) == number == 1


@pytest.mark.parametrize(("is_verified", "number"), [(True, MAX_MAILS_PER_DAY + 2), (False, MAX_MAILS_PER_DAY)])
def test_mails_about_treatments_are_limited_until_the_address_is_verified(
    app: Flask, world: World, deliver: Deliver, sql: Sql, is_verified: bool, number: int
) -> None:
    treatment_id = world.background()["treatment"]
    sql("UPDATE users SET is_verified = :is_verified", is_verified=is_verified)
    deliver()
    with app.app_context(), db.session.begin():
        outbox.order_many(MAIL, "treatment.failed", [{"id": treatment_id}] * (MAX_MAILS_PER_DAY + 2))

    assert len(deliver()) == number
