"""openapi-python-client: list events with a filter and includes, create an event, change it, read a refusal."""

import json
import os

import httpx
from client import AuthenticatedClient, Client
from client.api.auth import log_in
from client.api.events import create_event, list_events, update_event
from client.models import (
    ErrorDocument,
    Event,
    EventCreate,
    EventCreateAttributes,
    EventCreateData,
    EventDocument,
    EventIncludePath,
    EventList,
    EventSortKey,
    EventState,
    EventUpdate,
    EventUpdateAttributes,
    EventUpdateData,
    Faq,
    LogInForm,
    LogInResult,
    User,
)

SERVER = os.environ["SERVER"]


def join_lists(request: httpx.Request) -> None:
    """Join what the client repeats: it writes `include=a&include=b` where the description asks for `include=a,b`."""
    names = dict.fromkeys(name for name, _ in request.url.params.multi_items())
    joined = {name: ",".join(request.url.params.get_list(name)) for name in names}
    request.url = request.url.copy_with(params=joined)


credentials = LogInForm(email=os.environ["EMAIL"], password=os.environ["PASSWORD"])
tokens = log_in.sync(client=Client(SERVER), body=credentials)
assert isinstance(tokens, LogInResult)
client = AuthenticatedClient(
    SERVER, token=tokens.access_token, prefix="JWT", httpx_args={"event_hooks": {"request": [join_lists]}}
)

found = list_events.sync(
    client=client,
    filter_=json.dumps([{"name": "name", "op": "ilike", "val": "open tech%"}]),
    filterstate=EventState.PUBLISHED,
    include=[EventIncludePath.FAQS, EventIncludePath.OWNER],
    sort=[EventSortKey.NAME],
)
assert isinstance(found, EventList)
assert found.meta.count == 1
(event,) = found.data
assert isinstance(event, Event)
assert event.attributes.name == "Open Tech Summit"
questions = {each.attributes.question for each in found.included if isinstance(each, Faq)}
assert questions == {"Where is it?", "Where can I park?", "Who may come?"}
(owner,) = [each for each in found.included if isinstance(each, User)]
assert owner.id == event.relationships.owner.data.id

attributes = EventCreateAttributes(name="Generated", timezone="Europe/Berlin")
created = create_event.sync(client=client, body=EventCreate(EventCreateData(type_="event", attributes=attributes)))
assert isinstance(created, EventDocument), created
change = EventUpdateAttributes(name="Generated and changed")
changed = update_event.sync(
    created.data.id,
    client=client,
    body=EventUpdate(EventUpdateData(type_="event", id=created.data.id, attributes=change)),
)
assert isinstance(changed, EventDocument), changed
assert changed.data.attributes.name == "Generated and changed"

refused = create_event.sync(
    client=client,
    body=EventCreate(EventCreateData(type_="event", attributes=EventCreateAttributes(name=" ", timezone="UTC"))),
)
assert isinstance(refused, ErrorDocument)
assert refused.errors[0].source.pointer == "/data/attributes/name"
