"""jsonapi-client: a session of resources; what has changed is sent, pages and links are followed."""

import os

import requests
from jsonapi_client import Filter, Inclusion, Modifier, Session
from jsonapi_client.exceptions import DocumentError

ROOT = os.environ["API_ROOT"]
TEXT = {"type": "string"}
SCHEMA = {
    "faqs": {
        "properties": {
            "question": TEXT,
            "answer": TEXT,
            "event": {"relation": "to-one", "resource": ["event"]},
            "faq-type": {"relation": "to-one", "resource": ["faq-type"]},
        }
    }
}


def sign_in() -> dict[str, str]:
    """Return the Authorization header of the owner."""
    credentials = {"email": os.environ["EMAIL"], "password": os.environ["PASSWORD"]}
    token = requests.post(f"{ROOT}/auth/login", json=credentials, timeout=10).json()["access_token"]
    return {"Authorization": f"JWT {token}"}


def create_blank_faq(session: Session) -> DocumentError:
    """Return the errors of a FAQ with a blank question."""
    try:
        session.create_and_commit("faqs", question=" ", answer="x", event="1")
    except DocumentError as error:
        return error
    raise AssertionError("a blank question was accepted")


with Session(ROOT, schema=SCHEMA, request_kwargs={"headers": sign_in(), "timeout": 10}) as session:
    events = session.get("events", Filter(state="published") + Modifier("sort=name&page[size]=2"))
    assert [each.name for each in events.resources] == ["Garden Party", "Open Tech Summit"]
    everything = list(session.iterate("events", Modifier("sort=name&page[size]=2")))
    assert [each.name for each in everything] == ["Garden Party", "Open Tech Summit", "Winter Camp"]

    event = session.get("events/1", Inclusion("faqs", "faq-types")).resource
    assert [faq.question for faq in event.faqs] == ["Where is it?", "Where can I park?", "Who may come?"]
    (tickets,) = [each for each in event.faq_types if each.name == "Tickets"]

    event.name = "Open Tech Summit 2099"
    event.commit()
    assert event.name == "Open Tech Summit 2099"

    faq = session.create_and_commit("faqs", question="May I bring my dog?", answer="No", event="1")
    faq.answer = "On a lead"
    faq.commit()
    faq.faq_type = tickets
    faq.commit()
    faq.refresh()
    assert faq.faq_type.name == "Tickets"

    parking = event.faqs[1]
    parking.delete()
    parking.commit()

    refused = create_blank_faq(session)
    assert refused.errors["status_code"] == 422
    assert refused.response.json()["errors"][0]["source"] == {"pointer": "/data/attributes/question"}
