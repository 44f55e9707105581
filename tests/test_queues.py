"""Mails do not wait for other work."""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select

from app.extensions import db
from app.outbox import OutboxEntry
from app.users.accounts import MAIL_VERIFICATION
from tests.conftest import Processes
from tests.dataset import Dataset
from tests.test_end_to_end import build_document, fetch_attribute, is_healthy, read_mails, send_request

pytestmark = pytest.mark.faults

RENAMES = 800
MAX_MAIL_SECONDS = 5
MAX_BACKLOG_SECONDS = 30


def test_reset_mail_does_not_wait_behind_many_changes_of_an_event(
    app: Flask,
    dataset: Dataset,
    processes: Processes,
    environment: dict[str, str],
    wait_until: Callable[..., Any],
    figure: Callable[[str], None],
) -> None:
    for name in ("web", "worker", "relay"):
        processes.start(name, PUBLIC_URL=processes.base_url)
    base = processes.base_url
    wait_until(lambda: is_healthy(base), 30)
    url = f"{base}/v1/events/{dataset.events['published']}"
    token = dataset.owner.token

    def rename(number: int) -> int:
        renamed = build_document("event", {"name": f"Name {number}"}, str(dataset.events["published"]))
        return send_request(url, "PATCH", renamed, token)[0]

    began = monotonic()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(rename, range(RENAMES - 1))) == {200}
    assert rename(RENAMES) == 200
    renamed_seconds = monotonic() - began
    began = monotonic()
    reset = {"data": {"email": "owner@example.com"}}
    assert send_request(f"{base}/v1/auth/reset-password", "POST", reset)[0] in (200, 202, 204)
    wait_until(lambda: any(mail["Subject"] == "Reset your password" for mail in read_mails(environment)), 120)
    mail_seconds = monotonic() - began
    wait_until(lambda: is_outbox_closed(app), 120)
    backlog_seconds = monotonic() - began

    figure(
        f"M9: after {RENAMES} renames in {renamed_seconds:.1f} s a reset mail is sent in {mail_seconds:.1f} s,"
        f" all calendars are written in {backlog_seconds:.1f} s"
    )
    assert mail_seconds < MAX_MAIL_SECONDS
    assert backlog_seconds < MAX_BACKLOG_SECONDS
    ical_url = fetch_attribute(base, str(dataset.events["published"]), "ical-url")
    assert f"SUMMARY:Name {RENAMES}" in send_request(ical_url)[1]


def is_outbox_closed(app: Flask) -> bool:
    """Return whether no entry is open."""
    with app.app_context():
        return not db.session.scalar(select(func.count()).where(OutboxEntry.done_at.is_(None)))


def test_mail_server_that_does_not_answer_holds_up_no_other_work(
    app: Flask,
    dataset: Dataset,
    processes: Processes,
    wait_until: Callable[..., Any],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # its backlog takes connections; no byte is ever sent
        mail_url = f"smtp://127.0.0.1:{silent.getsockname()[1]}"
        for name in ("web", "worker", "relay"):
            processes.start(name, PUBLIC_URL=processes.base_url, MAIL_URL=mail_url)
        base = processes.base_url
        wait_until(lambda: is_healthy(base), 30)
        for number in range(20):
            credentials = {"email": f"person-{number}@example.com", "password": "correct horse"}
            assert send_request(f"{base}/v1/users", "POST", build_document("user", credentials))[0] == 201
        wait_until(lambda: has_been_attempted(app, MAIL_VERIFICATION))

        event = str(dataset.events["published"])
        renamed = build_document("event", {"name": "Renamed"}, event)
        assert send_request(f"{base}/v1/events/{event}", "PATCH", renamed, dataset.owner.token)[0] == 200

        wait_until(lambda: fetch_attribute(base, event, "ical-url"), MAX_MAIL_SECONDS)


def has_been_attempted(app: Flask, consumer: str) -> bool:
    """Return whether a worker has tried an entry of this consumer."""
    with app.app_context():
        tried = select(OutboxEntry.id).where(OutboxEntry.consumer == consumer, OutboxEntry.tries > 0)
        return db.session.scalar(tried.limit(1)) is not None
