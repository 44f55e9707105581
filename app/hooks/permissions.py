"""Who may see and change hooks, and what they may start: what their owner may start himself."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.errors import Unprocessable
from app.jobs.kinds import Kind
from app.jobs.permissions import require_start
from app.jobs.submission import PARAMETERS
from app.jsonapi.permissions import Access, Permissions, on_creation, signed_in
from app.users.owning import live_own, owner

OF_WHAT_IS_THERE = frozenset(
    {"$defs", "type", "properties", "patternProperties", "additionalProperties", "propertyNames", "maxProperties"}
)
"""Keywords of JSON Schema that no further member can satisfy; those others ask for may come with the call."""


PERMISSIONS = Permissions(
    visible=live_own,
    list=signed_in,
    read=signed_in,
    create=signed_in,
    update=owner,
    delete=owner,
    write={"kind": on_creation, "signed": on_creation},
)


def require_fixing(kind: Kind, parameters: Mapping[str, Any], access: Access) -> None:
    """422 for fixed parameters that no body can complete, 403 or 404 for those that the caller may not start."""
    for name in kind.secrets & parameters.keys():
        raise Unprocessable("A secret comes with each call: it is not kept here.", pointer=f"{PARAMETERS}/{name}")
    parameters = kind.convert_ids(parameters)
    schema = {name: rule for name, rule in kind.parameters.items() if name in OF_WHAT_IS_THERE}
    replace(kind, parameters=schema).check(parameters, PARAMETERS)
    require_start(kind, parameters, access, PARAMETERS)
