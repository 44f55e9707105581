"""A 415 names exactly the media types that its route takes."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.dataset import JSONAPI, Dataset, get_errors
from tests.hooks.requests import create_hook, get_hook_path

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
ATOMIC = f'{JSONAPI}; ext="https://jsonapi.org/ext/atomic"'
SENT_MEDIA_TYPES = [JSONAPI, JSON, FORM, MULTIPART, ATOMIC, "image/jpeg", "text/plain", "application/xml", ""]

ROUTES = [
    ("POST", "/v1/events", [JSONAPI, JSON]),
    ("PATCH", "/v1/events/1", [JSONAPI, JSON]),
    ("POST", "/v1/users", [JSONAPI, JSON]),
    ("POST", "/v1/jobs", [JSONAPI, JSON]),
    ("PATCH", "/v1/events/1/relationships/organizers", [JSONAPI, JSON]),
    ("POST", "/v1/auth/login", [JSONAPI, JSON]),
    ("POST", "/auth/session", [JSONAPI, JSON]),
    ("PATCH", "/v1/auth/reset-password", [JSONAPI, JSON]),
    ("POST", "/v1/upload/image", [MULTIPART, JSONAPI, JSON]),
    ("POST", "/api/v1/resize", [JSONAPI, JSON]),
    ("POST", "hook", [JSONAPI, JSON, FORM]),
]


def send_body(dataset: Dataset, method: str, path: str, media_type: str) -> TestResponse:
    """Return a body of this media type."""
    headers = {"Authorization": f"JWT {dataset.owner.token}"}
    client: FlaskClient = dataset.app.test_client()
    return client.open(path, method=method, headers=headers, data=b"{}", content_type=media_type)


@pytest.mark.parametrize(("method", "path", "taken"), ROUTES)
def test_unsupported_media_type_names_what_the_route_takes(
    dataset: Dataset, method: str, path: str, taken: list[str]
) -> None:
    path = get_hook_path(create_hook(dataset.owner)) if path == "hook" else path
    words = f"This route accepts {', '.join(taken[:-1])} or {taken[-1]}."

    for media_type in (each for each in SENT_MEDIA_TYPES if each not in (ATOMIC, "")):
        answer = send_body(dataset, method, path, media_type)
        assert (answer.status_code == 415) == (media_type not in taken), (media_type, answer.text)
        if answer.status_code == 415:
            (error,) = get_errors(answer)
            assert (error["detail"], error["source"]) == (words, {"header": "Content-Type"})
            assert answer.headers["Accept"] == ", ".join(taken)


def test_unsupported_media_type_of_operations_names_the_extension(dataset: Dataset) -> None:
    for media_type in ("text/plain", FORM, f'{JSONAPI}; ext="https://example.com/other"'):
        answer = send_body(dataset, "POST", "/v1/operations", media_type)
        assert (answer.status_code, answer.headers["Accept"]) == (415, ATOMIC)
        assert get_errors(answer)[0]["detail"].endswith(f"This route accepts {ATOMIC}.")


def test_unsupported_parameter_is_said_beside_what_the_route_takes(dataset: Dataset) -> None:
    answer: Any = send_body(dataset, "POST", "/v1/events", f"{JSONAPI}; charset=utf-8")

    expected = f"The media type has parameters that are not supported. This route accepts {JSONAPI} or {JSON}."
    assert (answer.status_code, get_errors(answer)[0]["detail"]) == (415, expected)
