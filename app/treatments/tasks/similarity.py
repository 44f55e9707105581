"""Say how much images are alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from sqlalchemy import ARRAY, Double, Text, Uuid, bindparam, func, select
from sqlalchemy.dialects.postgresql import insert

from app.database import Prepared, unnested
from app.jobs.records import JobRow
from app.processors.modules import Document, Payload, Unfit
from app.treatments.models import Similarity

PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "model": {"type": "string", "title": "Model", "maxLength": 100, "default": "perceptual_hash"},
    "algorithm": {"type": "string", "title": "Algorithm", "maxLength": 100, "default": "default"},
}

MOST_PAIRS = 20_000
"""In one file."""
LONGEST_NAME = 300
"""Characters: two of four bytes each fit into an index."""

_NAME = {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}
_FILE = Draft202012Validator(
    {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"a": _NAME, "b": _NAME, "score": {"type": "number", "minimum": 0, "maximum": 1}},
            "required": ["a", "b", "score"],
        },
    }
)

_VALUES = {
    "treatment_id": bindparam("treatment_id", type_=Uuid),
    "document": bindparam("document", type_=Text),
    **{name: unnested(name, Text) for name in ("a", "b")},
    "score": func.unnest(bindparam("score", type_=ARRAY(Double))),
}
_pairs = insert(Similarity).from_select([*_VALUES], select(*_VALUES.values()), include_defaults=False)
_store = Prepared(
    _pairs.on_conflict_do_update(
        index_elements=["treatment_id", "a", "b"],
        set_={name: _pairs.excluded[name] for name in ("document", "score")},
    )
)


def prepare_request(documents: Sequence[Document], job: JobRow) -> Mapping[str, Any]:
    """All documents: which of them are images the processor sees."""
    return {"documents": documents}


def process_results(payload: Payload, completed: bool) -> None:
    """Store each pair, in place of what was said of the same two before."""
    if isinstance(payload.content, list) and len(payload.content) > MOST_PAIRS:
        raise Unfit(f"It has more than {MOST_PAIRS} pairs.")
    fault = next(_FILE.iter_errors(payload.content), None)
    if fault is not None:
        raise Unfit(f"{fault.json_path}: {fault.message}")
    pairs = {tuple(sorted((item["a"], item["b"]))): item["score"] for item in payload.content}
    rows = [(a, b, float(score)) for (a, b), score in sorted(pairs.items())]
    columns = {name: [row[index] for row in rows] for index, name in enumerate(("a", "b", "score"))}
    _store.run({"treatment_id": payload.job.id, "document": payload.doc_id, **columns})
