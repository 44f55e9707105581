"""Cost of storing a result file while its job is locked, and names of maximum length."""

import random
from collections.abc import Callable, Iterator
from time import thread_time
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask
from sqlalchemy import func, select, text

from app.database import commit, get_connection, open_transaction
from app.extensions import db
from app.jobs import lifecycle
from app.processors.task_registry import InvalidResult, Payload, Task
from app.treatments.models import Region, Similarity
from app.treatments.tasks import regions, similarity
from tests.dataset import Dataset
from tests.jsonapi.test_indexes import Statement, StatementExplainer

PLACE = {"x": 1, "y": 2.5, "width": 3, "height": 4}

Store = Callable[[Task, str, Any], None]


@pytest.fixture
def treatment_id(dataset: Dataset) -> UUID:
    """Return the id of a treatment."""
    return UUID(dataset.get_background_ids()["treatment"])


@pytest.fixture
def store(app: Flask, treatment_id: UUID) -> Iterator[Store]:
    """Hand the content of a file to a task."""

    def store(task: Task, doc_id: str, content: Any) -> None:
        with open_transaction(is_read=False):
            job = lifecycle.get_job(treatment_id)
            assert job is not None
            task.process_results(Payload(job, doc_id, content), completed=True)
            commit()

    with app.app_context():
        yield store


def build_region_file(*sources: str) -> list[dict[str, Any]]:
    """Return the content of a result file with one region for each source."""
    return [{"source": each, "crops": [{"absolute": PLACE}]} for each in sources]


def count_rows(model: type[Any]) -> int:
    """Return the number of rows of a model."""
    with open_transaction(is_read=True):
        return int(get_connection().scalar(select(func.count()).select_from(model)) or 0)


def test_regions_are_replaced_without_a_look_at_those_of_other_images(
    app: Flask, store: Store, treatment_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_transaction(is_read=False):
        many = "INSERT INTO regions (treatment_id, document, source, x, y, width, height) SELECT :id, {}, 1, 1, 1, 1"
        for names in ("n % 500, n", "'one', n"):
            numbers = " FROM generate_series(1, 20000) n"
            get_connection().execute(text(many.format(names) + numbers), {"id": treatment_id})
        commit()
    with db.engine.connect() as used:
        used.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE regions"))
    asked = _record_statements(monkeypatch)

    store(regions, "one", build_region_file("7"))

    (delete,) = [each for each in asked if each.text.startswith("DELETE")]
    pooled = db.engine.raw_connection()
    assert isinstance(pooled.driver_connection, psycopg.Connection)
    StatementExplainer(pooled.driver_connection).check(delete, rows=10, blocks=50)
    pooled.invalidate()


def _record_statements(monkeypatch: pytest.MonkeyPatch) -> list[Statement]:
    """Record all statements from now on; return the list they are added to."""
    asked: list[Statement] = []
    execute = psycopg.Cursor.execute

    def note(cursor: Any, query: Any, params: Any = None, **more: Any) -> Any:
        asked.append(Statement(type(cursor), str(query), params))
        return execute(cursor, query, params, **more)

    monkeypatch.setattr(psycopg.Cursor, "execute", note)
    return asked


@pytest.mark.parametrize(
    ("task", "content", "model"),
    [
        (
            similarity,
            [{"a": f"event-image-{n}", "b": "upload-1", "score": 0.5} for n in range(similarity.MAX_PAIRS)],
            Similarity,
        ),
        (regions, [{"crops": [{"absolute": PLACE}] * (regions.MAX_REGIONS - 1)}], Region),
    ],
    ids=["similarity", "regions"],
)
def test_the_largest_file_takes_little_of_the_processor(
    store: Store, figure: Callable[[str], None], task: Task, content: list[Any], model: type[Any]
) -> None:
    before = count_rows(model)
    begun = thread_time()

    store(task, "all", content)

    took = thread_time() - begun
    rows = count_rows(model) - before
    assert rows >= 9_999
    assert took < 1.5
    figure(f"treatments: a result file of {rows:,} {model.__tablename__} is stored in {took:.1f} s of processor time")


@pytest.mark.parametrize(("longer", "fits"), [(0, True), (1, False)])
def test_names_as_long_as_they_may_be_fit_into_an_index(store: Store, longer: int, fits: bool) -> None:
    chance = random.Random(5)  # noqa: S311  # not for secrets; what repeats would be compressed

    def name(length: int) -> str:
        return "".join(chr(0x1F300 + chance.randrange(0x300)) for _ in range(length))

    files: list[tuple[Task, Any]] = [
        (regions, build_region_file(name(regions.MAX_NAME_LENGTH + longer))),
        (
            similarity,
            [{"a": name(similarity.MAX_NAME_LENGTH), "b": name(similarity.MAX_NAME_LENGTH + longer), "score": 1}],
        ),
    ]
    for task, content in files:
        if fits:
            store(task, name(200), content)
        else:
            with pytest.raises(InvalidResult):
                store(task, name(200), content)
