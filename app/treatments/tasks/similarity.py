"""Say how much images are alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from sqlalchemy.dialects.postgresql import insert

from app.database import connection
from app.jobs.records import JobRow
from app.processors.modules import Document, Payload, Unfit
from app.treatments.models import Similarity

PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "model": {"type": "string", "title": "Model", "maxLength": 100, "default": "perceptual_hash"},
    "algorithm": {"type": "string", "title": "Algorithm", "maxLength": 100, "default": "default"},
}

MOST_PAIRS = 20_000
"""In one file."""
LONGEST_NAME = 500
BATCH = 1_000

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


def prepare_request(documents: Sequence[Document], job: JobRow) -> Mapping[str, Any]:
    """All documents: which of them are images the processor sees."""
    return {"documents": documents}


def process_results(payload: Payload, completed: bool) -> None:
    """Store each pair, in place of what was said of the same two before."""
    if isinstance(payload.content, list) and len(payload.content) > MOST_PAIRS:
        raise Unfit(f"It has more than {MOST_PAIRS} pairs.")
    fault = next(_FILE.iter_errors(payload.content), None)
    if fault is not None:
        raise Unfit(f"{fault.json_path}: {fault.message}"[:LONGEST_NAME])
    pairs = {tuple(sorted((item["a"], item["b"]))): item["score"] for item in payload.content}
    about = {"treatment_id": payload.job.id, "document": payload.doc_id}
    rows = [{**about, "a": a, "b": b, "score": score} for (a, b), score in sorted(pairs.items())]
    for begin in range(0, len(rows), BATCH):
        statement = insert(Similarity).values(rows[begin : begin + BATCH])
        said_last = {name: statement.excluded[name] for name in ("document", "score")}
        connection().execute(statement.on_conflict_do_update(index_elements=["treatment_id", "a", "b"], set_=said_last))
