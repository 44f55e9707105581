"""Headers of cross-origin requests according to the Fetch standard; `tests/pages` tests them with a browser."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import config
from app.extensions import db
from app.factory import create_app
from tests.dataset import JSONAPI, Dataset

ALLOWED, ALSO_ALLOWED, DISALLOWED = "https://app.example.org", "http://[::1]:3000", "https://evil.example.net"
ORIGINS = [ALLOWED, DISALLOWED, f"{ALLOWED}.evil.example.net", "null", None]

ANSWERS: dict[str, Callable[[FlaskClient, Dataset, dict[str, str]], TestResponse]] = {
    "200": lambda client, dataset, headers: client.get(f"/v1/events/{dataset.events['published']}", headers=headers),
    "200 openapi": lambda client, dataset, headers: client.get("/openapi.json", headers=headers),
    "400": lambda client, dataset, headers: client.get("/v1/events?sort=unknown", headers=headers),
    "401": lambda client, dataset, headers: client.get("/v1/jobs", headers=headers),
    "401 token": lambda client, dataset, headers: client.get(
        "/v1/jobs", headers={**headers, "Authorization": "JWT nonsense"}
    ),
    "404": lambda client, dataset, headers: client.get("/v1/events/0", headers=headers),
    "404 route": lambda client, dataset, headers: client.get("/v1/nothing", headers=headers),
    "404 file": lambda client, dataset, headers: client.get("/files/images/nothing.jpg", headers=headers),
    "405": lambda client, dataset, headers: client.put("/v1/events", headers=headers),
    "406": lambda client, dataset, headers: client.get("/v1/events", headers={**headers, "Accept": f"{JSONAPI};a=b"}),
    "412": lambda client, dataset, headers: client.patch(
        f"/v1/events/{dataset.events['published']}",
        headers={
            **headers,
            "Authorization": f"JWT {dataset.owner.token}",
            "If-Match": '"another"',
            "Content-Type": JSONAPI,
        },
        json={"data": {"type": "event", "id": str(dataset.events["published"]), "attributes": {"name": "a"}}},
    ),
    "413": lambda client, dataset, headers: client.post(
        "/v1/auth/login", headers={**headers, "Content-Type": "application/json"}, data=bytes(2**20 + 1)
    ),
    "415": lambda client, dataset, headers: client.post("/v1/auth/login", headers=headers, data="a=b"),
    "429": lambda client, dataset, headers: exhaust_log_ins(client, headers),
    "500": lambda client, dataset, headers: client.get("/files/images/broken.jpg", headers=headers),
}


def exhaust_log_ins(client: FlaskClient, headers: dict[str, str]) -> TestResponse:
    """Send wrong log-ins until the rate limit is exceeded; return the 429."""
    body = {"email": "unknown@example.com", "password": "wrong horse"}
    answers = (client.post("/v1/auth/login", json=body, headers=headers) for _ in range(7))
    return next(answer for answer in answers if answer.status_code == 429)


@pytest.fixture(scope="module")
def make_client(app: Flask, environment: dict[str, str]) -> Iterator[Callable[[str], FlaskClient]]:
    """Return `make_client(origins)`, which returns a client of a server with these CORS_ORIGINS."""
    made: list[Flask] = []

    def make(origins: str) -> FlaskClient:
        settings = {**environment, "CORS_ORIGINS": origins, "RATELIMIT_ENABLED": "1"}
        made.append(create_app(config.read_config(settings)))
        return made[-1].test_client()

    yield make
    for each in made:
        with each.app_context():
            db.engine.dispose()


@pytest.fixture(scope="module")
def client(make_client: Callable[[str], FlaskClient]) -> FlaskClient:
    """Return a client of a server that allows two origins."""
    return make_client(f"{ALLOWED},{ALSO_ALLOWED}")


def origin_header(value: str | None) -> dict[str, str]:
    """Return the header that a browser sends for a page of this origin."""
    return {"Origin": value} if value else {}


def cors_headers(answer: TestResponse) -> dict[str, str]:
    """Return the CORS headers except Vary."""
    return {name: value for name, value in answer.headers if name.startswith("Access-Control-")}


def parse_vary(answer: TestResponse) -> set[str]:
    """Return the members of Vary."""
    assert len(answer.headers.getlist("Vary")) == 1
    return set(answer.vary.as_set())


@pytest.mark.parametrize("sent", [ALLOWED, ALLOWED.upper(), ALSO_ALLOWED])
@pytest.mark.parametrize("name", ANSWERS)
def test_answer_to_an_allowed_origin_can_be_read(
    client: FlaskClient, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, name: str, sent: str
) -> None:
    if name == "500":
        monkeypatch.setattr("app.storage.Storage.stat", lambda *_: 1 / 0)

    answer = ANSWERS[name](client, dataset, origin_header(sent))

    assert str(answer.status_code) == name[:3]
    headers = cors_headers(answer)
    assert headers.keys() == {"Access-Control-Allow-Origin", "Access-Control-Expose-Headers"}
    assert headers["Access-Control-Allow-Origin"] == sent
    exposed = {each.strip() for each in headers["Access-Control-Expose-Headers"].split(",")}
    assert {"ETag", "Location", "Content-Location", "Retry-After", "X-Request-ID", "Idempotent-Replayed"} <= exposed
    assert {"RateLimit", "X-RateLimit-Remaining", "Content-Disposition", "Content-Range"} <= exposed
    assert set(answer.headers.keys()) - exposed <= {
        "Access-Control-Allow-Origin",
        "Access-Control-Expose-Headers",
        "Cache-Control",
        "Content-Length",
        "Content-Security-Policy",
        "Content-Type",
        "Date",
        "Link",
        "Vary",
        "X-Content-Type-Options",
    }
    assert "origin" in parse_vary(answer)


@pytest.mark.parametrize("sent", ORIGINS[1:])
@pytest.mark.parametrize("name", [name for name in ANSWERS if name not in ("429", "500")])
def test_answer_to_any_other_origin_cannot_be_read_but_varies(
    client: FlaskClient, dataset: Dataset, name: str, sent: str | None
) -> None:
    answer = ANSWERS[name](client, dataset, origin_header(sent))

    assert str(answer.status_code) == name[:3]
    assert cors_headers(answer) == {}
    assert "origin" in parse_vary(answer)


def test_vary_keeps_what_else_shaped_the_answer(client: FlaskClient, dataset: Dataset) -> None:
    assert parse_vary(client.get("/v1/events", headers=origin_header(ALLOWED))) == {"accept", "authorization", "origin"}
    assert parse_vary(client.get("/v1/nothing")) == {"accept", "authorization", "origin"}


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1/events",
        "/v1/events/1/relationships/organizers",
        "/v1/operations",
        "/v1/auth/login",
        "/v1/jobs/0197a1c2-6d0e-7c4b-9a55-3f1f0f2b7c11/progress",
        "/v1/upload/image",
        "/auth/session",
        "/api/v1/resize",
        "/files/images/a.jpg",
    ],
)
def test_preflight_allows_what_clients_send(client: FlaskClient, path: str, method: str) -> None:
    wanted = ["accept", "authorization", "content-type", "if-match", "idempotency-key", "last-event-id"]
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": ",".join(wanted)}

    answer = client.options(path, headers={**origin_header(ALLOWED), **asked})

    assert 200 <= answer.status_code < 300
    headers = cors_headers(answer)
    assert headers["Access-Control-Allow-Origin"] == ALLOWED
    assert method in headers["Access-Control-Allow-Methods"].split(", ")
    assert set(wanted) <= set(headers["Access-Control-Allow-Headers"].split(", "))
    assert headers["Access-Control-Max-Age"] == "7200"
    assert "Access-Control-Allow-Credentials" not in headers
    assert "origin" in parse_vary(answer)


def test_preflight_of_a_disallowed_origin_or_method_is_denied(client: FlaskClient) -> None:
    asked = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization"}

    assert cors_headers(client.options("/v1/events", headers={**origin_header(DISALLOWED), **asked})) == {}
    asked["Access-Control-Request-Method"] = "PUT"
    denied = cors_headers(client.options("/v1/events", headers={**origin_header(ALLOWED), **asked}))
    assert "Access-Control-Allow-Methods" not in denied


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health-check", "/jobs", "/docs", "/v10", "/filesystem"])
def test_pages_and_probes_allow_no_origin(client: FlaskClient, path: str) -> None:
    answer = client.get(path, headers=origin_header(ALLOWED))

    assert cors_headers(answer) == {}


def test_entry_point_without_a_slash_is_part_of_the_api(client: FlaskClient) -> None:
    assert cors_headers(client.get("/v1", headers=origin_header(ALLOWED)))["Access-Control-Allow-Origin"] == ALLOWED


def test_not_modified_answer_can_be_read(client: FlaskClient, dataset: Dataset) -> None:
    path = f"/v1/events/{dataset.events['published']}"
    tag = client.get(path).headers["ETag"]

    answer = client.get(path, headers={**origin_header(ALLOWED), "If-None-Match": tag})

    assert answer.status_code == 304
    assert cors_headers(answer)["Access-Control-Allow-Origin"] == ALLOWED


def test_every_origin_is_allowed_by_a_star_and_none_by_nothing(
    make_client: Callable[[str], FlaskClient], dataset: Dataset
) -> None:
    every, none = make_client("*"), make_client("")
    for sent in (ALLOWED, DISALLOWED, "null"):
        headers: dict[str, Any] = cors_headers(every.get("/v1/events", headers=origin_header(sent)))
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in headers
        assert cors_headers(none.get("/v1/events", headers=origin_header(sent))) == {}
