"""Validation of attributes: permissions, field rules and size limits, with errors that have pointers."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import marshmallow
import orjson

from app.errors import ApiError, Forbidden, Unprocessable, raise_errors
from app.jsonapi.permissions import AccessContext
from app.jsonapi.resource_type import Attribute, ResourceType
from app.jsonapi.size_limits import MAX_RESOURCE_BYTES, estimate_json_bytes


def is_read_only(resource_type: ResourceType, name: str, access: AccessContext, row: Any) -> bool:
    """Return whether the current user cannot write the attribute; `row` is None for a new resource."""
    if resource_type.attributes[name].field.dump_only:
        return True
    return not resource_type.permissions.attribute_predicate(name)(access.viewer, row)


def filter_writable(
    resource_type: ResourceType, sent: Mapping[str, Any], current: Mapping[str, Any], access: AccessContext, row: Any
) -> dict[str, Any]:
    """Return the writable attributes; raise Forbidden for read-only ones that differ from the `current` values.

    Clients such as Ember Data send back all attributes that they have read.
    """
    accepted, errors = {}, []
    for name, value in sent.items():
        attribute = resource_type.attributes[name]
        if not is_read_only(resource_type, name, access, row):
            accepted[name] = value
        elif not _is_unchanged(attribute, value, current.get(attribute.key)):
            detail = "This is read-only." if attribute.field.dump_only else "You may not set this."
            errors.append(attribute_error(Forbidden, attribute, detail))
    raise_errors(errors)
    return accepted


def _is_unchanged(attribute: Attribute, sent: Any, current: Any) -> bool:
    if sent == current:
        return True
    try:
        value = attribute.field.deserialize(sent)
    except marshmallow.ValidationError:
        return not sent and not current
    if not value and (not current or attribute.is_volatile):
        return True  # unchanged since the client read it
    if isinstance(value, datetime) and isinstance(current, datetime):
        # JavaScript has milliseconds only; a volatile value may be newer than the one that the client has read.
        return abs(value - current) < timedelta(milliseconds=1) or (attribute.is_volatile and value < current)
    return bool(value == current)


def load_attributes(
    resource_type: ResourceType, sent: Mapping[str, Any], *, partial: bool
) -> tuple[dict[str, Any], list[ApiError]]:
    """Return the valid values, deserialized, and an error for each invalid one."""
    dashed = {resource_type.attributes[name].key: value for name, value in sent.items()}
    try:
        document = {"data": {"type": resource_type.name, "attributes": dashed}}
        return dict(resource_type.loader.load(document, partial=partial)), []
    except marshmallow.ValidationError as error:
        return dict(error.valid_data or {}), list(_convert_errors(error))


def validate_object(
    resource_type: ResourceType, values: Mapping[str, Any], errors: Sequence[ApiError]
) -> Iterator[ApiError]:
    """Yield errors by rules that depend on several attributes, except for attributes that already have an error."""
    pointers = {(error.source or {}).get("pointer") for error in errors}
    for name, message in resource_type.loader.validate_object(values):
        error = attribute_error(Unprocessable, resource_type.attributes[name], message)
        if error.source["pointer"] not in pointers:
            yield error


def check_size(
    resource_type: ResourceType, values: Mapping[str, Any], sent: Mapping[str, Any], before: Mapping[str, Any]
) -> Iterator[ApiError]:
    """Yield an error if the values make a resource larger than MAX_RESOURCE_BYTES; `before` has the old values, if any.

    A row that is already larger may be updated if its long attributes do not grow.
    """
    attributes = resource_type.attributes
    grown = {
        name: size
        for name, value in sent.items()
        if name in attributes
        and attributes[name].is_long
        and (size := estimate_json_bytes(value)) > estimate_json_bytes(before.get(name))
    }
    if not grown:
        return
    size = len(orjson.dumps({name: value for name, value in values.items() if name in attributes}, default=str))
    if size > MAX_RESOURCE_BYTES:
        longest = attributes[max(grown, key=lambda name: grown[name])]
        message = f"All attributes together have {size} bytes as JSON; at most {MAX_RESOURCE_BYTES} are allowed."
        yield attribute_error(Unprocessable, longest, message)


def attribute_error(kind: type[ApiError], attribute: Attribute, message: str) -> ApiError:
    """Return an error about one attribute, with the meta that clients show in their forms."""
    meta = {"attribute": attribute.key, "message": message}
    return kind(message, pointer=f"/data/attributes/{attribute.key}", meta=meta)


def _convert_errors(error: marshmallow.ValidationError) -> Iterator[ApiError]:
    for message in error.messages_dict["errors"]:
        yield Unprocessable(message["detail"], pointer=message["source"]["pointer"])
