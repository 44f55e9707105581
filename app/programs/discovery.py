"""Programs as kinds: what lies in JOB_PROGRAMS_DIR can run, from the moment it lies there.

`dedupe` goes by content: a program, or its NAME.json, that has been changed is run again for the same parameters, and
one that was only installed anew is not. What a program reads beside itself does not count.
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
"""Beyond its time limit: for a program to end, and for its file to be stored."""

MAX_PARAMETERS_BYTES = 512 * 1024
"""Bytes of JSON: enough for one argument of the greatest length, whatever is in it."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ProgramKind(Kind):
    """The kind of a program: its parameters must fit a command line, too."""

    program_manifest: manifest.Manifest | None = None

    def validate_parameters(self, parameters: Mapping[str, Any], pointer: str) -> None:
        """422 with a pointer for each parameter that does not fit."""
        super().validate_parameters(parameters, pointer)
        if self.program_manifest is not None:
            faults = command_line.find_argument_errors(self.program_manifest, parameters)
            raise_errors(Unprocessable(words, pointer=pointer + path) for path, words in faults)


class ProgramKindProvider:
    """The source of these kinds; each is made once for each version of its files."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, bool], tuple[Version, Kind | None]] = {}

    def find_kind(self, name: str) -> Kind | None:
        """The kind `program:NAME`, as its files say now."""
        where: Path | None = current_app.config["JOB_PROGRAMS_DIR"]
        plain = name.removeprefix(PREFIX)
        if where is None or plain == name or not directory.is_name(plain):
            return None
        path, is_overview = where / plain, plain == current_app.config["OVERVIEW_PROGRAM"]
        seen = directory.get_version(path)
        if seen == (None, None) and not is_overview:
            self._known.pop((path, is_overview), None)
            return None
        known = self._known.get((path, is_overview))
        if known is None or known[0] != seen:
            known = self._known[path, is_overview] = (seen, _build_kind(path, seen, is_overview=is_overview))
        return known[1]

    def list_names(self) -> Iterator[str]:
        """Of all that are there now."""
        where: Path | None = current_app.config["JOB_PROGRAMS_DIR"]
        if where is None:
            return
        found = {*directory.list_names(where), current_app.config["OVERVIEW_PROGRAM"]}
        yield from (PREFIX + name for name in sorted(found) if self.find_kind(PREFIX + name))


def _build_kind(path: Path, seen: Version, *, is_overview: bool) -> Kind | None:
    """None for what is no program, or whose NAME.json has a fault, which is said in the log."""
    has_manifest = seen[1] is not None
    if not has_manifest and not is_overview and not directory.is_program(path):
        return None
    file = directory.get_manifest_path(path)
    try:
        content = directory.read_manifest(file) if has_manifest else None
        said = manifest.parse_manifest(path.name, content, is_overview=is_overview)
    except (directory.ManifestUnreadable, manifest.ManifestError) as fault:
        log.error("program is not offered", file=str(file), why=str(fault))  # noqa: TRY400  # no traceback of a file
        return None
    digest = lru_cache(maxsize=1)(partial(directory.compute_digest, path, seen))
    return ProgramKind(
        PREFIX + path.name,
        partial(run_program, Program(path, said)),
        said.parameters,
        title=said.title,
        runner="executable",
        dedupe=said.dedupe,
        time_limit=said.time_limit,
        grace=GRACE_PERIOD,
        concurrency=said.concurrency,
        max_parameters_bytes=MAX_PARAMETERS_BYTES,
        input_digest=lambda _parameters: digest(),
        can_start=_build_predicate(said, is_overview=is_overview),
        program_manifest=said,
    )


def _build_predicate(said: manifest.Manifest, *, is_overview: bool) -> Predicate:
    if not is_overview:
        return admin if said.may_start == "admins" else any_user

    def may(viewer: CurrentUser, parameters: Any) -> bool:
        server = parameters.get("server")
        is_allowed = not isinstance(server, str) or allowed_servers.is_server_allowed(
            server
        )  # a hook may leave it open
        return any_user(viewer, parameters) and is_allowed

    return may


KINDS.sources.append(ProgramKindProvider())
