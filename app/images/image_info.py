"""The header data of an image, and the errors for images that are rejected."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar, Literal

ImageFormat = Literal["jpeg", "png", "webp"]

MEDIA_TYPES: dict[ImageFormat, str] = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
SUFFIXES: dict[ImageFormat, str] = {"jpeg": "jpg", "png": "png", "webp": "webp"}
"""Suffixes of the names of stored images."""


@dataclass(frozen=True)
class ImageInfo:
    """Header data of an image; width and height are those before the EXIF orientation is applied."""

    format: ImageFormat
    width: int
    height: int
    is_progressive: bool
    """Progressive or interlaced: the decoder holds the whole image in memory before it has the first row."""
    frames: int
    end: int
    """Offset of the end of the image in bytes; data after it is ignored and not stored."""


class ImageRejected(Exception):
    """The image is not accepted; the message is shown to the user who sent it."""

    status: ClassVar[HTTPStatus] = HTTPStatus.UNPROCESSABLE_ENTITY
    code: ClassVar[str]


class UnsupportedImage(ImageRejected):
    """The content is not an image in a supported format."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "unsupported-image"


class CorruptImage(ImageRejected):
    """The image is empty, truncated or damaged."""

    code = "broken-image"


class ImageTooLarge(ImageRejected):
    """The image has more bytes, pixels or frames than the limits allow."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "image-too-large"


class DecodeLimitExceeded(ImageRejected):
    """The decoder exceeded its memory or time limit, or crashed."""

    code = "image-too-costly"
