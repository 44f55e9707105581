"""What this processor can do with images; a task of your own goes here.

A task looks at each image. What it says of one is its result file, unless `together` makes one file of all.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, sqrt
from typing import Any

import pyvips  # type: ignore[import-untyped]  # pyvips carries no types

from images import grey

WORKED_ON = 2048 * 2048
"""Pixels in which regions are searched; a larger image is looked at from further away."""
MOST_LABELS = 2**16
MOST_REGIONS = 100
SPECK = 1 / 2000
"""The part of the image below which a region is dust."""

BITS = 64
MOST_PAIRS = 10_000

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Task:
    """`look(uid, image)` at each image; `together` makes a file of all pairs of uid and what was seen."""

    look: Callable[[str, pyvips.Image], Any]
    together: Callable[[Sequence[tuple[str, Any]]], Any] | None = None


def regions(uid: str, image: pyvips.Image) -> list[dict[str, Any]]:
    """The connected bright areas of an image, largest first, in its own pixels."""
    shrink = ceil(sqrt(max(1.0, image.width * image.height / WORKED_ON)))
    seen = grey(image, shrink)
    while (found := _bright_boxes(seen)) is None:  # nothing but noise, which averages out
        seen, shrink = seen.shrink(2, 2), 2 * shrink
    dust = SPECK * seen.width * seen.height
    large = sorted((box for box in found if box[2] * box[3] > dust), key=lambda box: box[2] * box[3], reverse=True)
    upright = image.autorot()
    crops = [_enlarged(box, shrink, upright) for box in large[:MOST_REGIONS]]
    return [{"source": uid, "crops": [{"source": uid, "absolute": crop} for crop in crops]}]


def _enlarged(box: Box, times: int, image: pyvips.Image) -> dict[str, int]:
    x, y, width, height = (times * value for value in box)
    return {"x": x, "y": y, "width": min(width, image.width - x), "height": min(height, image.height - y)}


def _bright_boxes(seen: pyvips.Image) -> list[Box] | None:
    """Left, top, width and height of each bright area; None if there are more areas than can be told apart."""
    threshold = _otsu(memoryview(seen.hist_find().write_to_memory()).cast("I"))
    if threshold is None:
        return []
    bright = seen > threshold
    labels, count = bright.labelregions(segments=True)
    return list(_boxes(bright, labels.cast("ushort"))) if count["segments"] < MOST_LABELS else None


def _boxes(bright: pyvips.Image, labels: pyvips.Image) -> Iterator[Box]:
    """The least and the largest x and y of each label; dark areas have labels too."""
    places = pyvips.Image.xyz(bright.width, bright.height).bandjoin(bright)
    least, largest = (_rows(places.hist_find_indexed(labels, combine=which)) for which in ("min", "max"))
    for (left, top, brightness), (right, bottom, _) in zip(least, largest, strict=True):
        if brightness:
            yield left, top, right - left + 1, bottom - top + 1


def _rows(histogram: pyvips.Image) -> Iterator[tuple[int, ...]]:
    numbers = map(int, memoryview(histogram.write_to_memory()).cast("d"))
    return zip(*[numbers] * histogram.bands, strict=True)


def _otsu(counts: Sequence[int]) -> int | None:
    """The grey that parts dark from bright with the largest variance between them (Otsu 1979); None for one colour."""
    total, mass = sum(counts), sum(value * count for value, count in enumerate(counts))
    below = mass_below = 0
    variances = []
    for value, count in enumerate(counts):
        below, mass_below = below + count, mass_below + value * count
        above = total - below
        distance = mass_below / below - (mass - mass_below) / above if below and above else 0.0
        variances.append(below * above * distance**2)
    best = max(variances)
    equal = [value for value, variance in enumerate(variances) if variance == best]
    return equal[len(equal) // 2] if best else None


def difference_hash(uid: str, image: pyvips.Image) -> int:
    """64 bits: whether each of 8 x 8 points is brighter than the one to its right."""
    small = grey(image).thumbnail_image(9, height=8, size="force")
    brighter = small.crop(0, 0, 8, 8) > small.crop(1, 0, 8, 8)
    return sum(1 << place for place, is_brighter in enumerate(bytes(brighter.write_to_memory())) if is_brighter)


def pairs(hashes: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    """How much any two images are alike, best first."""
    scored = ((1 - (one ^ other).bit_count() / BITS, a, b) for (a, one), (b, other) in combinations(hashes, 2))
    best = heapq.nlargest(MOST_PAIRS, scored, key=lambda pair: pair[0])
    return [{"a": a, "b": b, "score": score} for score, a, b in best]


TASKS = {"regions": Task(regions), "similarity": Task(difference_hash, together=pairs)}
