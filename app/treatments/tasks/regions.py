"""Find the regions of interest in images."""

from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from sqlalchemy import ARRAY, Double, Text, Uuid, any_, bindparam, delete, insert, select

from app.database import Prepared, unnested
from app.jobs.records import JobRow
from app.processors.modules import Document, Payload, Unfit
from app.treatments.models import Region

PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "model": {"type": "string", "title": "Model", "maxLength": 100, "default": "illustration_extraction"},
    "algorithm": {"type": "string", "title": "Algorithm", "maxLength": 100, "default": "default"},
}

MOST_REGIONS = 10_000
"""In one file."""
LONGEST_NAME = 300
"""Characters: beside a `doc_id`, of four bytes each, they fit into an index."""
FARTHEST = 10_000_000
"""Pixels."""

_SOURCE = {"type": ["string", "null"], "maxLength": LONGEST_NAME}
_PLACE = {"type": "number", "minimum": 0, "maximum": FARTHEST}
_ABSOLUTE = {
    "type": "object",
    "properties": dict.fromkeys(("x", "y", "width", "height"), _PLACE),
    "required": ["x", "y", "width", "height"],
}
_CROP = {
    "type": "object",
    "properties": {"source": _SOURCE, "absolute": _ABSOLUTE},
    "required": ["absolute"],
}
_FILE = Draft202012Validator(
    {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"source": _SOURCE, "crops": {"type": "array", "items": _CROP}},
            "required": ["crops"],
        },
    }
)

_PLACES = ("x", "y", "width", "height")
_VALUES = {
    "treatment_id": bindparam("treatment_id", type_=Uuid),
    "document": bindparam("document", type_=Text),
    "source": unnested("source", Text),
    **{name: unnested(name, Double) for name in _PLACES},
}
_regions = Region.__table__
_store = Prepared(insert(Region).from_select([*_VALUES], select(*_VALUES.values()), include_defaults=False))
_forget = Prepared(
    delete(Region).where(
        _regions.c.treatment_id == _VALUES["treatment_id"],
        _regions.c.document == _VALUES["document"],
        _regions.c.source == any_(bindparam("sources", type_=ARRAY(Text))),
    )
)


def prepare_request(documents: Sequence[Document], job: JobRow) -> Mapping[str, Any]:
    """All documents: which of them are images the processor sees."""
    return {"documents": documents}


def process_results(payload: Payload, completed: bool) -> None:
    """Store the regions of each image in the file, in place of those stored of it before."""
    if _size(payload.content) > MOST_REGIONS:  # before each is looked at, while the job is held
        raise Unfit(f"It has more than {MOST_REGIONS} regions.")
    fault = next(_FILE.iter_errors(payload.content), None)
    if fault is not None:
        raise Unfit(f"{fault.json_path}: {fault.message}")
    about = {"treatment_id": payload.job.id, "document": payload.doc_id}
    _forget.run({**about, "sources": list({_source(payload, item) for item in payload.content})})
    crops = [crop["absolute"] for item in payload.content for crop in item["crops"]]
    sources = [_source(payload, item) for item in payload.content for _ in item["crops"]]
    _store.run({**about, "source": sources, **{name: [float(crop[name]) for crop in crops] for name in _PLACES}})


def _size(content: Any) -> int:
    """How many images and regions it may have, whatever it is."""
    items = content if isinstance(content, list) else []
    crops = [item.get("crops") for item in items if isinstance(item, dict)]
    return len(items) + sum(len(each) for each in crops if isinstance(each, list))


def _source(payload: Payload, item: Mapping[str, Any]) -> str:
    return item.get("source") or payload.doc_id
