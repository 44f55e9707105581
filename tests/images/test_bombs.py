"""P18: every image takes at most 2 s of CPU time and 512 MB, and is decoded or rejected; `-s` prints the figures.

The kernel enforces both limits, so a slow machine does not fail these tests, but rejects more images.
"""

import random
import re
from collections.abc import Callable

import pytest

from app.images.resizer import DecodeLimits
from tests.images import sample_images
from tests.images.resource_usage import ResourceUsage, measure_resize
from tests.images.sample_images import Image, encode_image, make_zeros, png_chunk

pytestmark = pytest.mark.long

SUCCESS_RESULT = "3 variants"
GRANULARITY = 0.5
"""Seconds for the parent process and the kernel, in addition to the limit of the decoder."""

BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "png of 50,000 x 50,000": (lambda: sample_images.make_png(50_000, 50_000), "ImageTooLarge"),
    "jpeg of a gigapixel": (lambda: sample_images.make_jpeg_claiming_size(40_000, 25_000), "ImageTooLarge"),
    "jpeg of 25 megapixels and 2,000 scans": (
        lambda: sample_images.make_progressive_jpeg(5_000, 5_000, 2_000),
        "ImageTooLarge",
    ),
    "jpeg of 25 megapixels and 100 scans": (
        lambda: sample_images.make_progressive_jpeg(5_000, 5_000, 100),
        SUCCESS_RESULT,
    ),
    "noise of 25 MB": (lambda: random.Random(1).randbytes(25_000_000), "ImageTooLarge"),  # noqa: S311  # the same each time
    "png with a profile of a gigabyte": (
        lambda: sample_images.make_png_with_chunks(png_chunk(b"iCCP", b"a\0\0" + make_zeros(2**30))),
        SUCCESS_RESULT,
    ),
    "png with 2,000 texts of 8 MB": (
        lambda: sample_images.make_png_with_chunks(png_chunk(b"zTXt", b"a\0\0" + make_zeros(2**23)) * 2_000),
        SUCCESS_RESULT,
    ),
    "png of 50 megapixels, 16 bits and alpha": (
        lambda: _make_black_image(8_600, 5_800, "png", bands=4, bitdepth=16),
        SUCCESS_RESULT,
    ),
    "png of 25 megapixels, 16 bits, alpha and interlaced": (
        lambda: _make_black_image(5_000, 5_000, "png", bands=4, bitdepth=16, interlace=True),
        SUCCESS_RESULT,
    ),
    "png of 50 megapixels without pixels": (lambda: sample_images.make_png(8_600, 5_800), "CorruptImage"),
    "jpeg of 50 megapixels": (lambda: _make_black_image(8_600, 5_800, "jpeg", subsample_mode="off"), SUCCESS_RESULT),
    "jpeg of 25 megapixels, progressive": (
        lambda: _make_black_image(5_000, 5_000, "jpeg", interlace=True),
        SUCCESS_RESULT,
    ),
    "webp of 50 megapixels": (lambda: _make_black_image(8_600, 5_800, "webp", effort=0), SUCCESS_RESULT),
    "webp of 50 megapixels, lossless": (
        lambda: _make_black_image(8_600, 5_800, "webp", lossless=True, effort=0),
        SUCCESS_RESULT,
    ),
    "jpeg of 16,384 x 1": (lambda: _make_black_image(16_384, 1, "jpeg"), SUCCESS_RESULT),
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_image_takes_more_than_its_limits(name: str) -> None:
    make, expected = BOMBS[name]

    measured = measure_resize(make())

    _print_usage(name, measured)
    assert measured.outcome in (expected, "DecodeLimitExceeded")  # the latter where the machine is slow
    assert measured.cpu_seconds <= DecodeLimits.processor_seconds + GRANULARITY
    assert measured.decoder_megabytes <= DecodeLimits.memory / 2**20


def test_a_photo_of_12_megapixels_takes_little() -> None:
    photo = encode_image(sample_images.add_metadata(sample_images.make_photo(4_000, 3_000), 6), "jpeg", Q=90)

    measured = measure_resize(photo)

    _print_usage("photo of 12 megapixels", measured)
    assert measured.outcome == SUCCESS_RESULT
    assert measured.decoder_megabytes <= 200


def _make_black_image(width: int, height: int, form: str, *, bands: int = 3, **how: object) -> bytes:
    image = Image.black(width, height, bands=bands).copy(interpretation="srgb")
    deep = how.get("bitdepth") == 16
    return encode_image(image.cast("ushort").copy(interpretation="rgb16") if deep else image, form, **how)


def _print_usage(name: str, measured: ResourceUsage) -> None:
    outcome = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", measured.outcome).lower()
    print(f"\n{name}: {outcome}, {measured.cpu_seconds:.2f} s, {measured.decoder_megabytes:.0f} MB", end="")  # noqa: T201  # the figure is the point
