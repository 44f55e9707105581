"""Who may see and change FAQs and their types: the event decides."""

from app.events.permissions import coorganizer_of_its_event, coorganizer_of_the_event_named, visible_with_event
from app.jsonapi.permissions import Permissions, anyone

PERMISSIONS = Permissions(
    visible=visible_with_event,
    list=anyone,
    read=anyone,
    create=coorganizer_of_the_event_named,
    update=coorganizer_of_its_event,
    delete=coorganizer_of_its_event,
)
