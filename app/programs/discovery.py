"""Discovery of programs: each executable file in JOB_PROGRAMS_DIR is a kind as soon as it exists.

Deduplication compares contents: a program runs again for the same parameters if it or its NAME.json has changed, but
not if it was only installed again. Other files that it reads are not compared.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import structlog
from flask import current_app

from app.errors import Unprocessable, raise_errors
from app.jobs.kinds import KINDS, Kind
from app.jsonapi.current_user import CurrentUser
from app.jsonapi.permissions import Predicate, admin, any_user
from app.programs import allowed_servers, command_line, directory, manifest
from app.programs.directory import Version
from app.programs.runner import Program, run_program

PREFIX = "program:"

GRACE_PERIOD = timedelta(seconds=30)
"""Time after the time limit for the program to end and its output to be stored."""

MAX_PARAMETERS_BYTES = 512 * 1024
"""Bytes of the parameters as JSON; enough for one argument of the maximum length in which each byte is escaped."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ProgramKind(Kind):
    """Kind of a program, whose parameters must also be valid as arguments."""

    program_manifest: manifest.Manifest | None = None

    def validate_parameters(self, parameters: Mapping[str, Any], pointer: str) -> None:
        """Raise Unprocessable with a pointer for each invalid parameter."""
        super().validate_parameters(parameters, pointer)
        if self.program_manifest is not None:
            errors = command_line.find_argument_errors(self.program_manifest, parameters)
            raise_errors(Unprocessable(detail, pointer=pointer + path) for path, detail in errors)


class ProgramKindProvider:
    """Provider of the kinds of programs; each kind is built once for each version of its files."""

    def __init__(self) -> None:
        self._cache: dict[tuple[Path, bool], tuple[Version, Kind | None]] = {}

    def find_kind(self, name: str) -> Kind | None:
        """Return the kind `program:NAME` for the current version of its files, or None."""
        programs_dir: Path | None = current_app.config["JOB_PROGRAMS_DIR"]
        file_name = name.removeprefix(PREFIX)
        if programs_dir is None or file_name == name or not directory.is_name(file_name):
            return None
        path, is_overview = programs_dir / file_name, file_name == current_app.config["OVERVIEW_PROGRAM"]
        version = directory.get_version(path)
        if version == (None, None) and not is_overview:
            self._cache.pop((path, is_overview), None)
            return None
        entry = self._cache.get((path, is_overview))
        if entry is None or entry[0] != version:
            entry = self._cache[path, is_overview] = (version, _build_kind(path, version, is_overview=is_overview))
        return entry[1]

    def list_names(self) -> Iterator[str]:
        """Yield the names of all current kinds of programs."""
        programs_dir: Path | None = current_app.config["JOB_PROGRAMS_DIR"]
        if programs_dir is None:
            return
        names = {*directory.list_names(programs_dir), current_app.config["OVERVIEW_PROGRAM"]}
        yield from (PREFIX + name for name in sorted(names) if self.find_kind(PREFIX + name))


def _build_kind(path: Path, version: Version, *, is_overview: bool) -> Kind | None:
    """Return the kind of a program; None if it is not a program, or if its manifest has an error, which is logged."""
    has_manifest = version[1] is not None
    if not has_manifest and not is_overview and not directory.is_program(path):
        return None
    file = directory.get_manifest_path(path)
    try:
        content = directory.read_manifest(file) if has_manifest else None
        parsed = manifest.parse_manifest(path.name, content, is_overview=is_overview)
    except (directory.ManifestUnreadable, manifest.ManifestError) as error:
        log.error("program manifest invalid", file=str(file), why=str(error))  # noqa: TRY400  # the traceback is of no use
        return None
    digest = lru_cache(maxsize=1)(partial(directory.compute_digest, path, version))
    return ProgramKind(
        PREFIX + path.name,
        partial(run_program, Program(path, parsed)),
        parsed.parameters,
        title=parsed.title,
        runner="executable",
        dedupe=parsed.dedupe,
        time_limit=parsed.time_limit,
        grace=GRACE_PERIOD,
        concurrency=parsed.concurrency,
        max_parameters_bytes=MAX_PARAMETERS_BYTES,
        input_digest=lambda _parameters: digest(),
        can_start=_build_predicate(parsed, is_overview=is_overview),
        program_manifest=parsed,
    )


def _build_predicate(parsed: manifest.Manifest, *, is_overview: bool) -> Predicate:
    if not is_overview:
        return admin if parsed.may_start == "admins" else any_user

    def can_start_overview(viewer: CurrentUser, parameters: Any) -> bool:
        server = parameters.get("server")  # a hook may omit it
        is_allowed = not isinstance(server, str) or allowed_servers.is_server_allowed(server)
        return any_user(viewer, parameters) and is_allowed

    return can_start_overview


KINDS.sources.append(ProgramKindProvider())
