"""The chunks of a PNG (W3C PNG, third edition, section 11)."""

import struct
from collections.abc import Iterator

from app.images.image_info import CorruptImage, ImageInfo, ImageTooLarge

MAX_CHUNKS = 50_000
"""20 MiB in the small pieces that some encoders write are 5,000."""

_SIGNATURE_SIZE, _CHECKSUM_SIZE = 8, 4
_CHUNK = struct.Struct(">I4s")
_HEADER = struct.Struct(">II5B")
_ANIMATION = struct.Struct(">I")


def read_header(content: bytes) -> ImageInfo:
    """The image by its IHDR; it ends with IEND."""
    kinds, frames, end = [], 1, 0
    for kind, at, end in _iter_chunks(content):  # noqa: B007  # the last one is where the image ends
        kinds.append(kind)
        if kind == b"acTL":
            frames = max(frames, *_ANIMATION.unpack_from(content, at))
    if kinds[0] != b"IHDR" or b"IDAT" not in kinds:
        raise CorruptImage("The PNG holds no image.")
    width, height, *_, interlace = _HEADER.unpack_from(content, _SIGNATURE_SIZE + _CHUNK.size)
    return ImageInfo("png", width, height, is_progressive=interlace != 0, frames=frames, end=end)


def _iter_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk's kind, the place of its data, and the place behind it, up to IEND."""
    at = _SIGNATURE_SIZE
    for _ in range(MAX_CHUNKS):
        length, kind = _CHUNK.unpack_from(content, at)
        end = at + _CHUNK.size + length + _CHECKSUM_SIZE
        if end > len(content):
            break
        yield kind, at + _CHUNK.size, end
        if kind == b"IEND":
            return
        at = end
    else:
        raise ImageTooLarge(f"A PNG may have at most {MAX_CHUNKS} chunks.")
    raise CorruptImage("The PNG is truncated: it has no IEND.")
