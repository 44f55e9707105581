"""The job that makes variants of an image: of the picture of an event or a user when it changes, or of any one."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import ARRAY, Text, any_, bindparam, select

from app import stored_files
from app.database import Prepared
from app.errors import Conflict
from app.images import sources
from app.images.headers import inspect
from app.images.picture import SUFFIXES, Refused
from app.images.pictured import EVENTS, USERS, Pictured
from app.images.pixels import RESIZED, Size, Variant, make_variants
from app.jobs.context import JobFailed, Running
from app.jobs.kinds import Change, id_of, job_kind
from app.jobs.models import SUCCEEDED, Job
from app.jobs.records import JobRow
from app.jsonapi.viewer import Viewer
from app.storage import current_storage

KIND = "resize-image"
LONGEST_SIDE = 2_000

_SIDE = {"type": "integer", "minimum": 1, "maximum": LONGEST_SIDE}
OPTIONS: dict[str, Any] = {"width": _SIDE, "height": _SIDE, "format": {"enum": list(SUFFIXES)}}
"""What may be said of one image."""

# As `oneOf` these rules would be the same, but tell nobody which one was broken.
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "event": id_of("event"),
        "user": id_of("user"),
        "image": {"type": "string", "minLength": 1, "maxLength": 2_000},
        **OPTIONS,
    },
    "additionalProperties": False,
    "minProperties": 1,
    "dependentSchemas": {"event": {"maxProperties": 1}, "user": {"maxProperties": 1}},
    "dependentRequired": {name: ["image"] for name in OPTIONS},
}

ON = (
    "event.created:original_image_url",
    "event.updated:original_image_url",
    "event.restored",  # what was asked for while it was in the trash
    "user.created:avatar_url,original_image_url",
    "user.updated:avatar_url,original_image_url",
    "user.restored:avatar_url,original_image_url",
)


def oneself(viewer: Viewer, parameters: Mapping[str, Any]) -> bool:
    """Anybody signed in for an image, the user himself or an admin for the picture of a user."""
    is_own = parameters.get("user", viewer.id) == viewer.id
    return not viewer.is_anonymous and (is_own or viewer.is_admin)


def _ordered(change: Change) -> dict[str, int]:
    return {change.topic.partition(".")[0]: change.id}


_jobs = Job.__table__
_resized = stored_files.last_segment(_jobs.c.result["urls"][RESIZED.name].astext)
_used = Prepared(
    select(_resized).where(
        _jobs.c.kind == KIND,
        _jobs.c.state == SUCCEEDED,
        _jobs.c.parameters.has_key("image"),
        _resized == any_(bindparam("segments", type_=ARRAY(Text))),
    )
)


@stored_files.finds_used_files
def used_files(names: Collection[str]) -> Collection[str]:
    """Return those of these files that a job has made for a client, who asks the job where they are."""
    variants = [name for name in names if name.startswith("images/")]
    values = {"segments": [stored_files.segment_of(name) for name in variants]}
    return stored_files.with_segments(variants, [name for (name,) in _used.rows(values)]) if variants else ()


def _delete_input(job: JobRow) -> None:
    """Order the deletion of the image that the resize API has stored for this job alone."""
    if job.input_bytes is not None:
        stored_files.order_deletion([job.parameters["image"]])


def _require_input(job: JobRow) -> None:
    """409 for a job whose image is deleted by now; any other one is tried again as usual."""
    if job.input_bytes is not None:
        raise Conflict("The image that was sent is not kept: send it again.", code="input-not-kept")


@job_kind(
    KIND,
    parameters=PARAMETERS,
    dedupe="single-flight",
    time_limit=timedelta(minutes=3),
    about_event=True,
    may=oneself,
    on=ON,
    ordered=_ordered,
    ended=_delete_input,
    again=_require_input,
)
def resize_image(running: Running) -> dict[str, Any]:
    """Make the variants of a picture."""
    parameters = running.parameters
    if "image" in parameters:
        content = _read(running, parameters["image"])
        return {"urls": _made(running, content, [_size(parameters, content)])}
    if "event" in parameters:
        return _refreshed(running, EVENTS, parameters["event"])
    return _refreshed(running, USERS, parameters["user"])


def _refreshed(running: Running, pictured: Pictured, id_: int) -> dict[str, Any]:
    """Make the variants of the picture that a row has now; null where it has none. A failure keeps the old ones."""
    originals = pictured.read(id_)
    if originals is None:
        running.progress(message="It has been deleted: nothing to do.")
        return {"urls": {}}
    image = next(filter(None, originals), None)
    urls: dict[str, str | None] = dict.fromkeys(size.name for size in pictured.sizes)
    if image is not None:
        urls |= _made(running, _read(running, image), pictured.sizes)
    running.check()
    if not pictured.write(id_, originals, urls):
        # Who changed it has asked for another run.
        running.progress(message="It has another picture by now: these variants are not used.", level="warning")
        return {"urls": {}}
    return {"urls": urls}


def _read(running: Running, image: str) -> bytes:
    running.progress(0, "reading the image")
    return sources.read(running.job, image)


def _made(running: Running, content: bytes, sizes: Sequence[Size]) -> dict[str, str]:
    """The URLs of the variants, once all of them are stored."""
    running.progress(0.2, "making the variants")
    with _failing():
        variants = make_variants(content, sizes)
    running.progress(0.8, "storing the variants")
    running.charge_output(sum(len(variant.content) for variant in variants))
    return {variant.name: _stored(running, variant) for variant in variants}


def _stored(running: Running, variant: Variant) -> str:
    running.check()
    storage = current_storage()
    suffix = SUFFIXES[variant.format]
    return storage.url(storage.put_by_content("images", variant.content, suffix, variant.media_type))


def _size(parameters: Mapping[str, Any], content: bytes) -> Size:
    """What was asked for; within 100x100 where nothing was, a side that is not named is free."""
    with _failing():
        form = parameters.get("format") or inspect(content).format
    width, height = parameters.get("width"), parameters.get("height")
    if width is None and height is None:
        return replace(RESIZED, format=form)
    return Size(RESIZED.name, int(width or LONGEST_SIDE), int(height or LONGEST_SIDE), format=form)


@contextmanager
def _failing() -> Iterator[None]:
    """An image that is not taken is the end of its job."""
    try:
        yield
    except Refused as refused:
        raise JobFailed(refused.code, str(refused)) from None
