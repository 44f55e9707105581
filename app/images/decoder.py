"""Program that decodes one image and writes its variants; `resizer` executes this file, and nothing imports it.

Standard input is a line of JSON (`limits`, `info`, `sizes`), then the image. Standard output is a line of JSON with
width, height and length of each variant, then the variants. The program decodes untrusted content, and starts for each
image: so it reads no settings or secrets, and imports only pyvips besides the standard library.
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
"""Exit statuses for images that cannot be decoded."""

MEMORY_ERRORS = ("out of memory", "Insufficient memory")
"""Parts of the messages of libvips and libjpeg when an allocation fails."""

LOADERS = {"jpeg": "VipsForeignLoadJpegBuffer", "png": "VipsForeignLoadPngBuffer", "webp": "VipsForeignLoadWebpBuffer"}
SAVE_OPTIONS = {"jpeg": {"Q": 80, "optimize_coding": True}, "png": {}, "webp": {"Q": 80}}
WHITE = [255, 255, 255]
QUARTER_TURNS = range(5, 9)
"""EXIF orientations that swap width and height."""


def main() -> None:
    """Read one image from standard input and write its variants to standard output."""
    task = json.loads(sys.stdin.buffer.readline())
    for name, limit in task["limits"].items():
        resource.setrlimit(getattr(resource, name), (limit, limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it; here too much output ends the process
    pyvips.cache_set_max(0)
    pyvips.operation_block_set("VipsForeignLoad", True)
    pyvips.operation_block_set(LOADERS[task["info"]["format"]], False)
    try:
        variants = make_variants(sys.stdin.buffer.read(), task["info"], task["sizes"])
    except MemoryError:
        sys.exit(OUT_OF_MEMORY_STATUS)
    except (pyvips.Error, UnicodeDecodeError) as error:
        sys.stderr.write(str(error))
        sys.exit(OUT_OF_MEMORY_STATUS if any(part in str(error) for part in MEMORY_ERRORS) else BROKEN_IMAGE_STATUS)
    header = [{"width": image.width, "height": image.height, "length": len(content)} for image, content in variants]
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n")
    sys.stdout.buffer.writelines(content for _, content in variants)


def make_variants(content: bytes, info: dict[str, Any], sizes: list[dict[str, Any]]) -> list[tuple[Any, bytes]]:
    """Return image and encoded file for each size; decode once, at the scale that the largest size needs."""
    width, height = _get_upright_size(content, info)
    scale = max(_compute_scale(size, width, height) for size in sizes)
    image = _load_image(content, info["format"], scale)
    # Conversion costs as much as the rest: an image without a profile is taken as sRGB, as browsers do.
    profile = {"output_profile": "srgb"} if image.get_typeof("icc-profile-data") else {}
    # This applies the orientation. Copied to memory, as a sequential image can be read only once.
    image = image.thumbnail_image(math.ceil(width * scale), height=math.ceil(height * scale), size="force", **profile)
    image = image.colourspace("srgb").copy_memory()
    return [_render_variant(image, size) for size in sizes]


def _get_upright_size(content: bytes, info: dict[str, Any]) -> tuple[int, int]:
    """Return width and height after rotation; raise pyvips.Error if libvips reads another size than the inspection."""
    image = _load_image(content, info["format"], 1)
    width, height = image.width, image.height
    if (width, height) != (info["width"], info["height"]):
        raise pyvips.Error("the image has another size than its header")
    is_rotated = image.get_typeof("orientation") and image.get("orientation") in QUARTER_TURNS
    return (height, width) if is_rotated else (width, height)


def _compute_scale(size: dict[str, Any], width: int, height: int) -> float:
    """Return the scale at which to decode for this size, at most 1: enlarging is left to the last step."""
    across: float = size["width"] / width
    down: float = size["height"] / height
    visible = 2 / min(width, height)  # loaders round down, and the short side must keep at least one pixel
    return min(1.0, max(visible, max(across, down) if size["crops"] else min(across, down)))


def _load_image(content: bytes, image_format: str, scale: float) -> Any:
    """Open the image lazily; JPEG and WebP decoders shrink it, a JPEG to no less than twice the size needed."""
    if image_format == "jpeg":
        shrink = next(factor for factor in (8, 4, 2, 1) if factor * scale * 2 <= 1 or factor == 1)
        return pyvips.Image.jpegload_buffer(content, shrink=shrink, access="sequential", fail_on="error")
    if image_format == "webp":
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


def _crop_to_ratio(image: Any, ratio: float) -> Any:
    """Crop the centre of the image to this aspect ratio (width / height)."""
    width = min(image.width, max(1, round(image.height * ratio)))
    height = min(image.height, max(1, round(image.width / ratio)))
    return image.crop((image.width - width) // 2, (image.height - height) // 2, width, height)


if __name__ == "__main__":
    main()
