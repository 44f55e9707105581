"""What can run: every kind of job is declared once, in code."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, NamedTuple

import orjson
from jsonschema import Draft202012Validator, FormatChecker

from app.errors import Unprocessable, raise_all
from app.jobs.context import Running
from app.jsonapi.body import escaped
from app.jsonapi.permissions import Predicate, signed_in

Dedupe = Literal["once", "single-flight", "none"]


class Change(NamedTuple):
    """What has happened to a resource, as its signal says."""

    topic: str
    id: int
    event_id: int | None
    changed: frozenset[str]


Run = Callable[[Running], Mapping[str, Any] | None]

LARGEST_PARAMETERS = 65_536
"""Bytes of the parameters as JSON."""


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    Submitted again with the same parameters, `once` joins a job that lives or has succeeded, `single-flight` one that
    lives (and runs it once more when it is running already), `none` nothing.
    """

    name: str
    run: Run
    parameters: Mapping[str, Any]
    title: str = ""
    dedupe: Dedupe = "none"
    time_limit: timedelta = timedelta(minutes=10)
    max_attempts: int = 3
    inputs: Callable[[Mapping[str, Any]], str] = field(default=lambda _parameters: "")
    """A digest of what the job will read besides its parameters: other data, another job."""
    about_event: bool = False
    """Its parameter `event` is the id of an event: the job belongs to it, and the team of the event may start it."""
    may: Predicate = signed_in
    """Who may start it with which parameters, besides what `about_event` says."""
    on: tuple[str, ...] = ()
    """What changes start it: `event.created`, `event.updated:name,state`."""
    ordered: Callable[[Change], Mapping[str, Any] | None] = field(default=lambda change: {"event": change.event_id})
    """The parameters of the job that a change starts; None for no job."""
    in_production: bool = True

    def check(self, parameters: Mapping[str, Any], pointer: str) -> None:
        """422 with a pointer for each parameter that does not fit the schema."""
        if len(orjson.dumps(parameters)) > LARGEST_PARAMETERS:
            raise Unprocessable(f"More than {LARGEST_PARAMETERS} bytes.", pointer=pointer)
        validator = Draft202012Validator(dict(self.parameters), format_checker=FormatChecker())
        found = sorted(validator.iter_errors(parameters), key=lambda error: list(map(str, error.absolute_path)))
        raise_all(Unprocessable(_words(error), pointer=pointer + _path(error)) for error in found)


def _words(error: Any) -> str:
    """What is wrong, without a value that somebody sent as long as he liked."""
    return str(error.message)[:200]


def _path(error: Any) -> str:
    parts = [str(part) for part in error.absolute_path]
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        parts.append(missing)
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {})
        parts.append(next(iter(name for name in error.instance if name not in known)))
    return "".join(f"/{escaped(part)}" for part in parts)


KINDS: dict[str, Kind] = {}


def job_kind(name: str, *, parameters: Mapping[str, Any], **options: Any) -> Callable[[Run], Run]:
    """Make a function the kind `name`; `parameters` is a JSON Schema (2020-12), `options` are fields of `Kind`."""
    Draft202012Validator.check_schema(dict(parameters))

    def register(run: Run) -> Run:
        title = (run.__doc__ or "").partition("\n")[0]
        KINDS[name] = Kind(name, run, parameters, **{"title": title, **options})
        return run

    return register
