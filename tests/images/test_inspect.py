"""Inspection of images: header data, and errors before anything is decoded."""

import random
from http import HTTPStatus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.images.image_info import CorruptImage, ImageInfo, ImageRejected, ImageTooLarge, UnsupportedImage
from app.images.inspection import MAX_IMAGE_BYTES, MAX_SIDE_PIXELS, inspect_image
from tests.images import sample_images
from tests.images.sample_images import ZIP, encode_image, make_flag_image, png_chunk

VALID = sample_images.make_valid_files()
GENERATED = settings(max_examples=500, derandomize=True, database=None, deadline=None, print_blob=True)

UNSUPPORTED_FILES = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>',
    "svg with a declaration": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF",
    "gif": sample_images.make_animation("gif"),
    "tiff": make_flag_image().tiffsave_buffer(),
    "avif": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B",
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "bmp": b"BM" + bytes(100),
    "wave": b"RIFF\x24\0\0\0WAVEfmt " + bytes(28),
    "html": b"<!doctype html><img src=x onerror=alert(1)>",
    "text": b"I am a photo.jpg, believe me",
    "zip": ZIP,
    "elf": b"\x7fELF" + bytes(60),
    "spaces before a png": b"  " + encode_image(make_flag_image(), "png"),
    "jpeg of 12 bits": sample_images.make_jpeg_claiming_size(80, 40).replace(b"\x00\x11\x08", b"\x00\x11\x0c", 1),
    "jpeg arithmetic coded": sample_images.make_jpeg_claiming_size(80, 40).replace(
        b"\xff\xc0\x00\x11", b"\xff\xc9\x00\x11", 1
    ),
}

TOO_LARGE = {
    "png of 50,000 x 50,000": sample_images.make_png(50_000, 50_000),
    "png of 2^31": sample_images.make_png(2**31 - 1, 2**31 - 1),
    "png with a long side": sample_images.make_png(MAX_SIDE_PIXELS + 1, 1),
    "png of 51 megapixels": sample_images.make_png(10_000, 5_100),
    "png of 26 megapixels, interlaced": sample_images.make_png(5_200, 5_000, interlace=1),
    "png of 1,000 frames": sample_images.make_png_with_chunks(png_chunk(b"acTL", b"\0\0\x03\xe8\0\0\0\0")),
    "png of 200,000 chunks": sample_images.make_png_with_chunks(png_chunk(b"tEXt", b"a\0b") * 200_000),
    "jpeg of a gigapixel": sample_images.make_jpeg_claiming_size(40_000, 40_000),
    "jpeg with a long side": sample_images.make_jpeg_claiming_size(1, MAX_SIDE_PIXELS + 1),
    "jpeg of 26 megapixels, progressive": sample_images.make_jpeg_claiming_size(5_200, 5_000, interlace=True),
    "jpeg of 1,000 scans": sample_images.make_progressive_jpeg(800, 800, 1_000),
    "jpeg of 5,000,000 segments": b"\xff\xd8" + b"\xff\xe0\0\2" * 5_000_000 + b"\xff\xd9",
    "webp of 16,384 x 16,384": sample_images.make_webp_claiming_size(16_384, 16_384),
    "webp of 2^24 x 1": sample_images.make_webp_claiming_size(2**24, 1),
    "webp of 2,000,000 chunks": b"RIFF" + (16_000_004).to_bytes(4, "little") + b"WEBP" + b"EXIF\0\0\0\0" * 2_000_000,
    "webp of ten frames": sample_images.make_animation("webp"),
    "noise of 25 MB": random.Random(1).randbytes(25_000_000),  # noqa: S311  # the same noise in each run
    "jpeg and noise of 25 MB": encode_image(make_flag_image(), "jpeg") + bytes(25_000_000),
}

BROKEN = {
    "empty": b"",
    "one byte of a jpeg": b"\xff",
    "half a signature of a png": sample_images.PNG_SIGNATURE[:5],
    "webp without its name": b"RIFF\x24\0\0\0WE",
    "png without its header": sample_images.PNG_SIGNATURE + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b""),
    "png without pixels": encode_image(make_flag_image(), "png")[:33] + png_chunk(b"IEND", b""),
    "png of no width": sample_images.make_png(0, 10),
    "png whose chunk says 4 GB": encode_image(make_flag_image(), "png")[:33] + b"\xff\xff\xff\xffIDAT",
    "jpeg of no height": sample_images.make_jpeg_claiming_size(10, 0),
    "jpeg without a frame": b"\xff\xd8\xff\xe0\0\4ab\xff\xd9",
    "jpeg of two frames": sample_images.make_jpeg_claiming_size(10, 10).replace(
        b"\xff\xc4", b"\xff\xc0\0\x0b\x08\0\1\0\1\1\1\x11\0\xff\xc4", 1
    ),
    "jpeg with a frame of two bytes": b"\xff\xd8\xff\xc0\0\4ab\xff\xda\0\4ab\xff\xd9",
    "jpeg with an empty scan": b"\xff\xd8\xff\xc0\0\x0b\x08\0\1\0\1\1\1\x11\0\xff\xda\0\2\xff\xd9",
    "webp without an image": b"RIFF\x0c\0\0\0WEBPEXIF\0\0\0\0",
    "webp that begins with something else": b"RIFF\x14\0\0\0WEBPEXIF\0\0\0\0VP8 \0\0\0\0",
    "webp that is no key frame": b"RIFF\x16\0\0\0WEBPVP8 \x0a\0\0\0" + bytes(10),
}


