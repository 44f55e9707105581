"""Who may see and change hooks, and what they may start: what their owner may start himself."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.errors import Unprocessable
from app.jobs.kinds import Kind
from app.jobs.permissions import require_start
from app.jobs.submission import PARAMETERS_POINTER
from app.jsonapi.permissions import AccessContext, Permissions, any_user, only_on_create
from app.users.ownership import is_live_and_owned, owner_or_admin

PARTIAL_SCHEMA_KEYWORDS = frozenset(
    {"$defs", "type", "properties", "patternProperties", "additionalProperties", "propertyNames", "maxProperties"}
)
"""Keywords of JSON Schema that no further member can satisfy; those others ask for may come with the call."""


PERMISSIONS = Permissions(
    visible=is_live_and_owned,
    list=any_user,
    read=any_user,
    create=any_user,
    update=owner_or_admin,
    delete=owner_or_admin,
    write={"kind": only_on_create, "signed": only_on_create},
)


def check_fixed_parameters(kind: Kind, parameters: Mapping[str, Any], access: AccessContext) -> None:
    """422 for fixed parameters that no body can complete, 403 or 404 for those that the caller may not start."""
    for name in kind.secrets & parameters.keys():
        raise Unprocessable(
            "A secret comes with each call: it is not kept here.", pointer=f"{PARAMETERS_POINTER}/{name}"
        )
    parameters = kind.convert_ids(parameters)
    schema = {name: rule for name, rule in kind.parameters.items() if name in PARTIAL_SCHEMA_KEYWORDS}
    replace(kind, parameters=schema).validate_parameters(parameters, PARAMETERS_POINTER)
    require_start(kind, parameters, access, PARAMETERS_POINTER)
