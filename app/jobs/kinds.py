"""What can run: every kind of job is declared once, in code."""

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
    """What has happened to a resource, as its signal says."""

    topic: str
    id: int
    event_id: int | None
    changed: frozenset[str]


KindFunction = Callable[[JobContext], Mapping[str, Any] | None]

MAX_PARAMETERS_BYTES = 65_536
"""Bytes of the parameters as JSON."""
MAX_ERROR_LENGTH = 200
"""Characters of what is said of one of them, which may quote what somebody sent as long as he liked."""


RESOURCE_TYPE_KEYWORD = "x-resource-type"
"""The annotation of a parameter that is the id of a resource: its type."""
_ID_PATTERN = r"^[1-9][0-9]{0,18}(?!\n)$"  # in Python, `$` also matches before a newline at the end


def resource_id_schema(resource_type: str) -> dict[str, Any]:
    """Return the schema of a parameter that names a resource: its id as a string, as in JSON:API, or as a number."""
    limits = {"pattern": _ID_PATTERN, "minimum": 1, "maximum": MAX_ID}
    return {"type": ["string", "integer"], **limits, RESOURCE_TYPE_KEYWORD: resource_type}


EVENT_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"event": resource_id_schema("event")},
    "required": ["event"],
    "additionalProperties": False,
}
"""Parameters of a kind that is told its event and nothing else."""


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    Submitted again with the same parameters, `once` joins a job that lives or has succeeded, `single-flight` one that
    lives (and runs it once more when it is running already), `none` nothing.
    """

    name: str
    run: KindFunction
    parameters: Mapping[str, Any]
    """A JSON Schema (2020-12); what it calls `writeOnly` is a secret: kept sealed, shown nowhere, gone at the end."""
    title: str = ""
    runner: Runner = "function"
    dedupe: Dedupe = "none"
    time_limit: timedelta = timedelta(minutes=10)
    grace: timedelta = timedelta(0)
    """What its function needs to end by itself at the time limit; then its worker is killed."""
    concurrency: int | None = None
    """How many of it run at once, whichever workers there are; None for as many as there are slots."""
    max_parameters_bytes: int = MAX_PARAMETERS_BYTES
    """Bytes of the parameters as JSON."""
    max_attempts: int = 3
    input_digest: Callable[[Mapping[str, Any]], str] = field(default=lambda _parameters: "")
    """A digest of what the job will read besides its parameters: other data, another job."""
    belongs_to_event: bool = False
    """Its parameter `event` is the id of an event: the job belongs to it, and the team of the event may start it."""
    can_start: Predicate = any_user
    """Predicate for starting it with these parameters, besides `belongs_to_event`; a hook may lack some of them."""
    triggers: tuple[str, ...] = ()
    """What changes start it: `event.created`, `event.updated:name,state`."""
    parameters_from_change: Callable[[Change], Mapping[str, Any] | None] = field(
        default=lambda change: {"event": change.event_id}
    )
    """The parameters of the job that a change starts; None for no job."""
    in_production: bool = True
    is_available: Callable[[], bool] = field(default=lambda: True)
    """Whether new ones may be submitted here and now; those that there are go on."""
    created_by: str = ""
    """What has to be created for such a job to run; empty for one that is submitted by itself."""
    on_end: Callable[[JobRow], None] = field(default=lambda _job: None)
    """Told, in the transaction that ends it, of each job that has ended."""
    on_cancel: Callable[[JobRow], None] = field(default=lambda _job: None)
    """Told, in the same way, of each job that somebody works on and somebody cancels."""
    on_retry: Callable[[JobRow], JobRow | None] | None = None
    """What trying again means, where it means more than another job with the same parameters, which None stands for."""

    @property
    def secrets(self) -> frozenset[str]:
        """The names of its secret parameters."""
        return get_secret_names(self.parameters)

    def require_directly_submittable(self, pointer: str | None) -> None:
        """403 for a kind that is part of something."""
        if self.created_by:
            raise Forbidden(
                f"This kind belongs to the type {self.created_by}: create a resource of that type.",
                pointer=pointer,
                code="not-alone",
            )

    def convert_ids(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters with the ids of resources as numbers: "1" and 1 are the same job, and read alike."""
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
        """422 with a pointer for each parameter that does not fit the schema."""
        try:
            size = len(orjson.dumps(parameters))
        except orjson.JSONEncodeError:
            raise Unprocessable("A number has more than 64 bits.", pointer=pointer) from None
        if size > self.max_parameters_bytes:
            raise Unprocessable(f"More than {self.max_parameters_bytes} bytes.", pointer=pointer)
        validator = Draft202012Validator(dict(self.parameters), format_checker=FormatChecker())
        # Of several that are missing, the library says each one's name in an error of its own, and of all unknown ones.
        faults: set[tuple[str, str]] = set()
        for error in validator.iter_errors(parameters):
            faults.update(islice(_describe_errors(error, self.secrets), MAX_ERRORS))
            if len(faults) >= MAX_ERRORS:
                break
        raise_errors(Unprocessable(words[:MAX_ERROR_LENGTH], pointer=pointer + path) for path, words in sorted(faults))


def _describe_errors(error: Any, secrets: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Where a parameter does not fit, and why; one that is missing or unknown is at its own place.

    No secret is quoted.
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
    """Return what is wrong with a value; of a secret it says no more than that."""
    if secrets.intersection(error.absolute_path):
        return "Does not fit."
    if isinstance(error.schema, Mapping) and RESOURCE_TYPE_KEYWORD in error.schema:
        return f"Must be the id of a resource of type {error.schema[RESOURCE_TYPE_KEYWORD]}, as a string or a number."
    return str(error.message)


def get_secret_names(parameters: Mapping[str, Any]) -> frozenset[str]:
    """The names of the parameters that a JSON Schema calls secret."""
    declared = parameters.get("properties", {})
    return frozenset(name for name, schema in declared.items() if schema is not True and schema.get("writeOnly"))


class KindProvider(Protocol):
    """Where kinds come from that are not declared in code."""

    def find_kind(self, name: str) -> Kind | None:
        """The kind of this name, as it is now."""

    def list_names(self) -> Iterator[str]:
        """Of all its kinds."""


class KindRegistry(MutableMapping[str, Kind]):
    """All kinds by name: those that are declared, and what the sources have at this moment."""

    def __init__(self) -> None:
        self.declared: dict[str, Kind] = {}
        self.sources: list[KindProvider] = []

    def __getitem__(self, name: str) -> Kind:
        if name in self.declared:
            return self.declared[name]
        for source in self.sources:
            if (found := source.find_kind(name)) is not None:
                return found
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
        """All of them; one that goes away meanwhile is left out."""
        return [kind for name in self if (kind := self.get(name)) is not None]


KINDS = KindRegistry()


def job_kind(name: str, *, parameters: Mapping[str, Any], **options: Any) -> Callable[[KindFunction], KindFunction]:
    """Make a function the kind `name`; `parameters` is a JSON Schema (2020-12), `options` are fields of `Kind`."""
    Draft202012Validator.check_schema(dict(parameters))

    def register(run: KindFunction) -> KindFunction:
        title = (run.__doc__ or "").partition("\n")[0]
        KINDS[name] = Kind(name, run, parameters, **{"title": title, **options})
        return run

    return register
