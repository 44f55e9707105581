"""A second opinion on our documents: npm's jsonapi-validator, with the JSON Schema of JSON:API 1.0 it carries."""

import json
from typing import Any

from app.jsonapi.cursors import PROFILE
from tests.clients import programs
from tests.dataset import JSONAPI, Dataset

VALID_PATHS = (
    "/v1/events",
    "/v1/events?include=owner,organizers,faqs.faq-type&page[size]=1&page[number]=2",
    "/v1/events?fields[event]=name",
    "/v1/events?fields[event]=",
    "/v1/events/upcoming",
    "/v1/events/{event}",
    "/v1/events/{event}?include=faqs,faq-types.faqs,coorganizers",
    "/v1/events/{event}/faqs",
    "/v1/events/{event}/owner",
    "/v1/events/{event}/relationships/owner",
    "/v1/events/{event}/relationships/faqs",
    "/v1/faqs/{faq}/faq-type",
    "/v1/users/{user}",
    "/v1/events/0",
    "/v1/events?sort=nobody",
)
INVALID_DOCUMENTS: dict[str, Any] = {
    "a number as id": {"data": {"type": "event", "id": 1}},
    "data beside errors": {"data": None, "errors": []},
    "no linkage": {"data": {"type": "event", "id": "1", "relationships": {"owner": {}}}},
}


@programs.skip_unless_runnable(".js")
def test_jsonapi_validator_agrees(dataset: Dataset) -> None:
    named = {"event": dataset.events["published"], "faq": dataset.faqs["published"], "user": dataset.owner.id}
    documents = {url: dataset.owner.get(url.format(**named)).get_json(force=True) for url in VALID_PATHS}
    page = dataset.owner.get("/v1/faqs?page[size]=1", Accept=f'{JSONAPI}; profile="{PROFILE}"')
    documents["by cursor"] = page.get_json(force=True)
    made = dataset.owner.create("/v1/faqs?include=event", "faq", {"question": "a", "answer": "b"}, event=named["event"])
    documents["POST"] = made.get_json(force=True)
    documents["DELETE"] = dataset.owner.delete(f"/v1/faqs/{named['faq']}").get_json(force=True)
    documents["422"] = dataset.owner.create("/v1/events", "event", {"name": ""}).get_json(force=True)

    refused = json.loads(
        programs.run_program(
            programs.DIRECTORY / "javascript" / "validate.js", json.dumps(documents | INVALID_DOCUMENTS)
        )
    )

    assert refused.keys() == INVALID_DOCUMENTS.keys(), refused
