"""Queries of the page of a treatment: its run at the processor, its documents, regions and similar documents."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, and_, any_, bindparam, func, select

from app.database import PreparedStatement
from app.documents.models import DocumentSet
from app.documents.resolver import Document
from app.jobs.models import Job
from app.processors.models import JobDocument, RemoteRun
from app.treatments.models import Region, Similarity, Treatment
from app.treatments.status import is_current_run, status_column, tracking_id_column

MAX_DOCUMENTS = 50
"""Maximum documents on the page; the others are counted."""
MAX_IMAGES = 50
"""Maximum images with regions on the page."""
MAX_REGIONS_PER_IMAGE = 200
"""Maximum regions of one image on the page."""
MAX_PAIRS = 50
MAX_SCANNED_REGIONS = 50_000
"""Maximum regions that a query reads, to limit its time."""
MAX_SCANNED_PAIRS = 500_000
"""Maximum pairs that a query reads: all pairs of 1,000 documents."""

_treatments, _sets = Treatment.__table__, DocumentSet.__table__
_jobs, _runs = Job.__table__, RemoteRun.__table__
_documents, _regions, _pairs = JobDocument.__table__, Region.__table__, Similarity.__table__
_ID = bindparam("id", type_=Uuid)


class TreatmentState(NamedTuple):
    """A treatment and its run at the processor."""

    task_type: str
    parameters: dict[str, Any]
    document_set_id: int
    title: str
    """Title of the document set."""
    deleted_at: datetime | None
    status: str
    tracking_id: str | None
    last_seen_at: datetime | None
    unanswered_polls: int | None
    documents: int


class RegionRow(NamedTuple):
    """A region, with the numbers of regions in its image, of all regions, and of images with regions."""

    document: str
    source: str
    x: float
    y: float
    width: float
    height: float
    of_image: int
    total: int
    images: int


class SimilarPair(NamedTuple):
    """Two similar documents, with the total number of pairs."""

    a: str
    b: str
    score: float
    total: int


_is_of_job = _documents.c.job_id == _treatments.c.id
_select_state = PreparedStatement(
    select(
        _treatments.c.task_type,
        _treatments.c.api_parameters,
        _treatments.c.document_set_id,
        _sets.c.title,
        _treatments.c.deleted_at,
        status_column(_treatments),
        tracking_id_column(_treatments),
        _runs.c.last_seen_at,
        _runs.c.unanswered_polls,
        select(func.count()).select_from(_documents).where(_is_of_job).correlate(_treatments).scalar_subquery(),
    )
    .select_from(
        _treatments.join(_jobs, _jobs.c.id == _treatments.c.id)
        .join(_sets, _sets.c.id == _treatments.c.document_set_id)
        .outerjoin(_runs, is_current_run(_jobs, _runs))
    )
    .where(_treatments.c.id == _ID)
)

_select_documents = select(*(_documents.c[name] for name in Document._fields)).where(_documents.c.job_id == _ID)
_select_first_documents = PreparedStatement(_select_documents.order_by(_documents.c.position).limit(MAX_DOCUMENTS))
_select_documents_by_uid = PreparedStatement(
    _select_documents.where(_documents.c.uid == any_(bindparam("uids", type_=ARRAY(Text))))
)

_select_regions = (
    select(_regions).where(_regions.c.treatment_id == _ID).order_by(_regions.c.id).limit(MAX_SCANNED_REGIONS + 1)
)
_region_rows = _select_regions.subquery()
_image_key = (_region_rows.c.document, _region_rows.c.source)
_region_numbers = (
    select(
        _region_rows,
        func.row_number().over(partition_by=_image_key, order_by=_region_rows.c.id).label("number"),
        func.count().over(partition_by=_image_key).label("of_image"),
        func.count().over().label("total"),
        # In the order of the documents; regions of unknown documents come last.
        func.dense_rank().over(order_by=(_documents.c.position.nulls_last(), *_image_key)).label("place"),
    )
    .select_from(
        _region_rows.outerjoin(
            _documents, and_(_documents.c.job_id == _ID, _documents.c.uid == _region_rows.c.document)
        )
    )
    .subquery()
)
_region_counts = select(_region_numbers, func.max(_region_numbers.c.place).over().label("images")).subquery()
_select_first_regions = PreparedStatement(
    select(*(_region_counts.c[name] for name in RegionRow._fields))
    .where(_region_counts.c.number <= MAX_REGIONS_PER_IMAGE, _region_counts.c.place <= MAX_IMAGES)
    .order_by(_region_counts.c.place, _region_counts.c.number)
)

_pair_rows = (
    select(_pairs)
    .where(_pairs.c.treatment_id == _ID)
    .order_by(_pairs.c.id)
    .limit(MAX_SCANNED_PAIRS + 1)
    .subquery("pairs")
)
_select_best_pairs = PreparedStatement(
    select(_pair_rows.c.a, _pair_rows.c.b, _pair_rows.c.score, func.count().over())
    .order_by(_pair_rows.c.score.desc(), _pair_rows.c.id)
    .limit(MAX_PAIRS)
)


def get_treatment_state(job_id: UUID) -> TreatmentState | None:
    """Return the state of a treatment; None for a job without one."""
    return next((TreatmentState(*row) for row in _select_state.fetch_rows({"id": job_id})), None)


def list_documents(job_id: UUID) -> list[Document]:
    """Return the first MAX_DOCUMENTS documents, as they were sent to the processor."""
    return [Document(*row) for row in _select_first_documents.fetch_rows({"id": job_id})]


def list_documents_by_uid(job_id: UUID, uids: Iterable[str]) -> list[Document]:
    """Return the documents with these uids."""
    return [Document(*row) for row in _select_documents_by_uid.fetch_rows({"id": job_id, "uids": sorted(uids)})]


def list_regions(job_id: UUID) -> list[RegionRow]:
    """Return the first regions of the first images, grouped by image."""
    return [RegionRow(*row) for row in _select_first_regions.fetch_rows({"id": job_id})]


def list_best_pairs(job_id: UUID) -> list[SimilarPair]:
    """Return the MAX_PAIRS pairs with the highest scores, highest first."""
    return [SimilarPair(*row) for row in _select_best_pairs.fetch_rows({"id": job_id})]
