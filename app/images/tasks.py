"""Job kind `resize-image`: makes variants of the image of an event or a user when it changes, or of any image."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import ARRAY, Text, any_, bindparam, select

from app import stored_files
from app.database import PreparedStatement
from app.errors import Conflict
from app.images import loader
from app.images.image_info import SUFFIXES, ImageRejected
from app.images.inspection import inspect_image
from app.images.resizer import DEFAULT_VARIANT, Variant, VariantSpec, make_variants
from app.images.variant_columns import EVENT_VARIANT_COLUMNS, USER_VARIANT_COLUMNS, VariantColumns
from app.jobs.context import JobContext, JobFailed
from app.jobs.kinds import Change, job_kind, resource_id_schema
from app.jobs.models import SUCCEEDED, Job
from app.jobs.records import JobRow
from app.jsonapi.current_user import CurrentUser
from app.storage import current_storage

KIND = "resize-image"
MAX_VARIANT_SIDE_PIXELS = 2_000

_SIDE = {"type": "integer", "minimum": 1, "maximum": MAX_VARIANT_SIDE_PIXELS}
VARIANT_OPTIONS: dict[str, Any] = {"width": _SIDE, "height": _SIDE, "format": {"enum": list(SUFFIXES)}}
"""Schema of the parameters that are allowed together with `image`."""

# `oneOf` would express the same rules, but its errors do not show which rule was violated.
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "event": resource_id_schema("event"),
        "user": resource_id_schema("user"),
        "image": {"type": "string", "minLength": 1, "maxLength": 2_000},
        **VARIANT_OPTIONS,
    },
    "additionalProperties": False,
    "minProperties": 1,
    "dependentSchemas": {"event": {"maxProperties": 1}, "user": {"maxProperties": 1}},
    "dependentRequired": {name: ["image"] for name in VARIANT_OPTIONS},
}

TRIGGERS = (
    "event.created:original_image_url",
    "event.updated:original_image_url",
    "event.restored",  # for changes that were made in the trash
    "user.created:avatar_url,original_image_url",
    "user.updated:avatar_url,original_image_url",
    "user.restored:avatar_url,original_image_url",
)


def self_or_admin(viewer: CurrentUser, parameters: Mapping[str, Any]) -> bool:
    """Return whether the caller may start it: any user for an image, the user or an admin for the image of a user."""
    is_own = parameters.get("user", viewer.id) == viewer.id
    return not viewer.is_anonymous and (is_own or viewer.is_admin)


def _build_parameters(change: Change) -> dict[str, int]:
    return {change.topic.partition(".")[0]: change.id}


_jobs = Job.__table__
_variant_segment = stored_files.select_last_segment(_jobs.c.result["urls"][DEFAULT_VARIANT.name].astext)
_select_used = PreparedStatement(
    select(_variant_segment).where(
        _jobs.c.kind == KIND,
        _jobs.c.state == SUCCEEDED,
        _jobs.c.parameters.has_key("image"),
        _variant_segment == any_(bindparam("segments", type_=ARRAY(Text))),
    )
)


@stored_files.register_finder
def find_used_files(names: Collection[str]) -> Collection[str]:
    """Return those of the given files that are results of jobs, from which clients read their URLs."""
    variants = [name for name in names if name.startswith("images/")]
    values = {"segments": [stored_files.get_segment(name) for name in variants]}
    return (
        stored_files.filter_by_segments(variants, [name for (name,) in _select_used.fetch_rows(values)])
        if variants
        else ()
    )


def _delete_input(job: JobRow) -> None:
    """Enqueue the deletion of the image that the resize API stored for this job."""
    if job.input_bytes is not None:
        stored_files.enqueue_deletion([job.parameters["image"]])


def _require_input(job: JobRow) -> None:
    """Raise Conflict if the image of the job was sent to the resize API, as it is deleted by now."""
    if job.input_bytes is not None:
        raise Conflict("The image of this job has been deleted. Send it again.", code="input-not-kept")


@job_kind(
    KIND,
    parameters=PARAMETERS,
    dedupe="single-flight",
    time_limit=timedelta(minutes=3),
    belongs_to_event=True,
    can_start=self_or_admin,
    triggers=TRIGGERS,
    parameters_from_change=_build_parameters,
    on_end=_delete_input,
    on_retry=_require_input,
)
def resize_image(context: JobContext) -> dict[str, Any]:
    """Make the variants of an image."""
    parameters = context.parameters
    if "image" in parameters:
        content = _read_image(context, parameters["image"])
        return {"urls": _render_variants(context, content, [_get_variant_spec(parameters, content)])}
    if "event" in parameters:
        return _refresh_variants(context, EVENT_VARIANT_COLUMNS, parameters["event"])
    return _refresh_variants(context, USER_VARIANT_COLUMNS, parameters["user"])


def _refresh_variants(context: JobContext, columns: VariantColumns, id_: int) -> dict[str, Any]:
    """Make the variants of the current image of a row; null without an image. A failure keeps the old variants."""
    originals = columns.read_originals(id_)
    if originals is None:
        context.report_progress(message="The resource was deleted: there is nothing to do.")
        return {"urls": {}}
    image = next(filter(None, originals), None)
    urls: dict[str, str | None] = dict.fromkeys(size.name for size in columns.sizes)
    if image is not None:
        urls |= _render_variants(context, _read_image(context, image), columns.sizes)
    context.raise_if_ending()
    if not columns.write_variants(id_, originals, urls):
        # The change has submitted another job.
        context.report_progress(
            message="The image was changed meanwhile: these variants are not used.", level="warning"
        )
        return {"urls": {}}
    return {"urls": urls}


def _read_image(context: JobContext, image: str) -> bytes:
    context.report_progress(0, "reading the image")
    return loader.read_image(context.job, image)


def _render_variants(context: JobContext, content: bytes, sizes: Sequence[VariantSpec]) -> dict[str, str]:
    """Make and store the variants; return their URLs by name."""
    context.report_progress(0.2, "making the variants")
    with _image_errors_as_job_failures():
        variants = make_variants(content, sizes)
    context.report_progress(0.8, "storing the variants")
    context.charge_output(sum(len(variant.content) for variant in variants))
    return {variant.name: _store_variant(context, variant) for variant in variants}


def _store_variant(context: JobContext, variant: Variant) -> str:
    context.raise_if_ending()
    storage = current_storage()
    suffix = SUFFIXES[variant.format]
    return storage.get_url(storage.put_content_addressed("images", variant.content, suffix, variant.media_type))


def _get_variant_spec(parameters: Mapping[str, Any], content: bytes) -> VariantSpec:
    """Return the size of the parameters; 100x100 without width and height. A missing side is not limited."""
    with _image_errors_as_job_failures():
        image_format = parameters.get("format") or inspect_image(content).format
    width, height = parameters.get("width"), parameters.get("height")
    if width is None and height is None:
        return replace(DEFAULT_VARIANT, format=image_format)
    max_side = MAX_VARIANT_SIDE_PIXELS
    return VariantSpec(DEFAULT_VARIANT.name, int(width or max_side), int(height or max_side), format=image_format)


@contextmanager
def _image_errors_as_job_failures() -> Iterator[None]:
    """Convert ImageRejected into JobFailed."""
    try:
        yield
    except ImageRejected as error:
        raise JobFailed(error.code, str(error)) from None
