"""A browser without scripts for tests: it keeps cookies and sends forms with their hidden fields."""

import re
from functools import cache
from html import unescape
from html.parser import HTMLParser
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.extensions import db
from app.users.models import User
from app.users.passwords import hash_password
from tests.dataset import Dataset

PASSWORD = "correct horse battery"


@cache
def _hash() -> str:
    return hash_password(PASSWORD)


def give_passwords(dataset: Dataset) -> None:
    """Give a password to all users of the dataset."""
    with dataset.app.app_context():
        db.session.query(User).update({User.password_hash: _hash()})
        db.session.commit()


class Browser:
    """A browser with its own cookies, without a session at first."""

    def __init__(self, app: Flask) -> None:
        self.client: FlaskClient = app.test_client()

    def get(self, path: str, **headers: str) -> TestResponse:
        """GET a page."""
        return self.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path: str, fields: dict[str, str], **headers: str) -> TestResponse:
        """POST a form."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, data=fields, headers=sent)

    def token(self, path: str = "/jobs") -> str:
        """Return the CSRF token in the forms of a page."""
        return get_hidden_field(self.get(path), "token")

    def sign_in(self, name: str, password: str = PASSWORD, **fields: str) -> TestResponse:
        """Send the log-in form."""
        given = {"email": f"{name}@example.com", "password": password, "token": self.token("/jobs/sign-in")}
        return self.post("/jobs/sign-in", {**given, **fields})

    def submit_form(self, path: str, **fields: str) -> TestResponse:
        """Send one of the small forms of a page."""
        return self.post(path, {"token": self.token(), **fields})

    def cookie(self) -> str | None:
        """Return the value of the session cookie."""
        found = self.client.get_cookie("jobs-sign-in", path="/jobs")
        return found.value if found else None

    def set_cookie(self, cookie: str) -> None:
        """Set a cookie."""
        self.client.set_cookie("jobs-sign-in", cookie, path="/jobs")


def sign_in_as(dataset: Dataset, name: str) -> Browser:
    """Return a browser in which the user is signed in."""
    browser = Browser(dataset.app)
    assert browser.sign_in(name).status_code == 303
    return browser


def get_hidden_field(response: TestResponse, name: str) -> str:
    """Return the value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', response.text)
    assert found, response.text
    return unescape(found[1])


def list_job_rows(response: TestResponse) -> list[tuple[str, str]]:
    """Return the id and the state of each job in a list."""
    found: list[Any] = re.findall(r'data-id="([^"]+)" data-state="([^"]+)"', response.text)
    return [(id_, state) for id_, state in found]


class TagCollector(HTMLParser):
    """Parser that collects the tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect a tag."""
        self.found.append((tag, dict(attrs)))

    def attribute_values(self, name: str) -> list[str]:
        """Return all values of an attribute in the page."""
        return [attributes[name] or "" for _, attributes in self.found if name in attributes]
