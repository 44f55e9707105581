"""Kinds of jobs: their declaration, their registry, and the validation of their parameters."""

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol

import orjson
from jsonschema import Draft202012Validator, FormatChecker

from app.errors import MAX_ERRORS, Forbidden, Unprocessable, raise_errors
from app.jobs.context import JobContext
from app.jobs.records import JobRow
from app.jsonapi.json_parsing import escape_pointer
from app.jsonapi.permissions import Predicate, any_user
from app.jsonapi.resource_type import MAX_ID

Dedupe = Literal["once", "single-flight", "none"]
Runner = Literal["function", "executable", "external"]


class Change(NamedTuple):
    """A change of a resource, as its change signal reports it."""

    topic: str
    id: int
    event_id: int | None
    changed: frozenset[str]


KindFunction = Callable[[JobContext], Mapping[str, Any] | None]

MAX_PARAMETERS_BYTES = 65_536
"""Bytes of the parameters as JSON."""
MAX_ERROR_LENGTH = 200
"""Characters of the error detail for one parameter, which may quote a long value."""


RESOURCE_TYPE_KEYWORD = "x-resource-type"
"""JSON Schema keyword with the resource type of a parameter that is a resource id."""
_ID_PATTERN = r"^[1-9][0-9]{0,18}(?!\n)$"  # in Python, `$` also matches before a newline at the end


def resource_id_schema(resource_type: str) -> dict[str, Any]:
    """Return the JSON Schema of a resource id: a string, as in JSON:API, or a number."""
    limits = {"pattern": _ID_PATTERN, "minimum": 1, "maximum": MAX_ID}
    return {"type": ["string", "integer"], **limits, RESOURCE_TYPE_KEYWORD: resource_type}


EVENT_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"event": resource_id_schema("event")},
    "required": ["event"],
    "additionalProperties": False,
}
"""JSON Schema of parameters with the id of an event and nothing else."""


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    `dedupe` decides what a second submission with the same parameters returns: with `once` an active or succeeded job;
    with `single-flight` an active job, which runs again if it has already begun; with `none` always a new job.
    """

    name: str
    run: KindFunction
    parameters: Mapping[str, Any]
    """JSON Schema (2020-12); `writeOnly` parameters are secrets: encrypted, never returned, deleted at the end."""
    title: str = ""
    runner: Runner = "function"
    dedupe: Dedupe = "none"
    time_limit: timedelta = timedelta(minutes=10)
    grace: timedelta = timedelta(0)
    """Time after the time limit in which the function may end by itself; then its worker process is killed."""
    concurrency: int | None = None
    """Maximum number of jobs that run at once in all workers; None for no limit."""
    max_parameters_bytes: int = MAX_PARAMETERS_BYTES
    """Maximum bytes of the parameters as JSON."""
    max_attempts: int = 3
    input_digest: Callable[[Mapping[str, Any]], str] = field(default=lambda _parameters: "")
    """Return a digest of the data that the job reads besides its parameters, for `dedupe`."""
    belongs_to_event: bool = False
    """True if the job belongs to the event in its parameter `event`, whose team may start it."""
    can_start: Predicate = any_user
    """Predicate for starting it with these parameters, besides `belongs_to_event`; a hook may omit some of them."""
    triggers: tuple[str, ...] = ()
    """Changes that start it: `event.created`, `event.updated:name,state`."""
    parameters_from_change: Callable[[Change], Mapping[str, Any] | None] = field(
        default=lambda change: {"event": change.event_id}
    )
    """Return the parameters of the job that a change starts; None for no job."""
    in_production: bool = True
    is_available: Callable[[], bool] = field(default=lambda: True)
    """Return whether new jobs may be submitted now; existing jobs continue."""
    created_by: str = ""
    """Resource type whose creation submits the job; empty if the job can be submitted directly."""
    on_end: Callable[[JobRow], None] = field(default=lambda _job: None)
    """Called with each job that has ended, in the transaction that ends it."""
    on_cancel: Callable[[JobRow], None] = field(default=lambda _job: None)
    """Called in the canceling transaction when an active job is canceled."""
    on_retry: Callable[[JobRow], JobRow | None] | None = None
    """Return the job that retries this one; None, as function or result, for a new job with the same parameters."""

    @property
    def secrets(self) -> frozenset[str]:
        """Return the names of its secret parameters."""
        return get_secret_names(self.parameters)

    def require_directly_submittable(self, pointer: str | None) -> None:
        """Raise Forbidden if jobs of this kind are created with another resource."""
        if self.created_by:
            raise Forbidden(
                f"Jobs of this kind cannot be submitted directly: create a resource of type {self.created_by}.",
                pointer=pointer,
                code="not-directly-submittable",
            )

    def convert_ids(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters with resource ids as numbers, so that "1" and 1 are the same job."""
        converted = dict(parameters)
        for name, schema in self.parameters.get("properties", {}).items():
            value = parameters.get(name)
            if (
                schema is not True
                and RESOURCE_TYPE_KEYWORD in schema
                and isinstance(value, str)
                and re.search(_ID_PATTERN, value)
            ):
                converted[name] = int(value)
        return converted

    def validate_parameters(self, parameters: Mapping[str, Any], pointer: str) -> None:
        """Raise Unprocessable with a pointer for each parameter that violates the schema."""
        try:
            size = len(orjson.dumps(parameters))
        except orjson.JSONEncodeError:
            raise Unprocessable("Integers must fit in 64 bits.", pointer=pointer) from None
        if size > self.max_parameters_bytes:
            raise Unprocessable(f"Parameters must be at most {self.max_parameters_bytes} bytes.", pointer=pointer)
        validator = Draft202012Validator(dict(self.parameters), format_checker=FormatChecker())
        # A set, because jsonschema reports the same missing or unknown properties in several errors.
        errors: set[tuple[str, str]] = set()
        for error in validator.iter_errors(parameters):
            errors.update(islice(_describe_errors(error, self.secrets), MAX_ERRORS))
            if len(errors) >= MAX_ERRORS:
                break
        raise_errors(
            Unprocessable(detail[:MAX_ERROR_LENGTH], pointer=pointer + path) for path, detail in sorted(errors)
        )


