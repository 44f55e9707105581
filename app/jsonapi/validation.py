"""Attributes as sent -> values to store: rights to each attribute, validation, errors with pointers."""

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
    """Whether this caller cannot write the attribute; `row` is None while it is being created."""
    if resource_type.attributes[name].field.dump_only:
        return True
    return not resource_type.permissions.attribute_predicate(name)(access.viewer, row)


def filter_writable(
    resource_type: ResourceType, sent: Mapping[str, Any], printed: Mapping[str, Any], access: AccessContext, row: Any
) -> dict[str, Any]:
    """What was sent, without locked attributes that repeat what is `printed`; a locked one that differs is 403.

    Clients like Ember Data send back all they know.
    """
    accepted, refused = {}, []
    for name, value in sent.items():
        attribute = resource_type.attributes[name]
        if not is_read_only(resource_type, name, access, row):
            accepted[name] = value
        elif not _is_unchanged(attribute, value, printed.get(attribute.key)):
            detail = "This is read-only." if attribute.field.dump_only else "You may not set this."
            refused.append(attribute_error(Forbidden, attribute, detail))
    raise_errors(refused)
    return accepted


def _is_unchanged(attribute: Attribute, sent: Any, printed: Any) -> bool:
    if sent == printed:
        return True
    try:
        value = attribute.field.deserialize(sent)
    except marshmallow.ValidationError:
        return not sent and not printed
    if not value and (not printed or attribute.is_volatile):
        return True  # as it was when the client read it
    if isinstance(value, datetime) and isinstance(printed, datetime):
        # JavaScript keeps milliseconds; what the server keeps writing may be newer than what the client has read.
        return abs(value - printed) < timedelta(milliseconds=1) or (attribute.is_volatile and value < printed)
    return bool(value == printed)


def load_attributes(
    resource_type: ResourceType, sent: Mapping[str, Any], *, partial: bool
) -> tuple[dict[str, Any], list[ApiError]]:
    """The values marshmallow accepts, and an error for each that it does not."""
    dashed = {resource_type.attributes[name].key: value for name, value in sent.items()}
    try:
        document = {"data": {"type": resource_type.name, "attributes": dashed}}
        return dict(resource_type.loader.load(document, partial=partial)), []
    except marshmallow.ValidationError as error:
        return dict(error.valid_data or {}), list(_convert_errors(error))


def validate_object(
    resource_type: ResourceType, values: Mapping[str, Any], errors: Sequence[ApiError]
) -> Iterator[ApiError]:
    """Apply the rules that need several attributes at once, except to an attribute that has an error already."""
    refused = {(error.source or {}).get("pointer") for error in errors}
    for name, message in resource_type.loader.validate_object(values):
        error = attribute_error(Unprocessable, resource_type.attributes[name], message)
        if error.source["pointer"] not in refused:
            yield error


def check_size(
    resource_type: ResourceType, values: Mapping[str, Any], sent: Mapping[str, Any], before: Mapping[str, Any]
) -> Iterator[ApiError]:
    """Refuse values that make a resource larger than MAX_RESOURCE_BYTES; `before` has those of the row, if any.

    A row that is larger already may change as long as its long attributes do not grow.
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
    """An error about one attribute, with the meta from which clients fill their forms."""
    meta = {"attribute": attribute.key, "message": message}
    return kind(message, pointer=f"/data/attributes/{attribute.key}", meta=meta)


def _convert_errors(error: marshmallow.ValidationError) -> Iterator[ApiError]:
    for message in error.messages_dict["errors"]:
        yield Unprocessable(message["detail"], pointer=message["source"]["pointer"])
