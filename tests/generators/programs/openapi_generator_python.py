"""openapi-generator, python: list events with a filter and includes, create an event, change it, read a refusal."""

import json
import os

from openapi_client import ApiClient, ApiException, AuthApi, Configuration, EventsApi
from openapi_client.models import (
    ErrorDocument,
    EventCreate,
    EventCreateAttributes,
    EventCreateData,
    EventUpdate,
    EventUpdateAttributes,
    EventUpdateData,
    Faq,
    LogInForm,
    LogInRequest,
)

configuration = Configuration(host=os.environ["SERVER"])
credentials = LogInForm(email=os.environ["EMAIL"], password=os.environ["PASSWORD"])
tokens = AuthApi(ApiClient(configuration)).log_in(LogInRequest(credentials))
configuration.access_token = tokens.access_token
events = EventsApi(ApiClient(configuration))


def new_event(name: str) -> EventCreate:
    """Return the body that creates an event."""
    attributes = EventCreateAttributes(name=name, timezone="Europe/Berlin")
    return EventCreate(data=EventCreateData(type="event", attributes=attributes))


found = events.list_events(
    filter=json.dumps([{"name": "name", "op": "ilike", "val": "open tech%"}]),
    filter_state="published",
    include=["faqs", "owner"],
    sort=["name"],
)
(event,) = found.data
assert event.attributes.name == "Open Tech Summit"
included = [each.actual_instance for each in found.included]
questions = {each.attributes.question for each in included if isinstance(each, Faq)}
assert questions == {"Where is it?", "Where can I park?", "Who may come?"}

created = events.create_event(new_event("Generated"))
change = EventUpdateData(
    type="event", id=created.data.id, attributes=EventUpdateAttributes(name="Generated and changed")
)
changed = events.update_event(created.data.id, EventUpdate(data=change))
assert changed.data.attributes.name == "Generated and changed"

try:
    events.create_event(new_event(" "))
except ApiException as error:
    (refusal,) = ErrorDocument.from_json(error.body).errors
    assert refusal.source.pointer == "/data/attributes/name"
else:
    raise AssertionError("a blank name was accepted")
