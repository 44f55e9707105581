"""JSON:API 1.1, "Content Negotiation": each test is named after a statement of the specification."""

import pytest
from werkzeug.http import parse_options_header

from app.jsonapi.atomic_operations import EXTENSION
from app.jsonapi.cursors import PROFILE
from tests.dataset import JSONAPI, Dataset
from tests.jsonapi.conformance.crawl import get_responses

UNKNOWN = "https://example.com/unknown"
NEW = {"data": {"type": "event", "attributes": {"name": "Camp", "timezone": "UTC"}}}


def test_response_content_type(dataset: Dataset) -> None:
    for answer in get_responses(dataset):
        media_type, parameters = parse_options_header(answer.content_type)
        assert media_type == JSONAPI
        assert parameters.keys() <= {"ext", "profile"}  # 1.1 adds these two to "no media type parameters"


@pytest.mark.parametrize("parameter", ["charset=utf-8", "version=1", f'ext="{UNKNOWN}"', f'profile="{PROFILE}"; a=b'])
def test_response_unsupported_media_type(dataset: Dataset, parameter: str) -> None:
    content_type = f"{JSONAPI}; {parameter}"

    assert dataset.owner.send("POST", "/v1/events", NEW, Content_Type=content_type).status_code == 415
    assert dataset.owner.get("/v1/events", Content_Type=content_type).status_code == 415
    assert dataset.owner.send("POST", "/v1/operations", {}, Content_Type=content_type).status_code == 415


def test_response_not_acceptable(dataset: Dataset) -> None:
    one, other = f"{JSONAPI}; charset=utf-8", f"{JSONAPI}; version=1"

    assert dataset.owner.get("/v1/events", Accept=f"{one}, {other}").status_code == 406
    assert dataset.owner.get("/v1/events", Accept=f"{one}, {JSONAPI}").status_code == 200


def test_accept_ignores_instances_with_other_parameters(dataset: Dataset) -> None:
    accept = f'{JSONAPI}; profile="{PROFILE}"; charset=utf-8, {JSONAPI}'

    assert dataset.owner.get("/v1/events", Accept=accept).content_type == JSONAPI


def test_accept_unsupported_extension(dataset: Dataset) -> None:
    unknown = f'{JSONAPI}; ext="{UNKNOWN}"'

    assert dataset.owner.get("/v1/events", Accept=unknown).status_code == 406
    assert dataset.owner.get("/v1/events", Accept=f'{JSONAPI}; ext="{EXTENSION} {UNKNOWN}"').status_code == 406
    assert dataset.owner.get("/v1/events", Accept=f"{unknown}, {JSONAPI}").status_code == 200


def test_unknown_profile_is_ignored(dataset: Dataset) -> None:
    both = f'{JSONAPI}; profile="{UNKNOWN} {PROFILE}"'

    assert dataset.owner.send("POST", "/v1/events", NEW, Content_Type=both).status_code == 201
    assert dataset.owner.get("/v1/events", Accept=f'{JSONAPI}; profile="{UNKNOWN}"').content_type == JSONAPI
    assert dataset.owner.get("/v1/events", Accept=both).content_type == f'{JSONAPI}; profile="{PROFILE}"'


def test_applied_extension_is_named(dataset: Dataset) -> None:
    content_type = f'{JSONAPI}; ext="{EXTENSION}"'
    remove = {"atomic:operations": [{"op": "remove", "ref": {"type": "faq", "id": str(dataset.faqs["draft"])}}]}

    answer = dataset.owner.send("POST", "/v1/operations", remove, Content_Type=content_type, Accept=content_type)

    assert (answer.status_code, answer.content_type) == (200, content_type)


def test_applied_profile_is_named(dataset: Dataset) -> None:
    listed = dataset.owner.get("/v1/events?page[size]=1", Accept=f'{JSONAPI}; profile="{PROFILE}"')
    following = dataset.owner.get(listed.get_json(force=True)["links"]["next"])

    assert listed.content_type == following.content_type == f'{JSONAPI}; profile="{PROFILE}"'


def test_jsonapi_object_does_not_negotiate(dataset: Dataset) -> None:
    remove = {"op": "remove", "ref": {"type": "faq", "id": str(dataset.faqs["draft"])}}
    document = {"atomic:operations": [remove], "jsonapi": {"version": "1.1", "ext": [EXTENSION]}}

    assert dataset.owner.send("POST", "/v1/operations", document).status_code == 400
    assert dataset.owner.get(f"/v1/faqs/{dataset.faqs['draft']}").status_code == 200


def test_vary(dataset: Dataset) -> None:
    for answer in get_responses(dataset):
        assert "Accept" in answer.headers["Vary"]
