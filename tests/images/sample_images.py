"""Sample images: valid ones made by libvips, and hostile ones built from the formats."""

import re
import struct
import zlib
from collections.abc import Iterator

import pyvips

Image = pyvips.Image

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
SAVERS = {"jpeg": "jpegsave_buffer", "png": "pngsave_buffer", "webp": "webpsave_buffer"}
GPS = "52 deg 31 min of a home"
ZIP = b"PK\x03\x04 a program behind the image PK\x05\x06" + b"\0" * 18
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def make_plain_image(width: int, height: int, colour: tuple[int, ...] = RED) -> Image:
    """Return an image of one colour."""
    return (Image.black(width, height) + list(colour)).cast("uchar").copy(interpretation="srgb")


def make_flag_image(width: int = 80, height: int = 40) -> Image:
    """Return a red image with a blue upper left quarter, which shows rotation and mirroring."""
    return make_plain_image(width, height).insert(make_plain_image(width // 2, height // 2, BLUE), 0, 0)


def make_photo(width: int, height: int) -> Image:
    """Return soft shapes with noise, as hard to compress as a photo."""
    shapes = Image.perlin(width, height, cell_size=max(width // 16, 1)).linear(60, 128)
    grey = shapes + Image.gaussnoise(width, height, sigma=6)
    return grey.bandjoin([grey.linear(0.8, 0), grey.linear(0.6, 40)]).cast("uchar").copy(interpretation="srgb")


def encode_image(image: Image, form: str, **how: object) -> bytes:
    """Return the image as a file of this format."""
    content: bytes = getattr(image, SAVERS[form])(**how)
    return content


def add_metadata(image: Image, orientation: int = 1) -> Image:
    """Return the image with metadata like a phone's: position, camera and orientation."""
    image = image.copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    image.set_type(pyvips.GValue.gstr_type, "exif-ifd2-UserComment", GPS)
    image.set_type(pyvips.GValue.gstr_type, "exif-ifd3-GPSLatitude", "52/1 31/1 0/1")
    image.set_type(pyvips.GValue.blob_type, "xmp-data", f"<x>{GPS}</x>".encode())
    return image


def make_valid_files() -> dict[str, bytes]:
    """Return a small image of each supported kind."""
    grey = make_flag_image().colourspace("b-w")
    seen_through = make_flag_image().bandjoin(Image.black(80, 40).linear(1, 128).cast("uchar"))
    return {
        "jpeg": encode_image(make_flag_image(), "jpeg"),
        "jpeg with metadata": encode_image(add_metadata(make_flag_image()), "jpeg"),
        "jpeg progressive": encode_image(make_flag_image(), "jpeg", interlace=True),
        "jpeg restarting": encode_image(make_flag_image(), "jpeg", restart_interval=1),
        "jpeg cmyk": encode_image(make_flag_image().icc_transform("cmyk", input_profile="srgb"), "jpeg", keep="none"),
        "jpeg grey": encode_image(grey, "jpeg"),
        "png": encode_image(make_flag_image(), "png"),
        "png interlaced": encode_image(make_flag_image(), "png", interlace=True),
        "png palette": encode_image(make_flag_image(), "png", palette=True),
        "png 1 bit": encode_image(grey > 60, "png", bitdepth=1),
        "png 16 bit": encode_image(make_flag_image().colourspace("rgb16"), "png", bitdepth=16),
        "png grey and alpha": encode_image(grey.bandjoin(Image.black(80, 40).linear(1, 128).cast("uchar")), "png"),
        "webp": encode_image(make_flag_image(), "webp", keep="none"),
        "webp lossless": encode_image(make_flag_image(), "webp", keep="none", lossless=True),
        "webp with metadata": encode_image(add_metadata(seen_through), "webp"),
    }


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_png(width: int, height: int, *more: bytes, interlace: int = 0) -> bytes:
    """Return a black and white PNG whose header claims this size, with little data."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, interlace))
    return PNG_SIGNATURE + header + b"".join(more) + png_chunk(b"IDAT", make_zeros(2**20)) + png_chunk(b"IEND", b"")


def make_png_with_chunks(*chunks: bytes) -> bytes:
    """Return a valid PNG with more chunks after its header."""
    content = encode_image(make_flag_image(), "png")
    return content[:33] + b"".join(chunks) + content[33:]


def make_zeros(size: int) -> bytes:
    """Return zero bytes of this size, compressed."""
    deflate = zlib.compressobj(9)
    return b"".join([deflate.compress(bytes(2**20)) for _ in range(size // 2**20)]) + deflate.flush()


def make_jpeg_claiming_size(width: int, height: int, **how: object) -> bytes:
    """Return a small JPEG whose frame header claims this size."""
    content = encode_image(make_flag_image(), "jpeg", **how)
    return re.sub(
        rb"(\xff[\xc0\xc2]..\x08)....", lambda found: found[1] + struct.pack(">HH", height, width), content, flags=re.S
    )


def make_webp_claiming_size(width: int, height: int) -> bytes:
    """Return a small WebP whose canvas claims this size."""
    content = encode_image(add_metadata(make_flag_image()), "webp")
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return content[:24] + size + content[30:]


def make_animation(form: str) -> bytes:
    """Return an animation with ten frames."""
    frames = Image.arrayjoin([make_plain_image(32, 32, (20 * number, 0, 0)) for number in range(10)], across=1)
    frames.set_type(pyvips.GValue.gint_type, "page-height", 32)
    content: bytes = frames.gifsave_buffer() if form == "gif" else frames.webpsave_buffer()
    return content


def make_progressive_jpeg(width: int, height: int, scans: int) -> bytes:
    """Return a valid progressive JPEG with this many scans, each of which adds nothing in a few bytes."""
    tables = (
        _build_segment(0xDB, b"\0" + b"\1" * 64)
        + _build_segment(0xC4, _build_one_code_table(0x00, 0))
        + _build_segment(0xC4, _build_one_code_table(0x10, 0xE0))
    )
    frame = struct.pack(">BHHB", 8, height, width, 3) + b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    blocks = -(-width // 8) * -(-height // 8)
    first = _build_segment(0xDA, b"\3" + b"\1\0\2\0\3\0" + b"\0\0\0") + bytes(-(-blocks * 3 // 8))
    # The code 0, then 14 bits of ones: no more in the next 32,767 blocks.
    runs = ("0" + "1" * 14) * -(-blocks // 32_767)
    runs += "1" * (-len(runs) % 8)
    nothing = int(runs, 2).to_bytes(len(runs) // 8).replace(b"\xff", b"\xff\0")
    rest = [header + nothing for header, _ in zip(_build_refinement_scans(), range(scans - 1), strict=False)]
    return b"\xff\xd8" + tables + _build_segment(0xC2, frame) + first + b"".join(rest) + b"\xff\xd9"


def _build_refinement_scans() -> Iterator[bytes]:
    """Yield the headers of the 2,079 scans that may follow the first: each coefficient, bit by bit."""
    for component in (1, 2, 3):
        for coefficient in range(1, 64):
            for low in range(10, -1, -1):
                high = 0 if low == 10 else low + 1
                yield _build_segment(0xDA, bytes([1, component, 0, coefficient, coefficient, high << 4 | low]))


def _build_segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def _build_one_code_table(table: int, symbol: int) -> bytes:
    """Return a Huffman table that codes this symbol in one bit."""
    return bytes([table, 1]) + bytes(15) + bytes([symbol])