@pytest.mark.parametrize("name", VALID)
def test_a_good_image_is_known_by_its_header(name: str) -> None:
    picture = inspect_image(VALID[name])

    assert picture == ImageInfo(
        format=name.split()[0],  # type: ignore[arg-type]  # the names begin with it
        width=80,
        height=40,
        is_progressive=name in ("jpeg progressive", "png interlaced"),
        frames=1,
        end=len(VALID[name]),
    )


@pytest.mark.parametrize("name", VALID)
def test_inspect_end_excludes_trailing_bytes(name: str) -> None:
    assert inspect_image(VALID[name] + ZIP).end == len(VALID[name])


def test_a_thumbnail_inside_does_not_end_a_jpeg() -> None:
    inner, outer = encode_image(make_flag_image(8, 8), "jpeg", keep="none"), encode_image(make_flag_image(), "jpeg")
    content = outer[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2) + inner + outer[2:]

    picture = inspect_image(content)

    assert (picture.width, picture.end) == (80, len(content))


@pytest.mark.parametrize("name", UNSUPPORTED_FILES)
def test_inspect_other_format_is_unsupported(name: str) -> None:
    with pytest.raises(UnsupportedImage) as refused:
        inspect_image(UNSUPPORTED_FILES[name])

    assert refused.value.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_bomb_is_too_large(name: str) -> None:
    with pytest.raises(ImageTooLarge) as refused:
        inspect_image(TOO_LARGE[name])

    assert refused.value.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


@pytest.mark.parametrize("name", BROKEN)
def test_an_image_without_a_head_or_body_is_broken(name: str) -> None:
    with pytest.raises(CorruptImage) as refused:
        inspect_image(BROKEN[name])

    assert refused.value.status == HTTPStatus.UNPROCESSABLE_ENTITY


@pytest.mark.parametrize("name", VALID)
def test_an_image_cut_anywhere_is_broken(name: str) -> None:
    content = VALID[name]

    for length in range(len(content)):
        with pytest.raises(CorruptImage):
            inspect_image(content[:length])


def test_the_largest_file_is_still_taken() -> None:
    content = encode_image(make_flag_image(), "png")

    assert inspect_image(content + bytes(MAX_IMAGE_BYTES - len(content))).width == 80


@pytest.mark.parametrize(
    ("name", "content"),
    {
        "nothing but fill bytes": b"\xff\xd8\xff\xe0\0\2" + b"\xff" * (MAX_IMAGE_BYTES - 6),
        "one endless scan": b"\xff\xd8\xff\xe0\0\2" + b"\xff\0" * (MAX_IMAGE_BYTES // 2 - 3),
        "nothing but restarts": b"\xff\xd8\xff\xe0\0\2" + b"\xff\xd0" * (MAX_IMAGE_BYTES // 2 - 3),
        "empty segments": b"\xff\xd8" + b"\xff\xe0\0\0" * (MAX_IMAGE_BYTES // 4 - 1),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.timeout(10)
def test_a_file_made_to_be_read_slowly_is_refused_at_once(name: str, content: bytes) -> None:
    with pytest.raises(ImageRejected):
        inspect_image(content)


@GENERATED
@given(st.binary(max_size=500))
def test_random_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(ImageRejected):
        inspect_image(content)


@GENERATED
@given(
    st.sampled_from([b"\xff\xd8\xff", sample_images.PNG_SIGNATURE, b"RIFF\x20\0\0\0WEBPVP8X"]), st.binary(max_size=200)
)
def test_random_bytes_behind_a_signature_are_read_or_refused(start: bytes, rest: bytes) -> None:
    _read_or_refused(start + rest)


@settings(GENERATED, suppress_health_check=[HealthCheck.large_base_example])
@given(st.data())
def test_changed_bytes_are_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(VALID[data.draw(st.sampled_from(sorted(VALID)))])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    _read_or_refused(bytes(content))


def _read_or_refused(content: bytes) -> None:
    try:
        picture = inspect_image(content)
    except ImageRejected:
        return
    assert 0 < picture.end <= len(content)
