"""Reader of the chunks of a PNG (W3C PNG, third edition, section 11)."""

import struct
from collections.abc import Iterator

from app.images.image_info import CorruptImage, ImageInfo, ImageTooLarge

MAX_CHUNKS = 50_000
"""Maximum chunks; an image of 20 MiB has 5,000 in the small chunks that some encoders write."""

_SIGNATURE_SIZE, _CHECKSUM_SIZE = 8, 4
_CHUNK = struct.Struct(">I4s")
_HEADER = struct.Struct(">II5B")
_ANIMATION = struct.Struct(">I")


def read_header(content: bytes) -> ImageInfo:
    """Return the data of the IHDR chunk; the image ends with the IEND chunk."""
    kinds, frames, end = [], 1, 0
    for kind, at, end in _iter_chunks(content):  # noqa: B007  # `end` of the last item is used
        kinds.append(kind)
        if kind == b"acTL":
            frames = max(frames, *_ANIMATION.unpack_from(content, at))
    if kinds[0] != b"IHDR" or b"IDAT" not in kinds:
        raise CorruptImage("The PNG contains no image.")
    width, height, *_, interlace = _HEADER.unpack_from(content, _SIGNATURE_SIZE + _CHUNK.size)
    return ImageInfo("png", width, height, is_progressive=interlace != 0, frames=frames, end=end)


def _iter_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, data offset and end offset of each chunk, up to IEND."""
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
