"""What is taken, decided from the header and the end of an image before anything decodes it.

By content, never by name. JPEG, PNG and WebP are what browsers and cameras send. No GIF: it is animated or small,
and one frame is what is kept. No HEIF: libvips comes without its patented codec. No SVG, PDF or TIFF: those are
programs, documents and containers.
"""

import struct

from app.images import jpeg, png, webp
from app.images.picture import Broken, Picture, TooLarge, Unsupported

MOST_BYTES = 20 * 2**20
MOST_PIXELS = 50_000_000
MOST_PROGRESSIVE_PIXELS = 25_000_000
LONGEST_SIDE = 16_384

_JPEG, _PNG, _RIFF, _WEBP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP"


def inspect(content: bytes) -> Picture:
    """The image in these bytes; `Unsupported`, `Broken` or `TooLarge` where it is not taken.

    Pure Python, so that nothing hostile reaches a decoder in the process that asks.
    """
    if len(content) > MOST_BYTES:
        raise TooLarge(f"An image may have at most {MOST_BYTES // 2**20} MiB.")
    if not content:
        raise Broken("The image is empty.")
    try:
        picture = _read(content)
    except (struct.error, IndexError) as error:
        raise Broken("The image is truncated within its header.") from error
    _refuse_large(picture)
    return picture


def _read(content: bytes) -> Picture:
    if content.startswith(_JPEG):
        return jpeg.read(content)
    if content.startswith(_PNG):
        return png.read(content)
    if content.startswith(_RIFF) and content[8:12] == _WEBP:
        return webp.read(content)
    if len(content) < 12 and any(start.startswith(content[: len(start)]) for start in (_JPEG, _PNG, _RIFF)):
        raise Broken("The image is truncated within its first bytes.")
    raise Unsupported("Only JPEG, PNG and WebP images are taken.")


def _refuse_large(picture: Picture) -> None:
    most = MOST_PROGRESSIVE_PIXELS if picture.is_progressive else MOST_PIXELS
    if not (picture.width and picture.height):
        raise Broken("The image has no size.")
    if max(picture.width, picture.height) > LONGEST_SIDE:
        raise TooLarge(f"A side of an image may have at most {LONGEST_SIDE} pixels.")
    if picture.width * picture.height > most:
        what = "A progressive or interlaced image" if picture.is_progressive else "An image"
        raise TooLarge(f"{what} may have at most {most // 10**6} megapixels.")
    if picture.frames > 1:
        raise TooLarge("An animated image is not taken: it may have one frame.")
