"""Say how much images are alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from sqlalchemy import ARRAY, Double, Text, Uuid, bindparam, func, select
from sqlalchemy.dialects.postgresql import insert

from app.database import PreparedStatement, unnest_param
from app.jobs.records import JobRow
from app.processors.task_registry import InvalidResult, Payload, RequestDocument
from app.treatments.models import Similarity

PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "model": {"type": "string", "title": "Model", "maxLength": 100, "default": "perceptual_hash"},
    "algorithm": {"type": "string", "title": "Algorithm", "maxLength": 100, "default": "default"},
}

MAX_PAIRS = 20_000
"""Pairs in one result file."""
MAX_NAME_LENGTH = 300
"""Characters of a document name: two names, at four bytes each, fit into an index entry."""

_NAME = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_LENGTH}
_RESULT_VALIDATOR = Draft202012Validator(
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
    **{name: unnest_param(name, Text) for name in ("a", "b")},
    "score": func.unnest(bindparam("score", type_=ARRAY(Double))),
}
_insert_pairs = insert(Similarity).from_select([*_VALUES], select(*_VALUES.values()), include_defaults=False)
_upsert_pairs = PreparedStatement(
    _insert_pairs.on_conflict_do_update(
        index_elements=["treatment_id", "a", "b"],
        set_={name: _insert_pairs.excluded[name] for name in ("document", "score")},
    )
)


def prepare_request(documents: Sequence[RequestDocument], job: JobRow) -> Mapping[str, Any]:
    """Return all documents; the processor selects the images."""
    return {"documents": documents}


def process_results(payload: Payload, completed: bool) -> None:
    """Store the similarity of each pair and replace earlier ones of the same pair."""
    if isinstance(payload.content, list) and len(payload.content) > MAX_PAIRS:
        raise InvalidResult(f"A result may have at most {MAX_PAIRS} pairs.")
    fault = next(_RESULT_VALIDATOR.iter_errors(payload.content), None)
    if fault is not None:
        raise InvalidResult(f"{fault.json_path}: {fault.message}")
    pairs = {tuple(sorted((item["a"], item["b"]))): item["score"] for item in payload.content}
    rows = [(a, b, float(score)) for (a, b), score in sorted(pairs.items())]
    columns = {name: [row[index] for row in rows] for index, name in enumerate(("a", "b", "score"))}
    _upsert_pairs.run({"treatment_id": payload.job.id, "document": payload.doc_id, **columns})
