"""What a result file costs while its job is held, and names as long as they may be."""

import random
from collections.abc import Callable, Iterator
from time import thread_time
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask
from sqlalchemy import func, select, text

from app.database import commit, connection, transaction
from app.extensions import db
from app.jobs import lifecycle
from app.processors.modules import Payload, Task, Unfit
from app.treatments.models import Region, Similarity
from app.treatments.tasks import regions, similarity
from tests.jsonapi.test_indexes import Database, Statement
from tests.world import World

PLACE = {"x": 1, "y": 2.5, "width": 3, "height": 4}

Store = Callable[[Task, str, Any], None]


@pytest.fixture
def treatment_id(world: World) -> UUID:
    """A treatment, whatever it is."""
    return UUID(world.background()["treatment"])


@pytest.fixture
def store(app: Flask, treatment_id: UUID) -> Iterator[Store]:
    """Hand the content of a file to a task."""

    def store(task: Task, doc_id: str, content: Any) -> None:
        with transaction(is_read=False):
            job = lifecycle.found(treatment_id)
            assert job is not None
            task.process_results(Payload(job, doc_id, content), completed=True)
            commit()

    with app.app_context():
        yield store


def images(*sources: str) -> list[dict[str, Any]]:
    """The content of a file with one region in each."""
    return [{"source": each, "crops": [{"absolute": PLACE}]} for each in sources]


def stored(model: type[Any]) -> int:
    """How many rows there are."""
    with transaction(is_read=True):
        return int(connection().scalar(select(func.count()).select_from(model)) or 0)


def test_regions_are_replaced_without_a_look_at_those_of_other_images(
    app: Flask, store: Store, treatment_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction(is_read=False):
        many = "INSERT INTO regions (treatment_id, document, source, x, y, width, height) SELECT :id, {}, 1, 1, 1, 1"
        for names in ("n % 500, n", "'one', n"):
            numbers = " FROM generate_series(1, 20000) n"
            connection().execute(text(many.format(names) + numbers), {"id": treatment_id})
        commit()
    with db.engine.connect() as used:
        used.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE regions"))
    asked = _statements(monkeypatch)

    store(regions, "one", images("7"))

    (delete,) = [each for each in asked if each.text.startswith("DELETE")]
    pooled = db.engine.raw_connection()
    assert isinstance(pooled.driver_connection, psycopg.Connection)
    Database(pooled.driver_connection).check(delete, rows=10, blocks=50)
    pooled.invalidate()


def _statements(monkeypatch: pytest.MonkeyPatch) -> list[Statement]:
    """What the driver is asked from here on."""
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
            [{"a": f"event-image-{n}", "b": "upload-1", "score": 0.5} for n in range(similarity.MOST_PAIRS)],
            Similarity,
        ),
        (regions, [{"crops": [{"absolute": PLACE}] * (regions.MOST_REGIONS - 1)}], Region),
    ],
    ids=["similarity", "regions"],
)
def test_the_largest_file_takes_little_of_the_processor(
    store: Store, figure: Callable[[str], None], task: Task, content: list[Any], model: type[Any]
) -> None:
    before = stored(model)
    begun = thread_time()

    store(task, "all", content)

    took = thread_time() - begun
    rows = stored(model) - before
    assert rows >= 9_999
    assert took < 1.5
    figure(f"treatments: a result file of {rows:,} {model.__tablename__} is stored in {took:.1f} s of processor time")


@pytest.mark.parametrize(("longer", "fits"), [(0, True), (1, False)])
def test_names_as_long_as_they_may_be_fit_into_an_index(store: Store, longer: int, fits: bool) -> None:
    chance = random.Random(5)  # noqa: S311  # not for secrets; what repeats would be compressed

    def name(length: int) -> str:
        return "".join(chr(0x1F300 + chance.randrange(0x300)) for _ in range(length))

    files: list[tuple[Task, Any]] = [
        (regions, images(name(regions.LONGEST_NAME + longer))),
        (similarity, [{"a": name(similarity.LONGEST_NAME), "b": name(similarity.LONGEST_NAME + longer), "score": 1}]),
    ]
    for task, content in files:
        if fits:
            store(task, name(200), content)
        else:
            with pytest.raises(Unfit):
                store(task, name(200), content)
