"""Reader of the markers of a JPEG (ITU-T T.81, annex B)."""

import re
import struct
from collections.abc import Iterator

from app.images.image_info import CorruptImage, ImageInfo, ImageTooLarge, UnsupportedImage

MAX_SEGMENTS = 2_000
MAX_SCANS = 100
"""Maximum scans; encoders write about 10. A decoder passes over the whole image for each, and 2,000 fit into 230 kB."""

_END, _SCAN = 0xD9, 0xDA
_PROGRESSIVE = 0xC2
_SUPPORTED_FRAMES = (0xC0, 0xC1, _PROGRESSIVE)  # Huffman coded; the rest is arithmetic coded, lossless or hierarchical
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # these three define tables

_LENGTH = struct.Struct(">H")
_FRAME = struct.Struct(">BHHB")

# In the data of a scan, FF is followed by 00 or a restart marker; FF FF (fill) and FF 01 (TEM) have no meaning.
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])")


def read_header(content: bytes) -> ImageInfo:
    """Return the data of the frame header; the image ends at its own end marker, not at that of a thumbnail in it."""
    frames, scans, end = [], [], 0
    for marker, segment, end in _iter_segments(content):  # noqa: B007  # `end` of the last item is used
        if marker in _FRAMES:
            frames.append((marker, segment))
        elif marker == _SCAN:
            scans.append(segment)
    if len(frames) != 1 or not scans:
        raise CorruptImage("A JPEG must contain exactly one image.")
    if len(scans) > MAX_SCANS:
        raise ImageTooLarge(f"A JPEG may have at most {MAX_SCANS} scans.")
    [(marker, header)] = frames
    precision, height, width, components = _FRAME.unpack_from(header)
    if marker not in _SUPPORTED_FRAMES or precision != 8:
        raise UnsupportedImage("A JPEG must be baseline or progressive, with 8 bits per sample.")
    # A decoder holds a baseline image with several scans in memory, like a progressive one.
    is_progressive = marker == _PROGRESSIVE or scans[0][0] < components
    return ImageInfo("jpeg", width, height, is_progressive, frames=1, end=end)


def _iter_segments(content: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker, segment data and end offset of each segment, up to the end marker."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        match = _MARKER.search(content, at)
        if match is None:
            raise CorruptImage("The JPEG is truncated: it has no end marker.")
        marker, at = match[1][0], match.end()
        if marker == _END:
            yield marker, b"", at
            return
        (length,) = _LENGTH.unpack_from(content, at)
        yield marker, content[at + _LENGTH.size : at + length], at + length
        at += max(length, _LENGTH.size)
    raise ImageTooLarge(f"A JPEG may have at most {MAX_SEGMENTS} segments.")
