"""jsonapi-requests: models over requests; every URL gets a slash at its end, a saved model is sent whole."""

import json
import os

import requests
from jsonapi_requests.orm import ApiModel, AttributeField, OrmApi, RelationField
from jsonapi_requests.request_factory import ApiClientError

ROOT = os.environ["API_ROOT"]


class BearerAuth(requests.auth.AuthBase):
    """Everything is sent with an access token."""

    def __init__(self) -> None:
        credentials = {"email": os.environ["EMAIL"], "password": os.environ["PASSWORD"]}
        self.token = requests.post(f"{ROOT}/auth/login", json=credentials, timeout=10).json()["access_token"]

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"JWT {self.token}"
        return request


api = OrmApi.config({"API_ROOT": ROOT, "AUTH": BearerAuth(), "TIMEOUT": 10})


class Event(ApiModel):
    """An event."""

    class Meta:
        type, path, api = "event", "events", api

    name = AttributeField("name")
    faqs = RelationField("faqs")
    faq_types = RelationField("faq-types")


class FaqType(ApiModel):
    """A heading."""

    class Meta:
        type, path, api = "faq-type", "faq-types", api

    name = AttributeField("name")


class Faq(ApiModel):
    """A question and its answer."""

    class Meta:
        type, path, api = "faq", "faqs", api

    question = AttributeField("question")
    answer = AttributeField("answer")
    event = RelationField("event")
    faq_type = RelationField("faq-type")


def save_invalid_faq(faq: Faq) -> ApiClientError:
    """Return the errors of saving an invalid FAQ."""
    try:
        faq.save()
    except ApiClientError as error:
        return error
    raise AssertionError("it was accepted")


events = Event.get_list(params={"sort": "name", "page[size]": 2})
assert [each.name for each in events] == ["Garden Party", "Open Tech Summit"]

response = api.endpoint("events/1").get(params={"include": "faqs,faq-types"})
event = Event.from_response_content(response.content)
assert [faq.question for faq in event.faqs] == ["Where is it?", "Where can I park?", "Who may come?"]
(tickets,) = [each for each in event.faq_types if each.name == "Tickets"]

event.name = "Open Tech Summit 2099"
event.save()
again = Event.from_id("1")
assert again.name == "Open Tech Summit 2099"

faq = Faq()
faq.question, faq.answer, faq.event = "May I bring my dog?", "No", event
faq.save()
faq.answer = "On a lead"
faq.save()
faq.faq_type = tickets
faq.save()
assert Faq.from_id(faq.id).faq_type.name == "Tickets"

event.faqs[1].delete()

blank = Faq()
blank.question, blank.answer, blank.event = " ", "x", event
refused = save_invalid_faq(blank)
assert refused.status_code == 422
assert json.loads(refused.content)["errors"][0]["source"] == {"pointer": "/data/attributes/question"}
