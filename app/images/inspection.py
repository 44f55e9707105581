"""Inspection of images by their header and their end, before they are decoded.

The format follows from the content, not from a name. JPEG, PNG and WebP are what browsers and cameras send. GIF is not
supported because it is mostly animated, and only one frame would be kept; HEIF because libvips comes without its
patented codec; SVG, PDF and TIFF because they are programs, documents and containers.
"""

import struct

from app.images import jpeg, png, webp
from app.images.image_info import CorruptImage, ImageInfo, ImageTooLarge, UnsupportedImage

MAX_IMAGE_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000
MAX_PROGRESSIVE_PIXELS = 25_000_000
MAX_SIDE_PIXELS = 16_384

_JPEG, _PNG, _RIFF, _WEBP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP"


def inspect_image(content: bytes) -> ImageInfo:
    """Return the header data of an image; raise UnsupportedImage, CorruptImage or ImageTooLarge.

    Pure Python, so that no hostile content reaches a native decoder in the calling process.
    """
    if len(content) > MAX_IMAGE_BYTES:
        raise ImageTooLarge(f"An image may have at most {MAX_IMAGE_BYTES // 2**20} MiB.")
    if not content:
        raise CorruptImage("The image is empty.")
    try:
        info = _read_header(content)
    except (struct.error, IndexError) as error:
        raise CorruptImage("The image is truncated within its header.") from error
    _check_limits(info)
    return info


def _read_header(content: bytes) -> ImageInfo:
    if content.startswith(_JPEG):
        return jpeg.read_header(content)
    if content.startswith(_PNG):
        return png.read_header(content)
    if content.startswith(_RIFF) and content[8:12] == _WEBP:
        return webp.read_header(content)
    if len(content) < 12 and any(start.startswith(content[: len(start)]) for start in (_JPEG, _PNG, _RIFF)):
        raise CorruptImage("The image is truncated within its first bytes.")
    raise UnsupportedImage("The image must be a JPEG, PNG or WebP image.")


def _check_limits(info: ImageInfo) -> None:
    max_pixels = MAX_PROGRESSIVE_PIXELS if info.is_progressive else MAX_PIXELS
    if not (info.width and info.height):
        raise CorruptImage("The width and the height of the image must be at least 1.")
    if max(info.width, info.height) > MAX_SIDE_PIXELS:
        raise ImageTooLarge(f"A side of an image may have at most {MAX_SIDE_PIXELS} pixels.")
    if info.width * info.height > max_pixels:
        subject = "A progressive or interlaced image" if info.is_progressive else "An image"
        raise ImageTooLarge(f"{subject} may have at most {max_pixels // 10**6} megapixels.")
    if info.frames > 1:
        raise ImageTooLarge("An image may have one frame: animations are not supported.")
