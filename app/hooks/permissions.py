"""Permissions for hooks, and the check that their owner may start the jobs they start."""

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
"""JSON Schema keywords whose violation further members cannot repair; others are checked when the hook is called."""


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
    """Raise Unprocessable for fixed parameters that no call can make valid; require permission to start the kind."""
    for name in kind.secrets & parameters.keys():
        raise Unprocessable("A secret cannot be fixed: send it with each call.", pointer=f"{PARAMETERS_POINTER}/{name}")
    parameters = kind.convert_ids(parameters)
    schema = {name: rule for name, rule in kind.parameters.items() if name in PARTIAL_SCHEMA_KEYWORDS}
    replace(kind, parameters=schema).validate_parameters(parameters, PARAMETERS_POINTER)
    require_start(kind, parameters, access, PARAMETERS_POINTER)
