"""Who may see and delete uploads: whoever sent them, and admins."""

from app.jsonapi.permissions import Permissions, signed_in
from app.users.owning import live_own, owner

PERMISSIONS = Permissions(visible=live_own, list=signed_in, read=signed_in, update=owner, delete=owner)
