"""Variants: sizes, orientation, colours, and no metadata."""

import contextlib
from typing import Any

import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st

from app.images.image_info import CorruptImage, ImageFormat, ImageRejected, ImageTooLarge, UnsupportedImage
from app.images.resizer import DEFAULT_VARIANT, EVENT_SIZES, USER_SIZES, Variant, VariantSpec, make_variants
from tests.images import sample_images
from tests.images.sample_images import (
    BLUE,
    GPS,
    RED,
    WHITE,
    ZIP,
    Image,
    add_metadata,
    encode_image,
    make_flag_image,
    make_photo,
    make_plain_image,
)

pytestmark = pytest.mark.long

VALID = sample_images.make_valid_files()
EXACT = VariantSpec("exact", 200, 200, format="png")
GENERATED = settings(max_examples=60, derandomize=True, database=None, deadline=None, print_blob=True)


def test_an_event_image_has_exactly_the_documented_sizes() -> None:
    variants = make_variants(encode_image(make_photo(2000, 1500), "jpeg"), EVENT_SIZES)

    assert [(each.name, *_read_size(each)) for each in variants] == [
        ("large", 1300, 500),
        ("thumbnail", 500, 200),
        ("icon", 75, 30),
    ]


@pytest.mark.parametrize("size", [(600, 800), (20, 20), (1, 1), (1, 16_384), (16_384, 1)])
@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_a_user_image_is_square_whatever_the_original_is(form: str, size: tuple[int, int]) -> None:
    width, height = (min(side, 16_383) for side in size) if form == "webp" else size

    variants = make_variants(encode_image(make_plain_image(width, height), form), USER_SIZES)

    assert [(each.name, *_read_size(each)) for each in variants] == [
        ("thumbnail", 500, 500),
        ("small", 50, 50),
        ("icon", 35, 35),
    ]


def test_an_image_that_is_cut_keeps_its_middle_undistorted() -> None:
    square = make_plain_image(600, 600, WHITE).draw_circle([0, 0, 0], 300, 300, 100, fill=True)
    wide = make_plain_image(1800, 600).insert(square, 600, 0)

    [variant] = make_variants(encode_image(wide, "png"), [VariantSpec("cut", 300, 300, crops=True, format="png")])

    pixels = _read_pixels(variant)
    assert [
        _is_near_colour(pixels, x, y, colour)
        for x, y, colour in ((5, 5, WHITE), (295, 295, WHITE), (150, 150, (0, 0, 0)))
    ]
    assert pixels.find_trim(threshold=100) == pytest.approx([100, 100, 100, 100], abs=2)


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        ((800, 400), (100, 50)),
        ((400, 800), (50, 100)),
        ((100, 100), (100, 100)),
        ((80, 40), (80, 40)),
        ((1, 1), (1, 1)),
        ((16_383, 2), (100, 1)),
        ((1, 9_000), (1, 100)),
    ],
)
@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_a_resized_image_fits_within_keeps_its_proportions_and_never_grows(
    form: str, original: tuple[int, int], expected: tuple[int, int]
) -> None:
    [variant] = make_variants(encode_image(make_plain_image(*original), form), [DEFAULT_VARIANT])

    assert _read_size(variant) == expected


@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_the_format_is_the_one_asked_for(form: ImageFormat) -> None:
    [variant] = make_variants(VALID["png"], [VariantSpec("any", 50, 50, format=form)])

    assert _read_pixels(variant).get("vips-loader").startswith(form)
    assert variant.media_type == f"image/{form}"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_every_orientation_is_turned_upright(form: str, orientation: int) -> None:
    stored = _apply_orientation(make_flag_image(), orientation)

    [variant] = make_variants(encode_image(add_metadata(stored, orientation), form), [EXACT])

    assert (variant.width, variant.height) == (80, 40)
    assert _looks_like_the_flag(variant)


def test_a_large_image_is_turned_and_cut_upright() -> None:
    stored = _apply_orientation(make_flag_image(3000, 2000), 6)

    variants = make_variants(encode_image(add_metadata(stored, 6), "jpeg"), EVENT_SIZES)

    assert all(_looks_like_the_flag(variant, 15) for variant in variants)


