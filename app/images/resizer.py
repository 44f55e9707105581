"""Variants of an image, made by a decoder in a separate process.

That process has limits of memory and time, does not inherit the environment, and ends with its parent; a failure of
it is raised as ImageRejected. Data is passed in unnamed temporary files, so that none are left behind.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

import structlog

from app.images.image_info import MEDIA_TYPES, CorruptImage, DecodeLimitExceeded, ImageFormat
from app.images.inspection import inspect_image
from app.processes.process_tree import set_pdeathsig

_PROGRAM = (sys.executable, "-I", str(Path(__file__).with_name("decoder.py")))
_ENVIRONMENT = {
    "VIPS_CONCURRENCY": "1",
    "MALLOC_ARENA_MAX": "2",  # each arena reserves 64 MiB of the limited address space
}

MAX_ERROR_LENGTH = 500
_TERMINATION_STATUSES = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
"""Exit statuses of a decoder that was stopped together with the service: the job gets another attempt."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class VariantSpec:
    """Size of a variant: with `crops` cut to exactly this box, otherwise the whole image fitted into it.

    A cropped variant is enlarged if necessary, as page layouts depend on its size; a fitted one never is.
    """

    name: str
    width: int
    height: int
    crops: bool = False
    format: ImageFormat = "jpeg"


@dataclass(frozen=True)
class Variant:
    """Rotated sRGB image without metadata; a JPEG is white where the original is transparent."""

    name: str
    width: int
    height: int
    format: ImageFormat
    content: bytes

    @property
    def media_type(self) -> str:
        """Return the media type."""
        return MEDIA_TYPES[self.format]


@dataclass(frozen=True)
class DecodeLimits:
    """Limits of the process that decodes one image."""

    memory: int = 512 * 2**20
    """Bytes of address space; the largest images allowed need 350 MiB of it, and 260 MiB resident."""
    processor_seconds: int = 2
    """CPU seconds; the largest images allowed need 0.9, a photo of 12 megapixels 0.15 to 0.3."""
    output: int = 64 * 2**20
    seconds: float = 30.0
    """Wall-clock seconds, for a process that is starved or suspended."""

    def to_rlimits(self) -> dict[str, int]:
        """Return the limits that the kernel enforces, by their names in the module `resource`."""
        return {
            "RLIMIT_AS": self.memory,
            "RLIMIT_CPU": self.processor_seconds,
            "RLIMIT_FSIZE": self.output,
            "RLIMIT_CORE": 0,
        }


EVENT_SIZES = (
    VariantSpec("large", 1300, 500, crops=True),
    VariantSpec("thumbnail", 500, 200, crops=True),
    VariantSpec("icon", 75, 30, crops=True),
)
USER_SIZES = (
    VariantSpec("thumbnail", 500, 500, crops=True),
    VariantSpec("small", 50, 50, crops=True),
    VariantSpec("icon", 35, 35, crops=True),
)
DEFAULT_VARIANT = VariantSpec("resized", 100, 100)


def make_variants(content: bytes, sizes: Sequence[VariantSpec], limits: DecodeLimits | None = None) -> list[Variant]:
    """Return the variants of an image; raise ImageRejected if it is invalid or exceeds a limit."""
    info = inspect_image(content)
    limits = limits or DecodeLimits()
    task = {"limits": limits.to_rlimits(), "info": asdict(info), "sizes": [asdict(size) for size in sizes]}
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as result:
        source.write(json.dumps(task).encode() + b"\n")
        source.write(memoryview(content)[: info.end])
        source.seek(0)
        _run_decoder(source, result, limits.seconds)
        result.seek(0)
        return list(_read_variants(result, sizes))


def _run_decoder(source: BinaryIO, result: BinaryIO, seconds: float) -> None:
    with tempfile.TemporaryFile() as stderr:
        try:
            process = subprocess.run(  # noqa: S603  # a fixed command line without user input
                _PROGRAM,
                stdin=source,
                stdout=result,
                stderr=stderr,
                env=_ENVIRONMENT,
                timeout=seconds,
                check=False,
                start_new_session=True,  # Ctrl-C must not end the decoder as if the image were invalid
                preexec_fn=set_pdeathsig(),
            )
        except subprocess.TimeoutExpired as error:
            raise DecodeLimitExceeded("Decoding the image took too long.") from error
        stderr.seek(0)
        message = stderr.read().decode(errors="replace").strip()[-MAX_ERROR_LENGTH:]
    if process.returncode:
        _raise_decoder_error(process.returncode, message)


def _raise_decoder_error(status: int, message: str) -> NoReturn:
    log.info("image decoding failed", status=status, stderr=message)
    if status == os.EX_DATAERR:
        raise CorruptImage("The image is damaged: it cannot be decoded.")
    if status == os.EX_OSERR or (status < 0 and status not in _TERMINATION_STATUSES):
        raise DecodeLimitExceeded("Decoding the image took too much memory or time.")
    raise RuntimeError(f"the decoder ended with status {status}: {message}")


def _read_variants(result: BinaryIO, sizes: Sequence[VariantSpec]) -> Iterator[Variant]:
    headers = json.loads(result.readline())
    for size, variant in zip(sizes, headers, strict=True):
        content = result.read(variant["length"])
        yield Variant(size.name, variant["width"], variant["height"], size.format, content)