def _describe_errors(error: Any, secrets: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield a JSON pointer and a detail for each invalid parameter; never quote the value of a secret.

    The pointer to a missing or unknown property ends with the name of the property.
    """
    base = "".join(f"/{escape_pointer(str(part))}" for part in error.absolute_path)
    if error.validator == "required":
        for name in error.validator_value:
            if name not in error.instance:
                yield f"{base}/{escape_pointer(name)}", f"{name!r} is a required property"
    elif error.validator == "additionalProperties":
        for name in error.instance:
            if name not in error.schema.get("properties", {}):
                yield (
                    f"{base}/{escape_pointer(name)}",
                    f"Additional properties are not allowed ({name!r} was unexpected)",
                )
    else:
        yield base, _describe_error(error, secrets)


def _describe_error(error: Any, secrets: frozenset[str]) -> str:
    """Return the detail for an invalid value, without details for a secret."""
    if secrets.intersection(error.absolute_path):
        return "Is not valid."
    if isinstance(error.schema, Mapping) and RESOURCE_TYPE_KEYWORD in error.schema:
        return f"Must be the id of a resource of type {error.schema[RESOURCE_TYPE_KEYWORD]}, as a string or a number."
    return str(error.message)


def get_secret_names(parameters: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the parameters that are `writeOnly` in this JSON Schema."""
    declared = parameters.get("properties", {})
    return frozenset(name for name, schema in declared.items() if schema is not True and schema.get("writeOnly"))


class KindProvider(Protocol):
    """A source of kinds that are not declared in code."""

    def find_kind(self, name: str) -> Kind | None:
        """Return the current kind of this name, or None."""

    def list_names(self) -> Iterator[str]:
        """Yield the names of its current kinds."""


class KindRegistry(MutableMapping[str, Kind]):
    """All kinds by name: those declared in code, and those that the providers have now."""

    def __init__(self) -> None:
        self.declared: dict[str, Kind] = {}
        self.sources: list[KindProvider] = []

    def __getitem__(self, name: str) -> Kind:
        if name in self.declared:
            return self.declared[name]
        for source in self.sources:
            if (kind := source.find_kind(name)) is not None:
                return kind
        raise KeyError(name)

    def __setitem__(self, name: str, kind: Kind) -> None:
        self.declared[name] = kind

    def __delitem__(self, name: str) -> None:
        del self.declared[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.declared
        for source in self.sources:
            yield from source.list_names()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def list_remote_names(self) -> list[str]:
        """Return the names of the kinds that a processor runs."""
        return [kind.name for kind in self.values() if kind.runner == "external"]

    def values(self) -> Any:
        """Return all kinds, without those that disappear during the iteration."""
        return [kind for name in self if (kind := self.get(name)) is not None]


KINDS = KindRegistry()


def job_kind(name: str, *, parameters: Mapping[str, Any], **options: Any) -> Callable[[KindFunction], KindFunction]:
    """Register the decorated function as the kind `name`.

    `parameters` is a JSON Schema (2020-12), `options` are fields of `Kind`. The first line of the docstring becomes the
    title of the kind.
    """
    Draft202012Validator.check_schema(dict(parameters))

    def register(run: KindFunction) -> KindFunction:
        title = (run.__doc__ or "").partition("\n")[0]
        KINDS[name] = Kind(name, run, parameters, **{"title": title, **options})
        return run

    return register
