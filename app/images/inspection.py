"""What is taken, decided from the header and the end of an image before anything decodes it.

By content, never by name. JPEG, PNG and WebP are what browsers and cameras send. No GIF: it is animated or small,
and one frame is what is kept. No HEIF: libvips comes without its patented codec. No SVG, PDF or TIFF: those are
programs, documents and containers.
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
    """The image in these bytes; `UnsupportedImage`, `CorruptImage` or `TooLarge` where it is not taken.

    Pure Python, so that nothing hostile reaches a decoder in the process that asks.
    """
    if len(content) > MAX_IMAGE_BYTES:
        raise ImageTooLarge(f"An image may have at most {MAX_IMAGE_BYTES // 2**20} MiB.")
    if not content:
        raise CorruptImage("The image is empty.")
    try:
        picture = _read_header(content)
    except (struct.error, IndexError) as error:
        raise CorruptImage("The image is truncated within its header.") from error
    _check_limits(picture)
    return picture


def _read_header(content: bytes) -> ImageInfo:
    if content.startswith(_JPEG):
        return jpeg.read_header(content)
    if content.startswith(_PNG):
        return png.read_header(content)
    if content.startswith(_RIFF) and content[8:12] == _WEBP:
        return webp.read_header(content)
    if len(content) < 12 and any(start.startswith(content[: len(start)]) for start in (_JPEG, _PNG, _RIFF)):
        raise CorruptImage("The image is truncated within its first bytes.")
    raise UnsupportedImage("Only JPEG, PNG and WebP images are taken.")


def _check_limits(picture: ImageInfo) -> None:
    most = MAX_PROGRESSIVE_PIXELS if picture.is_progressive else MAX_PIXELS
    if not (picture.width and picture.height):
        raise CorruptImage("The image has no size.")
    if max(picture.width, picture.height) > MAX_SIDE_PIXELS:
        raise ImageTooLarge(f"A side of an image may have at most {MAX_SIDE_PIXELS} pixels.")
    if picture.width * picture.height > most:
        what = "A progressive or interlaced image" if picture.is_progressive else "An image"
        raise ImageTooLarge(f"{what} may have at most {most // 10**6} megapixels.")
    if picture.frames > 1:
        raise ImageTooLarge("An animated image is not taken: it may have one frame.")
