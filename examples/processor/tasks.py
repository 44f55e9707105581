"""Tasks of this processor; add yours here.

A task analyzes each image. Each value is a result file, unless `combine` makes one result file of all values.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, sqrt
from typing import Any

import pyvips  # type: ignore[import-untyped]  # pyvips carries no types

from images import to_greyscale

MAX_SEARCHED_PIXELS = 2048 * 2048
"""Pixels in which regions are searched; larger images are reduced first."""
MAX_LABELS = 2**16
MAX_REGIONS = 100
MIN_REGION_SHARE = 1 / 2000
"""Share of the image area; smaller regions are ignored."""

HASH_BITS = 64
MAX_PAIRS = 10_000

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Task:
    """Functions of a task: `analyze(uid, image)`, and `combine` for the list of pairs of uid and value."""

    analyze: Callable[[str, pyvips.Image], Any]
    combine: Callable[[Sequence[tuple[str, Any]]], Any] | None = None


def find_regions(uid: str, image: pyvips.Image) -> list[dict[str, Any]]:
    """Return the connected bright areas of an image, largest first, in its own pixels."""
    shrink = ceil(sqrt(max(1.0, image.width * image.height / MAX_SEARCHED_PIXELS)))
    searched = to_greyscale(image, shrink)
    while (boxes := _find_bright_boxes(searched)) is None:  # noise, which a smaller image averages out
        searched, shrink = searched.shrink(2, 2), 2 * shrink
    min_area = MIN_REGION_SHARE * searched.width * searched.height
    large = sorted((box for box in boxes if box[2] * box[3] > min_area), key=lambda box: box[2] * box[3], reverse=True)
    upright = image.autorot()
    crops = [_scale_box(box, shrink, upright) for box in large[:MAX_REGIONS]]
    return [{"source": uid, "crops": [{"source": uid, "absolute": crop} for crop in crops]}]


def _scale_box(box: Box, times: int, image: pyvips.Image) -> dict[str, int]:
    x, y, width, height = (times * value for value in box)
    return {"x": x, "y": y, "width": min(width, image.width - x), "height": min(height, image.height - y)}


def _find_bright_boxes(image: pyvips.Image) -> list[Box] | None:
    """Return left, top, width and height of each bright area; None when there are MAX_LABELS areas or more."""
    threshold = _compute_threshold(memoryview(image.hist_find().write_to_memory()).cast("I"))
    if threshold is None:
        return []
    bright = image > threshold
    labels, count = bright.labelregions(segments=True)
    return list(_iterate_boxes(bright, labels.cast("ushort"))) if count["segments"] < MAX_LABELS else None


def _iterate_boxes(bright: pyvips.Image, labels: pyvips.Image) -> Iterator[Box]:
    """Yield the bounding box of each bright label; dark areas have labels, too."""
    places = pyvips.Image.xyz(bright.width, bright.height).bandjoin(bright)
    least, largest = (_read_rows(places.hist_find_indexed(labels, combine=which)) for which in ("min", "max"))
    for (left, top, brightness), (right, bottom, _) in zip(least, largest, strict=True):
        if brightness:
            yield left, top, right - left + 1, bottom - top + 1


def _read_rows(histogram: pyvips.Image) -> Iterator[tuple[int, ...]]:
    numbers = map(int, memoryview(histogram.write_to_memory()).cast("d"))
    return zip(*[numbers] * histogram.bands, strict=True)


def _compute_threshold(counts: Sequence[int]) -> int | None:
    """Return the threshold with the largest variance between dark and bright (Otsu 1979); None for one colour."""
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


def compute_hash(uid: str, image: pyvips.Image) -> int:
    """Return a difference hash: for each of 8 x 8 points one bit, set when it is brighter than its right neighbour."""
    small = to_greyscale(image).thumbnail_image(9, height=8, size="force")
    brighter = small.crop(0, 0, 8, 8) > small.crop(1, 0, 8, 8)
    return sum(1 << place for place, is_brighter in enumerate(bytes(brighter.write_to_memory())) if is_brighter)


def compare_hashes(hashes: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    """Return the similarity of all pairs of images, highest first, at most MAX_PAIRS."""
    scored = ((1 - (one ^ other).bit_count() / HASH_BITS, a, b) for (a, one), (b, other) in combinations(hashes, 2))
    best = heapq.nlargest(MAX_PAIRS, scored, key=lambda pair: pair[0])
    return [{"a": a, "b": b, "score": score} for score, a, b in best]


TASKS = {"regions": Task(find_regions), "similarity": Task(compute_hash, combine=compare_hashes)}
