"""Loading of the image of a job, from the storage or from a URL."""

from http import HTTPStatus
from typing import NoReturn

from app import http_client
from app.http_client import OutboundError
from app.images.inspection import MAX_IMAGE_BYTES
from app.jobs.context import JobFailed
from app.jobs.records import JobRow
from app.storage import current_storage

ERROR_CODES: dict[type[OutboundError], str] = {
    http_client.UrlNotAllowed: "address-refused",
    http_client.Unreachable: "address-unreachable",
    http_client.TimedOut: "fetch-timed-out",
    http_client.RequestFailed: "fetch-failed",
    http_client.ResponseTooLarge: "image-too-large",
    http_client.TooManyRedirects: "too-many-redirects",
}

MAX_REDIRECTS = 3


def read_image(job: JobRow, image: str) -> bytes:
    """Return the content of an image, given by a URL or a name in the storage; raise JobFailed if it is unavailable."""
    storage = current_storage()
    if "://" not in image:
        return _read_from_storage(image) if _is_public(image) or _is_input_of(job, image) else _raise_not_found()
    name = storage.get_public_name(image)
    return _fetch_image(image) if name is None else _read_from_storage(name)


def _read_from_storage(name: str) -> bytes:
    storage = current_storage()
    try:
        if storage.stat(name).size > MAX_IMAGE_BYTES:
            raise JobFailed("image-too-large", f"An image may have at most {MAX_IMAGE_BYTES // 2**20} MiB.")
        return storage.read_file(name)
    except FileNotFoundError:
        _raise_not_found()


def _raise_not_found() -> NoReturn:
    raise JobFailed("image-not-found", "There is no image with this name in the storage.")


def _is_public(name: str) -> bool:
    try:
        current_storage().get_url(name)
    except ValueError:
        return False
    return True


def _is_input_of(job: JobRow, name: str) -> bool:
    """Return whether the resize API stored this file for this job; a job cannot read the files of others."""
    return name.rpartition("/")[0] == get_input_folder(job.id)


def get_input_folder(job_id: object) -> str:
    """Return the folder of the input files of a job, which are not public."""
    return f"jobs/{job_id}"


def _fetch_image(url: str) -> bytes:
    try:
        response = http_client.fetch_url(
            url, limits=http_client.RequestLimits(largest=MAX_IMAGE_BYTES), max_redirects=MAX_REDIRECTS
        )
    except OutboundError as error:
        raise JobFailed(ERROR_CODES[type(error)], str(error)) from None
    if response.status != HTTPStatus.OK:
        raise JobFailed("unexpected-status", f"The URL responded with status {response.status} instead of 200.")
    return response.content
