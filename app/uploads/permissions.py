"""Permissions of uploads: their owners and admins may see and delete them."""

from app.jsonapi.permissions import Permissions, any_user
from app.users.ownership import is_live_and_owned, owner_or_admin

PERMISSIONS = Permissions(
    visible=is_live_and_owned, list=any_user, read=any_user, update=owner_or_admin, delete=owner_or_admin
)
