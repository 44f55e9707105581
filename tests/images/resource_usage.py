"""Process that makes variants of one image and prints its usage; start it with `python -m tests.images.resource_usage`.

A separate process is needed because the kernel has one figure for all children of a process.
"""

import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from app.images.image_info import ImageRejected
from app.images.resizer import EVENT_SIZES, make_variants

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class ResourceUsage:
    """CPU time and memory that one image took in all processes, with the outcome."""

    outcome: str
    cpu_seconds: float
    decoder_megabytes: float


def measure_resize(content: bytes) -> ResourceUsage:
    """Make the three variants of an event; return the usage."""
    measured = subprocess.run(
        [sys.executable, "-m", "tests.images.resource_usage"],
        input=content,
        stdout=subprocess.PIPE,
        check=True,
        cwd=ROOT,
    )
    return ResourceUsage(**json.loads(measured.stdout.splitlines()[-1]))


def main() -> None:
    """Measure the image on standard input."""
    content = sys.stdin.buffer.read()
    before = resource.getrusage(resource.RUSAGE_SELF)
    try:
        outcome = f"{len(make_variants(content, EVENT_SIZES))} variants"
    except ImageRejected as refused:
        outcome = type(refused).__name__
    ours, decoder = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = ours.ru_utime + ours.ru_stime - before.ru_utime - before.ru_stime + decoder.ru_utime + decoder.ru_stime
    figures = {
        "outcome": outcome,
        "cpu_seconds": round(seconds, 3),
        "decoder_megabytes": round(decoder.ru_maxrss / 1024, 1),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
