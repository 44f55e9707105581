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

from app.errors import Unprocessable, raise_all
from app.jobs.kinds import KINDS, Kind
from app.jsonapi.permissions import Predicate, admin, signed_in
from app.jsonapi.viewer import Viewer
from app.programs import calls, directory, manifest, servers
from app.programs.directory import Version
from app.programs.running import Program, run

PREFIX = "program:"

GRACE = timedelta(seconds=30)
"""Beyond its time limit: for a program to end, and for its file to be stored."""

LARGEST_PARAMETERS = 512 * 1024
"""Bytes of JSON: enough for one argument of the greatest length, whatever is in it."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ProgramKind(Kind):
    """The kind of a program: its parameters must fit a command line, too."""

    said: manifest.Manifest | None = None

    def check(self, parameters: Mapping[str, Any], pointer: str) -> None:
        """422 with a pointer for each parameter that does not fit."""
        super().check(parameters, pointer)
        if self.said is not None:
            faults = calls.faults(self.said, parameters)
            raise_all(Unprocessable(words, pointer=pointer + path) for path, words in faults)


class Programs:
    """The source of these kinds; each is made once for each version of its files."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, bool], tuple[Version, Kind | None]] = {}

    def find(self, name: str) -> Kind | None:
        """The kind `program:NAME`, as its files say now."""
        where: Path | None = current_app.config["JOB_PROGRAMS_DIR"]
        plain = name.removeprefix(PREFIX)
        if where is None or plain == name or not directory.is_name(plain):
            return None
        path, is_overview = where / plain, plain == current_app.config["OVERVIEW_PROGRAM"]
        seen = directory.version(path)
        if seen == (None, None) and not is_overview:
            self._known.pop((path, is_overview), None)
            return None
        known = self._known.get((path, is_overview))
        if known is None or known[0] != seen:
            known = self._known[path, is_overview] = (seen, _kind(path, seen, is_overview=is_overview))
        return known[1]

    def names(self) -> Iterator[str]:
        """Of all that are there now."""
        where: Path | None = current_app.config["JOB_PROGRAMS_DIR"]
        if where is None:
            return
        found = {*directory.names(where), current_app.config["OVERVIEW_PROGRAM"]}
        yield from (PREFIX + name for name in sorted(found) if self.find(PREFIX + name))


def _kind(path: Path, seen: Version, *, is_overview: bool) -> Kind | None:
    """None for what is no program, or whose NAME.json has a fault, which is said in the log."""
    has_manifest = seen[1] is not None
    if not has_manifest and not is_overview and not directory.is_program(path):
        return None
    file = directory.manifest_of(path)
    try:
        content = directory.read_manifest(file) if has_manifest else None
        said = manifest.read(path.name, content, is_overview=is_overview)
    except (directory.Unreadable, manifest.Fault) as fault:
        log.error("program is not offered", file=str(file), why=str(fault))  # noqa: TRY400  # no traceback of a file
        return None
    digest = lru_cache(maxsize=1)(partial(directory.digest, path, seen))
    return ProgramKind(
        PREFIX + path.name,
        partial(run, Program(path, said)),
        said.parameters,
        title=said.title,
        runner="executable",
        dedupe=said.dedupe,
        time_limit=said.time_limit,
        grace=GRACE,
        concurrency=said.concurrency,
        largest_parameters=LARGEST_PARAMETERS,
        inputs=lambda _parameters: digest(),
        may=_may(said, is_overview=is_overview),
        said=said,
    )


def _may(said: manifest.Manifest, *, is_overview: bool) -> Predicate:
    if not is_overview:
        return admin if said.may_start == "admins" else signed_in

    def may(viewer: Viewer, parameters: Any) -> bool:
        server = parameters.get("server")
        is_allowed = not isinstance(server, str) or servers.is_allowed(server)  # a hook may leave it open
        return signed_in(viewer, parameters) and is_allowed

    return may


KINDS.sources.append(Programs())
