"""What the page of a treatment reads: how the processor is, the documents, and what was found in them so far."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, and_, any_, bindparam, func, select

from app.database import Prepared
from app.documents.expansion import Document
from app.documents.models import DocumentSet
from app.jobs.models import Job
from app.processors.models import JobDocument, RemoteRun
from app.treatments.models import Region, Similarity, Treatment
from app.treatments.status import of_now, status, tracking_id

MOST_DOCUMENTS = 50
"""Of those that are shown; the others are counted."""
MOST_IMAGES = 50
"""With regions."""
MOST_REGIONS = 200
"""In one image."""
MOST_PAIRS = 50
MOST_READ = 50_000
"""Regions that are looked through for those that are shown: no page reads for seconds."""
MOST_COMPARED = 500_000
"""The same for pairs: all those of a thousand documents."""

_treatments, _sets = Treatment.__table__, DocumentSet.__table__
_jobs, _runs = Job.__table__, RemoteRun.__table__
_documents, _regions, _pairs = JobDocument.__table__, Region.__table__, Similarity.__table__
_ID = bindparam("id", type_=Uuid)


class State(NamedTuple):
    """A treatment, and what is known of its run at the processor."""

    task_type: str
    parameters: dict[str, Any]
    document_set_id: int
    title: str
    """Of the set."""
    deleted_at: datetime | None
    status: str
    tracking_id: str | None
    heard_at: datetime | None
    unanswered: int | None
    documents: int


class Found(NamedTuple):
    """A region, with how many there are in its image, in all images, and how many images."""

    document: str
    source: str
    x: float
    y: float
    width: float
    height: float
    of_image: int
    total: int
    images: int


class Pair(NamedTuple):
    """Two documents that are alike, with how many such pairs there are."""

    a: str
    b: str
    score: float
    total: int


_of_job = _documents.c.job_id == _treatments.c.id
_state = Prepared(
    select(
        _treatments.c.task_type,
        _treatments.c.api_parameters,
        _treatments.c.document_set_id,
        _sets.c.title,
        _treatments.c.deleted_at,
        status(_treatments),
        tracking_id(_treatments),
        _runs.c.heard_at,
        _runs.c.unanswered,
        select(func.count()).select_from(_documents).where(_of_job).correlate(_treatments).scalar_subquery(),
    )
    .select_from(
        _treatments.join(_jobs, _jobs.c.id == _treatments.c.id)
        .join(_sets, _sets.c.id == _treatments.c.document_set_id)
        .outerjoin(_runs, of_now(_jobs, _runs))
    )
    .where(_treatments.c.id == _ID)
)

_some_documents = select(*(_documents.c[name] for name in Document._fields)).where(_documents.c.job_id == _ID)
_first_documents = Prepared(_some_documents.order_by(_documents.c.position).limit(MOST_DOCUMENTS))
_named_documents = Prepared(_some_documents.where(_documents.c.uid == any_(bindparam("uids", type_=ARRAY(Text)))))

_read_regions = select(_regions).where(_regions.c.treatment_id == _ID).order_by(_regions.c.id).limit(MOST_READ + 1)
_read = _read_regions.subquery()
_image = (_read.c.document, _read.c.source)
_numbered = (
    select(
        _read,
        func.row_number().over(partition_by=_image, order_by=_read.c.id).label("number"),
        func.count().over(partition_by=_image).label("of_image"),
        func.count().over().label("total"),
        # As the documents come; what is no document of ours comes last.
        func.dense_rank().over(order_by=(_documents.c.position.nulls_last(), *_image)).label("place"),
    )
    .select_from(_read.outerjoin(_documents, and_(_documents.c.job_id == _ID, _documents.c.uid == _read.c.document)))
    .subquery()
)
_counted = select(_numbered, func.max(_numbered.c.place).over().label("images")).subquery()
_found = Prepared(
    select(*(_counted.c[name] for name in Found._fields))
    .where(_counted.c.number <= MOST_REGIONS, _counted.c.place <= MOST_IMAGES)
    .order_by(_counted.c.place, _counted.c.number)
)

_read_pairs = (
    select(_pairs).where(_pairs.c.treatment_id == _ID).order_by(_pairs.c.id).limit(MOST_COMPARED + 1).subquery("pairs")
)
_best = Prepared(
    select(_read_pairs.c.a, _read_pairs.c.b, _read_pairs.c.score, func.count().over())
    .order_by(_read_pairs.c.score.desc(), _read_pairs.c.id)
    .limit(MOST_PAIRS)
)


def state(job_id: UUID) -> State | None:
    """How a treatment is now; None for a job that belongs to none."""
    return next((State(*row) for row in _state.rows({"id": job_id})), None)


def documents(job_id: UUID) -> list[Document]:
    """The first documents, as the processor was told of them."""
    return [Document(*row) for row in _first_documents.rows({"id": job_id})]


def documents_named(job_id: UUID, uids: Iterable[str]) -> list[Document]:
    """Those of the documents that have these uids."""
    return [Document(*row) for row in _named_documents.rows({"id": job_id, "uids": sorted(uids)})]


def regions(job_id: UUID) -> list[Found]:
    """The first regions of the first images, image by image."""
    return [Found(*row) for row in _found.rows({"id": job_id})]


def pairs(job_id: UUID) -> list[Pair]:
    """The pairs that are most alike, those first."""
    return [Pair(*row) for row in _best.rows({"id": job_id})]
