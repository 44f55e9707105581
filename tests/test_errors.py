"""Errors: each class and each response has a title, and a detail that differs from the title."""

from collections.abc import Iterator
from http import HTTPStatus

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.errors import ApiError, Unprocessable
from tests.dataset import Dataset
from tests.dataset import get_errors as errors_of


def error_classes(base: type[ApiError] = ApiError) -> Iterator[type[ApiError]]:
    """Yield all error classes; the factory, which conftest imports, has imported their modules."""
    yield base
    for child in base.__subclasses__():
        yield from error_classes(child)


def split_words(text: str) -> str:
    return text.rstrip(".").casefold()


@pytest.mark.parametrize("kind", list(error_classes()), ids=lambda kind: kind.__name__)
def test_error_class_default_detail_says_more_than_its_title(kind: type[ApiError]) -> None:
    error = kind.__new__(kind)
    ApiError.__init__(error)

    assert error.title
    assert not error.title.endswith(".")
    assert split_words(error.detail) != split_words(error.title)
    assert error.detail.endswith(".")
    assert error.status == str(kind.http_status.value)


def test_error_classes_of_one_status_share_the_title_of_that_status() -> None:
    by_status: dict[HTTPStatus, set[str]] = {}
    for kind in error_classes():
        by_status.setdefault(kind.http_status, set()).add(kind.title)

    assert by_status.pop(HTTPStatus.BAD_REQUEST) == {"Bad request", "Invalid query parameter"}
    assert {status: len(titles) for status, titles in by_status.items() if len(titles) > 1} == {}


ERROR_REQUESTS = (
    ("GET", "/nowhere", {}, 404),
    ("GET", "/v1/nowhere", {}, 404),
    ("GET", "/v1/events/999999", {}, 404),
    ("GET", "/v1/events/nothing", {}, 404),
    ("GET", "/files/nothing.jpg", {}, 404),
    ("GET", f"/files/{'0' * 64}.jpg", {}, 404),
    ("GET", "/static/nothing.css", {}, 404),
    ("GET", "/v1/events/%ff", {}, 404),
    ("GET", "/v1/events?x=1", {}, 400),
    ("GET", "/v1/events?%zz", {}, 400),
    ("GET", "/v1/users", {}, 401),
    ("GET", "/v1/users", {"Authorization": "JWT nonsense"}, 401),
    ("POST", "/v1/events", {"Content-Type": "application/vnd.api+json"}, 401),
    ("DELETE", "/v1/events", {}, 405),
    ("PUT", "/health-check", {}, 405),
    ("GET", "/v1/events", {"Accept": 'application/vnd.api+json; ext="https://example.com/unknown"'}, 406),
    ("POST", "/v1/users", {"Content-Type": "text/plain", "Content-Length": "1"}, 415),
)


@pytest.mark.parametrize(("method", "path", "headers", "status"), ERROR_REQUESTS)
def test_refused_request_detail_says_more_than_the_title(
    client: FlaskClient, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    response = client.open(path, method=method, headers=headers)

    assert response.status_code == status
    for error in errors_of(response):
        assert split_words(error["detail"]) != split_words(error["title"])


def test_refused_request_forbidden_detail_says_more_than_the_title(dataset: Dataset) -> None:
    response = dataset.stranger.delete(f"/v1/events/{dataset.events['published']}")

    (error,) = errors_of(response)
    assert (response.status_code, error["title"]) == (403, "Forbidden")
    assert split_words(error["detail"]) != split_words(error["title"])


def test_body_over_the_limit_detail_says_more_than_the_title(client: FlaskClient) -> None:
    response = client.post("/v1/users", data=bytes(2**20 + 1), content_type="application/vnd.api+json")

    (error,) = errors_of(response)
    assert (response.status_code, error["title"]) == (413, "Content too large")
    assert split_words(error["detail"]) != split_words(error["title"])


def test_unknown_url_says_that_there_is_no_route(client: FlaskClient) -> None:
    (error,) = errors_of(client.get("/nowhere"))

    assert (error["title"], error["detail"]) == ("Not found", "There is no resource or route at this URL.")


def test_wrong_method_names_the_allowed_methods(client: FlaskClient) -> None:
    response = client.delete("/v1/events")

    (error,) = errors_of(response)
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
    assert error["detail"] == f"This URL supports {response.headers['Allow']}."


def test_unexpected_exception_is_500_with_an_id_to_quote(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise KeyError("secret")

    monkeypatch.setitem(app.view_functions, "health.live", fail)
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)

    response = app.test_client().get("/livez")

    (error,) = errors_of(response)
    assert (response.status_code, error["title"]) == (500, "Internal server error")
    assert error["detail"] == "The server failed to process this request. Quote this error's id when reporting it."
    assert len(error["id"]) == 32
    assert "secret" not in response.text


def test_invalid_attribute_repeats_its_detail_for_forms() -> None:
    error = Unprocessable("Must not be blank.", pointer="/data/attributes/name")

    assert error.meta == {"attribute": "name", "message": "Must not be blank."}
