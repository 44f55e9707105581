"""Who may see and change FAQs and their types: the event decides."""

from app.events.permissions import is_visible_with_event, team_of_event, team_of_named_event
from app.jsonapi.permissions import Permissions, anyone

PERMISSIONS = Permissions(
    visible=is_visible_with_event,
    list=anyone,
    read=anyone,
    create=team_of_named_event,
    update=team_of_event,
    delete=team_of_event,
)
