"""Invalid bodies at every account route."""

import pytest
from flask.testing import FlaskClient

from app.users.request_body import MAX_FORM_BYTES
from app.users.resources import MAX_SIGN_UP_BYTES

ROUTES = [
    ("POST", "/auth/session", "email"),
    ("POST", "/v1/auth/login", "email"),
    ("POST", "/v1/auth/token/refresh", "refresh_token"),
    ("POST", "/v1/auth/verify-email", "token"),
    ("POST", "/v1/auth/resend-verification-email", "email"),
    ("POST", "/v1/auth/reset-password", "email"),
    ("PATCH", "/v1/auth/reset-password", "token"),
    ("POST", "/v1/users/check_email", "email"),
]

routes = pytest.mark.parametrize(("method", "path", "member"), ROUTES)


def get_answer(client: FlaskClient, method: str, path: str, body: str | bytes) -> tuple[int, str | None]:
    """Return the status and pointer of a response."""
    response = client.open(path, method=method, data=body, content_type="application/json")
    assert response.content_type == "application/vnd.api+json", response.text
    (error,) = response.get_json(force=True)["errors"]
    assert error["status"] == str(response.status_code)
    return response.status_code, error.get("source", {}).get("pointer")


@routes
@pytest.mark.parametrize("body", ["", "{", "nonsense", "NaN", '{"a": NaN}', '{"a": 1e400}', "[" * 5000, b"\xff\xfe"])
def test_invalid_json_is_400(client: FlaskClient, method: str, path: str, member: str, body: str | bytes) -> None:
    assert get_answer(client, method, path, body)[0] == 400


@routes
@pytest.mark.parametrize("body", ["[]", "null", '"text"', "7", "true"])
def test_body_other_than_object_is_400_at_root(
    client: FlaskClient, method: str, path: str, member: str, body: str
) -> None:
    assert get_answer(client, method, path, body) == (400, "")


@routes
@pytest.mark.parametrize("data", ["[]", "null", '"text"', "7"])
def test_data_that_is_no_object_is_422(client: FlaskClient, method: str, path: str, member: str, data: str) -> None:
    assert get_answer(client, method, path, f'{{"data": {data}}}') == (422, "/data")


@routes
def test_a_missing_member_is_400_with_its_pointer(client: FlaskClient, method: str, path: str, member: str) -> None:
    assert get_answer(client, method, path, "{}") == (400, f"/{member}")
    assert get_answer(client, method, path, '{"data": {}}') == (400, f"/data/{member}")


@routes
@pytest.mark.parametrize("value", ["null", "7", "[]", "{}", "true", "9" * 5000])
def test_a_member_of_another_kind_is_422(client: FlaskClient, method: str, path: str, member: str, value: str) -> None:
    expected = (400 if len(value) > 300 else 422, f"/{member}")  # more than a number can have
    assert get_answer(client, method, path, f'{{"{member}": {value}}}') == expected


@routes
@pytest.mark.parametrize("text", [r"a\u0000b", r"\ud800", r"\udc00x"])
def test_text_nobody_can_store_is_422(client: FlaskClient, method: str, path: str, member: str, text: str) -> None:
    assert get_answer(client, method, path, f'{{"{member}": "{text}"}}') == (422, f"/{member}")


def test_a_log_in_without_a_password_is_400(client: FlaskClient) -> None:
    assert get_answer(client, "POST", "/v1/auth/login", '{"email": "a@example.com"}') == (400, "/password")


@routes
@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/xml"])
def test_another_media_type_is_415(client: FlaskClient, method: str, path: str, member: str, media_type: str) -> None:
    response = client.open(path, method=method, data="{}", content_type=media_type)

    assert response.status_code == 415
    assert response.get_json(force=True)["errors"][0]["source"] == {"header": "Content-Type"}


@pytest.mark.parametrize(
    ("method", "path"),
    [*((method, path) for method, path, _ in ROUTES), ("POST", "/v1/auth/change-password"), ("POST", "/jobs/sign-in")],
)
def test_form_of_more_than_16_kib_is_413(client: FlaskClient, method: str, path: str) -> None:
    def status(length: int) -> int:
        body = b"{" + b" " * (length - 1)
        return client.open(path, method=method, data=body, content_type="application/json").status_code

    assert status(MAX_FORM_BYTES) in (400, 401, 403)
    assert status(MAX_FORM_BYTES + 1) == 413


def test_sign_up_of_more_than_128_kib_is_413(client: FlaskClient) -> None:
    def status(length: int) -> int:
        body = b"{" + b" " * (length - 1)
        return client.post("/v1/users", data=body, content_type="application/vnd.api+json").status_code

    assert status(MAX_SIGN_UP_BYTES) == 400
    assert status(MAX_SIGN_UP_BYTES + 1) == 413
