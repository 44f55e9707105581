"""Headers of all responses: of the API, pages, files, errors and probes."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.test import TestResponse

import config
from tests.dataset import JSONAPI, Dataset, build_resource, get_data, get_errors

HSTS = "Strict-Transport-Security"


def fetch_all_routes(dataset: Dataset) -> dict[str, TestResponse]:
    """Yield responses of every method of every route, with and without log-in, and of unknown URLs; most are errors."""
    answers: dict[str, TestResponse] = {}
    for rule in (*(each.rule for each in dataset.app.url_map.iter_rules()), "/nothing", "/v1/nothing", "/%00"):
        path = re.sub(r"<[^>]+>", "1", rule)
        for name in ("anonymous", "owner"):
            for method in ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE"):
                answers[f"{name} {method} {path}"] = dataset.callers[name].send(method, path, Accept=f"{JSONAPI}, */*")
    return answers


def test_every_answer_has_one_of_each_header(dataset: Dataset) -> None:
    answers = fetch_all_routes(dataset)

    assert {answer.status_code // 100 for answer in answers.values()} >= {2, 4}
    without = {
        sent: answer.headers
        for sent, answer in answers.items()
        if answer.headers.getlist("X-Content-Type-Options") != ["nosniff"]
        or len(answer.headers.getlist("Cache-Control")) != 1
        or HSTS in answer.headers
    }
    assert without == {}


def test_no_answer_to_a_token_may_be_stored_unless_it_is_the_same_for_all(dataset: Dataset) -> None:
    answers = fetch_all_routes(dataset)

    private = {
        sent
        for sent, answer in answers.items()
        if sent.startswith("owner ") and answer.headers["Cache-Control"] not in ("no-store", "private, no-cache")
    }
    assert {sent.split()[2] for sent in private} == {
        *("/docs", "/docs/openapi", "/openapi.json", "/favicon.ico", "/robots.txt"),
    }


@pytest.mark.parametrize("path", ["/v1/events", "/v1/events?page[size]=1", "/v1"])
def test_public_answer_is_revalidated_and_signed_in_answer_not_stored(dataset: Dataset, path: str) -> None:
    public, private = dataset.anonymous.get(path), dataset.owner.get(path)

    assert (public.headers["Cache-Control"], private.headers["Cache-Control"]) == ("no-cache", "no-store")
    assert "Authorization" in public.headers["Vary"]
    for caller, answer in ((dataset.anonymous, public), (dataset.owner, private)):
        again = caller.get(path, If_None_Match=answer.headers["ETag"])
        assert (again.status_code, again.headers["Cache-Control"]) == (304, answer.headers["Cache-Control"])


def test_write_and_error_are_not_stored(dataset: Dataset) -> None:
    document = {"data": build_resource("faq-type", None, {"name": "Food"}, {"event": dataset.events["published"]})}
    made = dataset.owner.send("POST", "/v1/faq-types", document)
    missing = dataset.anonymous.get("/v1/events/999999")

    assert get_data(made)["type"] == "faq-type"
    assert get_errors(missing)[0]["status"] == "404"
    assert {made.headers["Cache-Control"], missing.headers["Cache-Control"]} == {"no-store"}


@pytest.fixture
def https_app(make_app: Callable[..., Flask]) -> Flask:
    """Return an app whose PUBLIC_URL is https."""
    return make_app(PUBLIC_URL="https://api.example.com", HSTS_SECONDS="600")


@pytest.mark.parametrize("path", ["/livez", "/", "/v1", "/docs", "/openapi.json", "/nothing", "/v1/nothing", "/jobs"])
def test_https_is_demanded_where_the_public_url_has_it(https_app: Flask, path: str) -> None:
    answer = https_app.test_client().get(path)

    assert answer.headers.getlist(HSTS) == ["max-age=600"]


@pytest.mark.parametrize("value", ["-1", "a year", "63072001"])
def test_hsts_seconds_that_are_none_are_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(config.ConfigError, match=r"^HSTS_SECONDS "):
        config.read_config({"VAR_DIR": str(tmp_path), "HSTS_SECONDS": value})
