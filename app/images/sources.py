"""Where a job gets its image from: our own storage, or anywhere outside."""

from http import HTTPStatus
from typing import NoReturn

from app import http_client
from app.http_client import OutboundError
from app.images.headers import MOST_BYTES
from app.jobs.context import JobFailed
from app.jobs.records import JobRow
from app.storage import current_storage

CODES: dict[type[OutboundError], str] = {
    http_client.Refused: "address-refused",
    http_client.Unreachable: "address-unreachable",
    http_client.TimedOut: "fetch-timed-out",
    http_client.Failed: "fetch-failed",
    http_client.TooLarge: "image-too-large",
    http_client.TooManyRedirects: "too-many-redirects",
}

MAX_REDIRECTS = 3


def read(job: JobRow, image: str) -> bytes:
    """The bytes of an image, which is a URL or a name in our storage; JobFailed where there are none to be had."""
    storage = current_storage()
    if "://" not in image:
        return _stored(image) if _is_public(image) or _is_input_of(job, image) else _missing()
    name = storage.public_name(image)
    return _fetched(image) if name is None else _stored(name)


def _stored(name: str) -> bytes:
    storage = current_storage()
    try:
        if storage.stat(name).size > MOST_BYTES:
            raise JobFailed("image-too-large", f"An image may have at most {MOST_BYTES // 2**20} MiB.")
        return storage.read(name)
    except FileNotFoundError:
        _missing()


def _missing() -> NoReturn:
    raise JobFailed("image-not-found", "There is no such image in our storage.")


def _is_public(name: str) -> bool:
    try:
        current_storage().url(name)
    except ValueError:
        return False
    return True


def _is_input_of(job: JobRow, name: str) -> bool:
    """Whether the resize API has put it there for this job: nobody names another's."""
    return name.rpartition("/")[0] == input_folder(job.id)


def input_folder(job_id: object) -> str:
    """Where what a job reads lies in storage; not for everybody."""
    return f"jobs/{job_id}"


def _fetched(url: str) -> bytes:
    try:
        answer = http_client.fetch(url, limits=http_client.Limits(largest=MOST_BYTES), max_redirects=MAX_REDIRECTS)
    except OutboundError as error:
        raise JobFailed(CODES[type(error)], str(error)) from None
    if answer.status != HTTPStatus.OK:
        raise JobFailed("unexpected-status", f"The address answered with status {answer.status}, not with an image.")
    return answer.content
