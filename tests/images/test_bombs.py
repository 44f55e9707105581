"""P18: whatever is sent takes at most 2 s of processor time and 512 MB, and is made or refused; with `-s`, the figures.

Both limits are the kernel's to keep: no slower machine makes these tests fail, it only has more refused.
"""

import random
import re
from collections.abc import Callable

import pytest

from app.images.pixels import Limits
from tests.images import pictures
from tests.images.measuring import Cost, cost
from tests.images.pictures import Image, encode, png_chunk, zeros

pytestmark = pytest.mark.long

MADE = "3 variants"
GRANULARITY = 0.5
"""Seconds of the sending process and of the kernel's bookkeeping beside the decoder's limit."""

BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "png of 50,000 x 50,000": (lambda: pictures.png(50_000, 50_000), "TooLarge"),
    "jpeg of a gigapixel": (lambda: pictures.jpeg_saying(40_000, 25_000), "TooLarge"),
    "jpeg of 25 megapixels and 2,000 scans": (lambda: pictures.jpeg_of_scans(5_000, 5_000, 2_000), "TooLarge"),
    "jpeg of 25 megapixels and 100 scans": (lambda: pictures.jpeg_of_scans(5_000, 5_000, 100), MADE),
    "noise of 25 MB": (lambda: random.Random(1).randbytes(25_000_000), "TooLarge"),  # noqa: S311  # the same each time
    "png with a profile of a gigabyte": (
        lambda: pictures.with_png_chunks(png_chunk(b"iCCP", b"a\0\0" + zeros(2**30))),
        MADE,
    ),
    "png with 2,000 texts of 8 MB": (
        lambda: pictures.with_png_chunks(png_chunk(b"zTXt", b"a\0\0" + zeros(2**23)) * 2_000),
        MADE,
    ),
    "png of 50 megapixels, 16 bits and alpha": (lambda: _black(8_600, 5_800, "png", bands=4, bitdepth=16), MADE),
    "png of 25 megapixels, 16 bits, alpha and interlaced": (
        lambda: _black(5_000, 5_000, "png", bands=4, bitdepth=16, interlace=True),
        MADE,
    ),
    "png of 50 megapixels without pixels": (lambda: pictures.png(8_600, 5_800), "Broken"),
    "jpeg of 50 megapixels": (lambda: _black(8_600, 5_800, "jpeg", subsample_mode="off"), MADE),
    "jpeg of 25 megapixels, progressive": (lambda: _black(5_000, 5_000, "jpeg", interlace=True), MADE),
    "webp of 50 megapixels": (lambda: _black(8_600, 5_800, "webp", effort=0), MADE),
    "webp of 50 megapixels, lossless": (lambda: _black(8_600, 5_800, "webp", lossless=True, effort=0), MADE),
    "jpeg of 16,384 x 1": (lambda: _black(16_384, 1, "jpeg"), MADE),
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_image_takes_more_than_its_limits(name: str) -> None:
    make, expected = BOMBS[name]

    measured = cost(make())

    _say(name, measured)
    assert measured.outcome in (expected, "TooCostly")  # the latter where the machine is slow
    assert measured.cpu_seconds <= Limits.processor_seconds + GRANULARITY
    assert measured.decoder_megabytes <= Limits.memory / 2**20


def test_a_photo_of_12_megapixels_takes_little() -> None:
    photo = encode(pictures.with_metadata(pictures.photo(4_000, 3_000), 6), "jpeg", Q=90)

    measured = cost(photo)

    _say("photo of 12 megapixels", measured)
    assert measured.outcome == MADE
    assert measured.decoder_megabytes <= 200


def _black(width: int, height: int, form: str, *, bands: int = 3, **how: object) -> bytes:
    image = Image.black(width, height, bands=bands).copy(interpretation="srgb")
    deep = how.get("bitdepth") == 16
    return encode(image.cast("ushort").copy(interpretation="rgb16") if deep else image, form, **how)


def _say(name: str, measured: Cost) -> None:
    outcome = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", measured.outcome).lower()
    print(f"\n{name}: {outcome}, {measured.cpu_seconds:.2f} s, {measured.decoder_megabytes:.0f} MB", end="")  # noqa: T201  # the figure is the point
