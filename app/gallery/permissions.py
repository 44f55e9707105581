"""Who may see and delete the images of a gallery: the event decides, as for its FAQs."""

from app.events.permissions import coorganizer_of_its_event, visible_with_event
from app.jsonapi.permissions import Permissions, anyone

PERMISSIONS = Permissions(
    visible=visible_with_event,
    list=anyone,
    read=anyone,
    update=coorganizer_of_its_event,
    delete=coorganizer_of_its_event,
)
