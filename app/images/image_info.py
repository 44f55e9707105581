"""What is known of an image before it is decoded, and the ways in which one is refused."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar, Literal

ImageFormat = Literal["jpeg", "png", "webp"]

MEDIA_TYPES: dict[ImageFormat, str] = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
SUFFIXES: dict[ImageFormat, str] = {"jpeg": "jpg", "png": "png", "webp": "webp"}
"""Of the names under which images are stored."""


@dataclass(frozen=True)
class ImageInfo:
    """An image by its header; width and height are those of the file, before its orientation is applied."""

    format: ImageFormat
    width: int
    height: int
    is_progressive: bool
    """Progressive or interlaced: all of it is held in memory before its first row is known."""
    frames: int
    end: int
    """Bytes of the image proper: what follows belongs to something else and is never kept."""


class ImageRejected(Exception):
    """The image is not taken; the text is for the person who sent it."""

    status: ClassVar[HTTPStatus] = HTTPStatus.UNPROCESSABLE_ENTITY
    code: ClassVar[str]


class UnsupportedImage(ImageRejected):
    """The content is no image of a format that is taken."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "unsupported-image"


class CorruptImage(ImageRejected):
    """The image is empty, truncated or damaged."""

    code = "broken-image"


class ImageTooLarge(ImageRejected):
    """The image has more bytes, pixels or frames than are taken."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "image-too-large"


class DecodeLimitExceeded(ImageRejected):
    """Decoding was ended: it took too much memory or time, or crashed."""

    code = "image-too-costly"
