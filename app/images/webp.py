"""Reader of the chunks of a WebP (RFC 9649)."""

import struct
from collections.abc import Iterator

from app.images.image_info import CorruptImage, ImageInfo, ImageTooLarge

MAX_CHUNKS = 1_000

_RIFF_HEADER_SIZE = 12
_CHUNK = struct.Struct("<4sI")
_LOSSY = struct.Struct("<3x3sHH")
_LOSSLESS = struct.Struct("<BI")
_EXTENDED = struct.Struct("<B3xHBHB")
_LOSSY_START, _LOSSLESS_START = b"\x9d\x01\x2a", 0x2F
_14_BITS = 2**14 - 1


def read_header(content: bytes) -> ImageInfo:
    """Return the data of the first chunk; the image ends at its RIFF size."""
    (size,) = struct.unpack_from("<I", content, 4)
    end = 8 + size
    if end > len(content):
        raise CorruptImage("The WebP is truncated: it is shorter than the size in its header.")
    chunks = list(_iter_chunks(content, end))
    kinds = [kind for kind, _ in chunks]
    if not {b"VP8 ", b"VP8L", b"ANMF"}.intersection(kinds):
        raise CorruptImage("The WebP contains no image.")
    width, height = _read_size(content, *chunks[0])
    return ImageInfo("webp", width, height, is_progressive=False, frames=max(1, kinds.count(b"ANMF")), end=end)


def _read_size(content: bytes, kind: bytes, at: int) -> tuple[int, int]:
    if kind == b"VP8 ":
        start, width, height = _LOSSY.unpack_from(content, at)
        if start == _LOSSY_START:
            return width & _14_BITS, height & _14_BITS
    elif kind == b"VP8L":
        start, bits = _LOSSLESS.unpack_from(content, at)
        if start == _LOSSLESS_START:
            return (bits & _14_BITS) + 1, (bits >> 14 & _14_BITS) + 1
    elif kind == b"VP8X":
        _, width, width_high, height, height_high = _EXTENDED.unpack_from(content, at)
        return (width_high << 16 | width) + 1, (height_high << 16 | height) + 1
    raise CorruptImage("The WebP does not begin with an image.")


def _iter_chunks(content: bytes, end: int) -> Iterator[tuple[bytes, int]]:
    """Yield type and data offset of each chunk."""
    at = _RIFF_HEADER_SIZE
    for _ in range(MAX_CHUNKS):
        if at + _CHUNK.size > end:
            return
        kind, length = _CHUNK.unpack_from(content, at)
        at += _CHUNK.size
        if at + length > end:
            raise CorruptImage("The WebP is truncated within a chunk.")
        yield kind, at
        at += length + length % 2
    raise ImageTooLarge(f"A WebP may have at most {MAX_CHUNKS} chunks.")
