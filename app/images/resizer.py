"""Pixels in, pixels out: the variants of an image, made in a process of its own.

That process has so much memory and time and no more, sees neither our environment nor our memory, and dies with us;
whatever an image does to it is a `Refused`. Bytes pass through files without a name: nothing is left behind.
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
    "MALLOC_ARENA_MAX": "2",  # each arena reserves 64 MiB of the address space that is limited
}

MAX_ERROR_LENGTH = 500
_TERMINATION_STATUSES = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
"""Whoever stops a whole service says so to each of its processes: no fault of the image, the job may try again."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class VariantSpec:
    """A wanted variant: cut to fill exactly this box, or whole and within it.

    A cut one is enlarged where it must be, since pages are laid out for its size; a whole one never is.
    """

    name: str
    width: int
    height: int
    crops: bool = False
    format: ImageFormat = "jpeg"


@dataclass(frozen=True)
class Variant:
    """An upright sRGB image without metadata; a JPEG is white where the original is transparent."""

    name: str
    width: int
    height: int
    format: ImageFormat
    content: bytes

    @property
    def media_type(self) -> str:
        """The media type it is served with."""
        return MEDIA_TYPES[self.format]


@dataclass(frozen=True)
class DecodeLimits:
    """What decoding one image may take."""

    memory: int = 512 * 2**20
    """Bytes of address space; the largest images that are taken need 350 MiB of it and hold 260."""
    processor_seconds: int = 2
    """The largest images that are taken need 0.9, a photo of 12 megapixels 0.15 to 0.3."""
    output: int = 64 * 2**20
    seconds: float = 30.0
    """By the clock, for a process that is starved or frozen."""

    def to_rlimits(self) -> dict[str, int]:
        """Those that the kernel keeps, by the names in the module `resource`."""
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
    """The image in these sizes; a `Refused` where it is not taken, is damaged, or takes too much to decode."""
    picture = inspect_image(content)
    limits = limits or DecodeLimits()
    task = {"limits": limits.to_rlimits(), "picture": asdict(picture), "sizes": [asdict(size) for size in sizes]}
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as result:
        source.write(json.dumps(task).encode() + b"\n")
        source.write(memoryview(content)[: picture.end])
        source.seek(0)
        _run_decoder(source, result, limits.seconds)
        result.seek(0)
        return list(_read_variants(result, sizes))


def _run_decoder(source: BinaryIO, result: BinaryIO, seconds: float) -> None:
    with tempfile.TemporaryFile() as said:
        try:
            ended = subprocess.run(  # noqa: S603  # our own program, and no words of others
                _PROGRAM,
                stdin=source,
                stdout=result,
                stderr=said,
                env=_ENVIRONMENT,
                timeout=seconds,
                check=False,
                start_new_session=True,  # a Ctrl-C is ours to handle, not a fault of the image
                preexec_fn=set_pdeathsig(),
            )
        except subprocess.TimeoutExpired as error:
            raise DecodeLimitExceeded("Decoding the image takes too long.") from error
        said.seek(0)
        words = said.read().decode(errors="replace").strip()[-MAX_ERROR_LENGTH:]
    if ended.returncode:
        _raise_decoder_error(ended.returncode, words)


def _raise_decoder_error(status: int, words: str) -> NoReturn:
    log.info("image not decoded", status=status, words=words)
    if status == os.EX_DATAERR:
        raise CorruptImage("The image is damaged: it cannot be decoded.")
    if status == os.EX_OSERR or (status < 0 and status not in _TERMINATION_STATUSES):
        raise DecodeLimitExceeded("Decoding the image takes too much memory or time.")
    raise RuntimeError(f"the decoder ended with {status}: {words}")


def _read_variants(result: BinaryIO, sizes: Sequence[VariantSpec]) -> Iterator[Variant]:
    made = json.loads(result.readline())
    for size, variant in zip(sizes, made, strict=True):
        content = result.read(variant["length"])
        yield Variant(size.name, variant["width"], variant["height"], size.format, content)
