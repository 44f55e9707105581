"""Measure `make run` until `ready:` in a copy of a checkout: cold (no .venv), with an empty package cache, and warm.

    python -m benchmarks.start [CHECKOUT] [--empty-cache]

The CPU seconds of all processes are printed, too: on a shared machine they are more precise than the elapsed time.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic

import psutil

import config

READY_TIMEOUT_SECONDS = 600
IGNORED_FILES = shutil.ignore_patterns(
    ".git", ".venv*", "var", "node_modules", "__pycache__", ".*_cache", ".hypothesis"
)


def measure_start(checkout: Path, caches: dict[str, str]) -> str:
    """Run `make run` until it is ready and stop it; return seconds, CPU seconds and lines of output as text."""
    unset = {"PYTHONDONTWRITEBYTECODE", *(setting.name for setting in config.SETTINGS)}
    environ = {name: value for name, value in os.environ.items() if name not in unset} | caches
    with socket.create_server(("127.0.0.1", 0)) as listener:
        environ["PORT"] = str(listener.getsockname()[1])
    log = checkout.parent / "log"
    started = monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["make", "run"],  # noqa: S607  # the make on PATH, as for everyone
            cwd=checkout,
            env=environ,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        reader = log.open(encoding="utf-8")
        lines, text = 0, ""
        with reader:
            while "ready: http" not in text:
                if process.poll() is not None or monotonic() - started > READY_TIMEOUT_SECONDS:
                    raise SystemExit(f"`make run` did not become ready:\n{log.read_text()[-2000:]}")
                text = reader.readline()
                lines += text.endswith("\n")
        took = monotonic() - started
        return f"{took:5.1f} s, CPU {_sum_cpu_seconds(process.pid):5.1f} s, {lines} lines"
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def _sum_cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of this process and its descendants, including ended ones."""
    leader = psutil.Process(pid)
    times = [process.cpu_times() for process in [leader, *leader.children(recursive=True)]]
    return sum(used.user + used.system + used.children_user + used.children_system for used in times)


def _print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Measure and print one line for each kind of start."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description="Measure `make run` until ready.")
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--empty-cache", action="store_true", help="download all packages first")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="open event start ") as scratch:
        copy = Path(scratch) / "a check out"
        shutil.copytree(options.checkout, copy, ignore=IGNORED_FILES)
        caches = {"UV_CACHE_DIR": f"{scratch}/uv", "PIP_CACHE_DIR": f"{scratch}/pip"} if options.empty_cache else {}
        cache = "empty" if options.empty_cache else "warm"
        _print_line(f"cold start, {cache} package cache: {measure_start(copy, caches)}")
        for _ in range(2):
            _print_line(f"warm start: {measure_start(copy, caches)}")


if __name__ == "__main__":
    main()
