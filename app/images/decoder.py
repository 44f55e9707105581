"""The program that decodes one image and writes its variants: `pixels` runs this file, nothing imports it.

Standard input is a line of JSON (`limits`, `picture`, `sizes`), then the image. Standard output is a line of JSON with
width, height and length of each variant, then the variants. Bytes of strangers are handled here and each start is
paid for: so there are no settings, no secrets, and no import but pyvips.
"""

import json
import math
import os
import resource
import signal
import sys
from typing import Any

import pyvips  # type: ignore[import-untyped]  # pyvips carries no types

BROKEN_IMAGE_STATUS, OUT_OF_MEMORY_STATUS = os.EX_DATAERR, os.EX_OSERR
"""How it ends when it is the image's fault."""

MEMORY_ERRORS = ("out of memory", "Insufficient memory")
"""How libvips and libjpeg say that they got none."""

LOADERS = {"jpeg": "VipsForeignLoadJpegBuffer", "png": "VipsForeignLoadPngBuffer", "webp": "VipsForeignLoadWebpBuffer"}
SAVE_OPTIONS = {"jpeg": {"Q": 80, "optimize_coding": True}, "png": {}, "webp": {"Q": 80}}
WHITE = [255, 255, 255]
QUARTER_TURNS = range(5, 9)
"""The orientations of EXIF that swap width and height."""


def main() -> None:
    """One image in, its variants out."""
    task = json.loads(sys.stdin.buffer.readline())
    for name, most in task["limits"].items():
        resource.setrlimit(getattr(resource, name), (most, most))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # too much output ends it like the other limits; Python ignores it
    pyvips.cache_set_max(0)
    pyvips.operation_block_set("VipsForeignLoad", True)
    pyvips.operation_block_set(LOADERS[task["picture"]["format"]], False)
    try:
        made = make_variants(sys.stdin.buffer.read(), task["picture"], task["sizes"])
    except MemoryError:
        sys.exit(OUT_OF_MEMORY_STATUS)
    except (pyvips.Error, UnicodeDecodeError) as error:
        sys.stderr.write(str(error))
        sys.exit(OUT_OF_MEMORY_STATUS if any(words in str(error) for words in MEMORY_ERRORS) else BROKEN_IMAGE_STATUS)
    header = [{"width": image.width, "height": image.height, "length": len(content)} for image, content in made]
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n")
    sys.stdout.buffer.writelines(content for _, content in made)


def make_variants(content: bytes, picture: dict[str, Any], sizes: list[dict[str, Any]]) -> list[tuple[Any, bytes]]:
    """Each size with its file; the image is decoded once, only as large as the largest of them needs."""
    width, height = _get_upright_size(content, picture)
    scale = max(_compute_scale(size, width, height) for size in sizes)
    image = _load_image(content, picture["format"], scale)
    # Converting costs as much as all the rest: what names no profile is sRGB already, by the rule of the web.
    profile = {"output_profile": "srgb"} if image.get_typeof("icc-profile-data") else {}
    # This turns it upright. Kept in memory, as a stream of rows can be read only once.
    image = image.thumbnail_image(math.ceil(width * scale), height=math.ceil(height * scale), size="force", **profile)
    image = image.colourspace("srgb").copy_memory()
    return [_render_variant(image, size) for size in sizes]


def _get_upright_size(content: bytes, picture: dict[str, Any]) -> tuple[int, int]:
    """Width and height once it is turned; what libvips reads must be what was inspected."""
    image = _load_image(content, picture["format"], 1)
    width, height = image.width, image.height
    if (width, height) != (picture["width"], picture["height"]):
        raise pyvips.Error("the image has another size than its header says")
    turned = image.get_typeof("orientation") and image.get("orientation") in QUARTER_TURNS
    return (height, width) if turned else (width, height)


def _compute_scale(size: dict[str, Any], width: int, height: int) -> float:
    """What the image is multiplied by for this size; nothing is gained by more than 1 before the last step."""
    across: float = size["width"] / width
    down: float = size["height"] / height
    visible = 2 / min(width, height)  # loaders round down, and would make nothing of the short side of a thread
    return min(1.0, max(visible, max(across, down) if size["crops"] else min(across, down)))


def _load_image(content: bytes, form: str, scale: float) -> Any:
    """The image, not yet decoded; its decoder shrinks it where it can, a JPEG to no less than twice what is needed."""
    if form == "jpeg":
        shrink = next(factor for factor in (8, 4, 2, 1) if factor * scale * 2 <= 1 or factor == 1)
        return pyvips.Image.jpegload_buffer(content, shrink=shrink, access="sequential", fail_on="error")
    if form == "webp":
        return pyvips.Image.webpload_buffer(content, scale=scale, access="sequential", fail_on="error")
    return pyvips.Image.pngload_buffer(content, access="sequential", fail_on="error")


def _render_variant(image: Any, size: dict[str, Any]) -> tuple[Any, bytes]:
    if size["crops"]:
        image = _crop_to_ratio(image, size["width"] / size["height"])
        image = image.thumbnail_image(size["width"], height=size["height"], size="force")
    else:
        image = image.thumbnail_image(size["width"], height=size["height"], size="down")
    if size["format"] == "jpeg" and image.hasalpha():
        image = image.flatten(background=WHITE)
    save = getattr(image, f"{size['format']}save_buffer")
    return image, save(keep="none", **SAVE_OPTIONS[size["format"]])


def _crop_to_ratio(image: Any, proportion: float) -> Any:
    """The largest piece from the middle with this width for each row."""
    width = min(image.width, max(1, round(image.height * proportion)))
    height = min(image.height, max(1, round(image.width / proportion)))
    return image.crop((image.width - width) // 2, (image.height - height) // 2, width, height)


if __name__ == "__main__":
    main()
