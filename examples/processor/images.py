"""Fetches an image and opens it, with bounds on all that a stranger's file can cost."""

import asyncio
from collections.abc import Callable

import httpx
import pyvips  # type: ignore[import-untyped]  # pyvips carries no types

LARGEST = 20 * 2**20
MOST_PIXELS = 50_000_000
FETCH_SECONDS = 30.0
CERTIFICATES = httpx.create_ssl_context(trust_env=False)
"""Read once: it takes 20 ms."""

# The formats of the web, and no other of the many that libvips reads.
pyvips.operation_block_set("VipsForeignLoad", True)
for _loader in ("Jpeg", "Png", "Webp"):
    pyvips.operation_block_set(f"VipsForeignLoad{_loader}", False)
pyvips.cache_set_max(0)


class Unreadable(Exception):
    """There is no image; the message says why, without the URL: that may hold a signature."""


def is_http(url: object) -> bool:
    """Whether it is an absolute URL that we go to."""
    try:
        parsed = httpx.URL(url) if isinstance(url, str) else httpx.URL()
    except httpx.InvalidURL:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


def fetch(src: str, check: Callable[[], None]) -> bytes:
    """The bytes at a URL; `check` is called now and then and may raise. Raises Unreadable."""
    try:
        return asyncio.run(_fetch(src, check))
    except TimeoutError:
        raise Unreadable(f"It could not be fetched within {FETCH_SECONDS:g} seconds.") from None
    except (httpx.HTTPError, ValueError) as error:  # ValueError: a host that cannot be a name
        raise Unreadable(f"It could not be fetched ({type(error).__name__}).") from None


async def _fetch(src: str, check: Callable[[], None]) -> bytes:
    content = bytearray()
    async with (
        asyncio.timeout(FETCH_SECONDS),
        httpx.AsyncClient(
            verify=CERTIFICATES, timeout=FETCH_SECONDS, trust_env=False, follow_redirects=True, max_redirects=3
        ) as client,
        client.stream("GET", src, headers={"Accept-Encoding": "identity"}) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            raise Unreadable(f"It could not be fetched: the answer was {answer.status_code}.")
        async for part in answer.aiter_raw():
            check()
            content += part
            if len(content) > LARGEST:
                raise Unreadable(f"It is larger than {LARGEST // 2**20} MiB.")
    return bytes(content)


def opened(content: bytes) -> pyvips.Image:
    """The image, of which only the header has been read; what is wrong further on is a pyvips.Error of who uses it."""
    try:
        image = pyvips.Image.new_from_buffer(content, "", access="sequential", fail_on="error")
    except pyvips.Error:
        raise Unreadable("It is not a JPEG, PNG or WebP image.") from None
    if image.width * image.height > MOST_PIXELS:
        raise Unreadable(f"It has more than {MOST_PIXELS // 10**6} million pixels.")
    return image


def grey(image: pyvips.Image, shrink: int = 1) -> pyvips.Image:
    """In memory, 0 to 255, upright as browsers show it, transparent parts black; each pixel from `shrink` squared."""
    image = image.flatten() if image.hasalpha() else image
    image = image.colourspace("b-w").extract_band(0)
    return image.shrink(shrink, shrink).cast("uchar").copy_memory().autorot()