@pytest.mark.parametrize("made", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_no_metadata_and_nothing_behind_the_image_is_kept(form: str, made: ImageFormat) -> None:
    content = encode_image(add_metadata(make_flag_image()), form) + ZIP
    assert GPS.encode() in content

    [variant] = make_variants(content, [VariantSpec("clean", 80, 80, format=made)])

    kept = {"exif-data", "xmp-data", "icc-profile-data", "orientation"} & set(_read_pixels(variant).get_fields())
    assert not kept
    assert not [word for word in (GPS.encode(), b"GPS", b"Exif", b"PK\x03\x04", b"program") if word in variant.content]


@pytest.mark.parametrize("name", sorted(VALID))
def test_every_kind_of_file_that_is_taken_comes_out_in_srgb(name: str) -> None:
    [variant] = make_variants(VALID[name], [EXACT])

    pixels = _read_pixels(variant)
    assert (variant.width, variant.height) == (80, 40)
    assert (pixels.interpretation, pixels.format) == ("srgb", "uchar")


@pytest.mark.parametrize("name", ["png palette", "png 16 bit", "png interlaced", "webp lossless", "jpeg restarting"])
def test_variant_keeps_colours(name: str) -> None:
    [variant] = make_variants(VALID[name], [EXACT])

    assert _looks_like_the_flag(variant)


def test_a_wide_gamut_profile_is_converted_not_dropped() -> None:
    display_p3 = make_flag_image().icc_transform("p3", input_profile="srgb")
    assert not _is_near_colour(display_p3, 70, 30, RED, 10)

    [variant] = make_variants(encode_image(display_p3, "png"), [EXACT])

    assert _looks_like_the_flag(variant, 3)


@pytest.mark.parametrize("keep", ["all", "none"], ids=["with its profile", "without a profile"])
def test_cmyk_becomes_rgb(keep: str) -> None:
    cmyk = make_flag_image().icc_transform("cmyk", input_profile="srgb")

    [variant] = make_variants(encode_image(cmyk, "jpeg", keep=keep), [EXACT])

    pixels = _read_pixels(variant)
    assert _is_near_colour(pixels, 70, 30, (232, 31, 42), 12)  # the red and the blue of ink
    assert _is_near_colour(pixels, 10, 10, (46, 70, 143), 12)


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_a_profile_that_is_garbage_is_ignored(form: str) -> None:
    image = make_flag_image().copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", b"no profile" * 50)

    [variant] = make_variants(encode_image(image, form), [EXACT])

    assert _looks_like_the_flag(variant)


@pytest.mark.parametrize("form", ["png", "webp"])
def test_what_is_transparent_is_white_in_a_jpeg_and_stays_transparent_elsewhere(form: str) -> None:
    image = make_flag_image().bandjoin(
        make_plain_image(80, 40, (0,)).insert(make_plain_image(40, 20, (255,)), 0, 0).extract_band(0)
    )

    jpeg, png, webp = make_variants(
        encode_image(image, form),
        [VariantSpec("a", 80, 80), VariantSpec("b", 80, 80, format="png"), VariantSpec("c", 80, 80, format="webp")],
    )

    assert _is_near_colour(_read_pixels(jpeg), 70, 30, WHITE)
    assert _is_near_colour(_read_pixels(jpeg), 10, 10, BLUE)
    assert [_read_pixels(each)(70, 30)[3] for each in (png, webp)] == [0, 0]
    assert [_read_pixels(each)(10, 10)[3] for each in (png, webp)] == [255, 255]


def test_the_same_image_gives_the_same_bytes() -> None:
    content = VALID["jpeg with metadata"]

    assert make_variants(content, USER_SIZES) == make_variants(content + ZIP, USER_SIZES)


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        (b"", CorruptImage),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnsupportedImage),
        (sample_images.make_png(9000, 9000), ImageTooLarge),
    ],
    ids=["empty", "svg", "too large"],
)
def test_image_rejected_by_header_is_not_decoded(content: bytes, refused: type[ImageRejected]) -> None:
    with pytest.raises(refused):
        make_variants(content, USER_SIZES)


ENDS = {"jpeg": b"\xff\xd9", "png": sample_images.png_chunk(b"IEND", b""), "webp": b""}


@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_an_image_cut_anywhere_and_given_an_end_is_made_or_refused(form: str) -> None:
    content = encode_image(make_photo(200, 200), form)

    for length in range(40, len(content), len(content) // 15):
        cut = content[:length] + ENDS[form]
        if form == "webp":
            cut = (
                cut[:4]
                + (len(cut) - 8).to_bytes(4, "little")
                + cut[8:16]
                + (len(cut) - 20).to_bytes(4, "little")
                + cut[20:]
            )
        _resize_or_reject(cut)


def test_a_png_whose_pixels_end_too_early_is_broken() -> None:
    with pytest.raises(CorruptImage):
        make_variants(sample_images.make_png(3000, 9000), USER_SIZES)


def test_a_webp_whose_canvas_is_not_its_image_is_broken() -> None:
    with pytest.raises(CorruptImage):
        make_variants(sample_images.make_webp_claiming_size(400, 300), USER_SIZES)


@GENERATED
@given(st.data())
def test_an_image_with_changed_bytes_is_made_or_refused(data: st.DataObject) -> None:
    content = bytearray(VALID[data.draw(st.sampled_from(sorted(VALID)))])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    _resize_or_reject(bytes(content))


def _resize_or_reject(content: bytes) -> None:
    with contextlib.suppress(ImageRejected):
        assert len(make_variants(content, USER_SIZES)) == 3


def _apply_orientation(image: Any, orientation: int) -> Any:
    """Return the image as a camera stores it with this orientation (Exif 2.32, "Orientation")."""
    return {
        1: image,
        2: image.fliphor(),
        3: image.rot180(),
        4: image.flipver(),
        5: image.rot90().fliphor(),
        6: image.rot270(),
        7: image.rot270().fliphor(),
        8: image.rot90(),
    }[orientation]


def _looks_like_the_flag(variant: Variant, tolerance: int = 6) -> bool:
    pixels = _read_pixels(variant)
    places = [(x * pixels.width // 8, y * pixels.height // 8) for x, y in ((1, 1), (7, 1), (1, 7), (7, 7))]
    return all(
        _is_near_colour(pixels, *place, each, tolerance)
        for place, each in zip(places, (BLUE, RED, RED, RED), strict=True)
    )


def _is_near_colour(image: Any, x: int, y: int, colour: tuple[int, ...], tolerance: int = 6) -> bool:
    return list(image(x, y))[:3] == pytest.approx(list(colour), abs=tolerance)


def _read_pixels(variant: Variant) -> Any:
    return Image.new_from_buffer(variant.content, "")


def _read_size(variant: Variant) -> tuple[int, int]:
    """Return width and height of the file; assert that the variant has the same."""
    pixels = _read_pixels(variant)
    assert (pixels.width, pixels.height) == (variant.width, variant.height)
    return pixels.width, pixels.height
