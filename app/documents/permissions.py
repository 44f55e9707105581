"""Who may see and change document sets: whoever made them, and admins."""

from app.jsonapi.permissions import Permissions, signed_in
from app.users.owning import live_own, owner

PERMISSIONS = Permissions(
    visible=live_own,
    list=signed_in,
    read=signed_in,
    create=signed_in,
    update=owner,
    delete=owner,
)
