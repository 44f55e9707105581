"""Download and decoding of images, with limits on time, memory and size."""

import asyncio
from collections.abc import Callable

import httpx
import pyvips  # type: ignore[import-untyped]  # pyvips carries no types

MAX_IMAGE_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000
DOWNLOAD_TIMEOUT_SECONDS = 30.0
CERTIFICATES = httpx.create_ssl_context(trust_env=False)
"""TLS context, loaded once, because that takes 20 ms."""

# Only formats of the web, of the many that libvips can read.
pyvips.operation_block_set("VipsForeignLoad", True)
for _loader in ("Jpeg", "Png", "Webp"):
    pyvips.operation_block_set(f"VipsForeignLoad{_loader}", False)
pyvips.cache_set_max(0)


class UnreadableImage(Exception):
    """The image cannot be read; the message has the reason, without the URL, which may contain a signature."""


def is_http_url(url: object) -> bool:
    """Return whether a value is an absolute http or https URL."""
    try:
        parsed = httpx.URL(url) if isinstance(url, str) else httpx.URL()
    except httpx.InvalidURL:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


def download(src: str, check: Callable[[], None]) -> bytes:
    """Return the bytes at a URL; raise UnreadableImage. `check` is called after each chunk and may raise, too."""
    try:
        return asyncio.run(_download(src, check))
    except TimeoutError:
        raise UnreadableImage(f"It could not be downloaded within {DOWNLOAD_TIMEOUT_SECONDS:g} seconds.") from None
    except (httpx.HTTPError, ValueError) as error:  # ValueError: a host that is not valid in IDNA
        raise UnreadableImage(f"It could not be downloaded ({type(error).__name__}).") from None


async def _download(src: str, check: Callable[[], None]) -> bytes:
    content = bytearray()
    async with (
        asyncio.timeout(DOWNLOAD_TIMEOUT_SECONDS),
        httpx.AsyncClient(
            verify=CERTIFICATES,
            timeout=DOWNLOAD_TIMEOUT_SECONDS,
            trust_env=False,
            follow_redirects=True,
            max_redirects=3,
        ) as client,
        client.stream("GET", src, headers={"Accept-Encoding": "identity"}) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            raise UnreadableImage(f"It could not be downloaded: the response was {answer.status_code}.")
        async for part in answer.aiter_raw():
            check()
            content += part
            if len(content) > MAX_IMAGE_BYTES:
                raise UnreadableImage(f"It is larger than {MAX_IMAGE_BYTES // 2**20} MiB.")
    return bytes(content)


def open_image(content: bytes) -> pyvips.Image:
    """Return an image of which only the header is read; raise UnreadableImage. Later errors are pyvips.Error."""
    try:
        image = pyvips.Image.new_from_buffer(content, "", access="sequential", fail_on="error")
    except pyvips.Error:
        raise UnreadableImage("It is not a JPEG, PNG or WebP image.") from None
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(f"It has more than {MAX_PIXELS // 10**6} million pixels.")
    return image


def to_greyscale(image: pyvips.Image, shrink: int = 1) -> pyvips.Image:
    """Return an image in memory with one band, 0 to 255, upright, transparent areas black, reduced by `shrink`."""
    image = image.flatten() if image.hasalpha() else image
    image = image.colourspace("b-w").extract_band(0)
    return image.shrink(shrink, shrink).cast("uchar").copy_memory().autorot()
