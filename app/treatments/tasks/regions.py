"""Find the regions of interest in images."""

from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from sqlalchemy import ARRAY, Double, Text, Uuid, any_, bindparam, delete, insert, select

from app.database import PreparedStatement, unnest_param
from app.jobs.records import JobRow
from app.processors.task_registry import InvalidResult, Payload, RequestDocument
from app.treatments.models import Region

PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "model": {"type": "string", "title": "Model", "maxLength": 100, "default": "illustration_extraction"},
    "algorithm": {"type": "string", "title": "Algorithm", "maxLength": 100, "default": "default"},
}

MAX_REGIONS = 10_000
"""Images and regions in one result file."""
MAX_NAME_LENGTH = 300
"""Characters of an image name: with a `doc_id`, at four bytes each, they fit into an index entry."""
MAX_COORDINATE = 10_000_000
"""Pixels."""

_SOURCE = {"type": ["string", "null"], "maxLength": MAX_NAME_LENGTH}
_COORDINATE = {"type": "number", "minimum": 0, "maximum": MAX_COORDINATE}
_ABSOLUTE = {
    "type": "object",
    "properties": dict.fromkeys(("x", "y", "width", "height"), _COORDINATE),
    "required": ["x", "y", "width", "height"],
}
_CROP = {
    "type": "object",
    "properties": {"source": _SOURCE, "absolute": _ABSOLUTE},
    "required": ["absolute"],
}
_RESULT_VALIDATOR = Draft202012Validator(
    {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"source": _SOURCE, "crops": {"type": "array", "items": _CROP}},
            "required": ["crops"],
        },
    }
)

_COORDINATES = ("x", "y", "width", "height")
_VALUES = {
    "treatment_id": bindparam("treatment_id", type_=Uuid),
    "document": bindparam("document", type_=Text),
    "source": unnest_param("source", Text),
    **{name: unnest_param(name, Double) for name in _COORDINATES},
}
_regions = Region.__table__
_insert_regions = PreparedStatement(
    insert(Region).from_select([*_VALUES], select(*_VALUES.values()), include_defaults=False)
)
_delete_regions = PreparedStatement(
    delete(Region).where(
        _regions.c.treatment_id == _VALUES["treatment_id"],
        _regions.c.document == _VALUES["document"],
        _regions.c.source == any_(bindparam("sources", type_=ARRAY(Text))),
    )
)


def prepare_request(documents: Sequence[RequestDocument], job: JobRow) -> Mapping[str, Any]:
    """Return all documents; the processor selects the images."""
    return {"documents": documents}


def process_results(payload: Payload, completed: bool) -> None:
    """Store the regions of each image in the file and replace earlier ones of the image."""
    if _count_items(payload.content) > MAX_REGIONS:  # before validation, because the job is locked
        raise InvalidResult(f"A result may have at most {MAX_REGIONS} regions.")
    fault = next(_RESULT_VALIDATOR.iter_errors(payload.content), None)
    if fault is not None:
        raise InvalidResult(f"{fault.json_path}: {fault.message}")
    about = {"treatment_id": payload.job.id, "document": payload.doc_id}
    _delete_regions.run({**about, "sources": list({_get_source(payload, item) for item in payload.content})})
    crops = [crop["absolute"] for item in payload.content for crop in item["crops"]]
    sources = [_get_source(payload, item) for item in payload.content for _ in item["crops"]]
    _insert_regions.run(
        {**about, "source": sources, **{name: [float(crop[name]) for crop in crops] for name in _COORDINATES}}
    )


def _count_items(content: Any) -> int:
    """Return the number of images and regions in a result that is not validated yet."""
    items = content if isinstance(content, list) else []
    crops = [item.get("crops") for item in items if isinstance(item, dict)]
    return len(items) + sum(len(each) for each in crops if isinstance(each, list))


def _get_source(payload: Payload, item: Mapping[str, Any]) -> str:
    return item.get("source") or payload.doc_id
