"""Permissions for FAQs and their types: those of their event."""

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
