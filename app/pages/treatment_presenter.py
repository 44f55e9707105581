"""Values of a treatment for templates: status at the processor, documents, regions and similar documents."""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from itertools import groupby
from urllib.parse import urlencode

from app.documents.resolver import Document
from app.jobs.kinds import KINDS
from app.jobs.models import SUCCEEDED
from app.jobs.submission import is_offered
from app.jsonapi.permissions import AccessContext
from app.pages import treatment_queries
from app.pages.image_urls import ImageLink, find_image_links
from app.pages.job_presenter import TemplateData, format_timestamp
from app.pages.job_queries import ArtifactRow, JobListItem
from app.pages.treatment_queries import (
    MAX_IMAGES,
    MAX_REGIONS_PER_IMAGE,
    MAX_SCANNED_PAIRS,
    MAX_SCANNED_REGIONS,
    RegionRow,
    SimilarPair,
    TreatmentState,
)

NEW_TREATMENT_URL = "/jobs/treatments/new"
NO_IMAGE_LINK = ImageLink("")


def processor_status(job: JobListItem, state: TreatmentState, files: Iterable[ArtifactRow]) -> TemplateData:
    """Return the status at the processor, for page and script; `findings` is a digest that changes with the results."""
    is_known = state.tracking_id is not None
    unanswered_polls = state.unanswered_polls or 0
    return {
        "remote_status": state.status,
        "tracking_id": state.tracking_id or "",
        "last_seen_at": format_timestamp(state.last_seen_at) if is_known else "",
        "unanswered_polls": str(unanswered_polls) if unanswered_polls else "",
        "findings": _compute_findings_digest(job, state, files),
    }


def _compute_findings_digest(job: JobListItem, state: TreatmentState, files: Iterable[ArtifactRow]) -> str:
    known = (job.attempt, job.state == SUCCEEDED, state.documents, [(each.sha256, each.partial) for each in files])
    return sha256(repr(known).encode()).hexdigest()[:16]


def treatment_header(job: JobListItem, state: TreatmentState) -> TemplateData:
    """Return the constant values of the treatment, with links."""
    kind = KINDS.get(job.kind)
    return {
        "set": state.title,
        "api_url": "" if state.deleted_at else f"/v1/treatments/{job.id}",
        "again_url": f"{NEW_TREATMENT_URL}?{urlencode(_build_form_query(state))}"
        if kind is not None and is_offered(kind)
        else "",
        "fragment": f"/jobs/{job.id}/findings",
    }


def _build_form_query(state: TreatmentState) -> dict[str, object]:
    """Return the query parameters that fill the form with the same values; without secrets."""
    secrets = KINDS[state.task_type].secrets
    given = {
        name: value
        for name, value in state.parameters.items()
        if isinstance(value, str | int | float) and name not in secrets
    }
    texts = {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}
    return {**texts, "task-type": state.task_type, "document-set": state.document_set_id}


def treatment_results(job: JobListItem, state: TreatmentState, access: AccessContext) -> TemplateData:
    """Return the documents and results of a treatment, up to the limits of a page."""
    documents, regions, pairs = (
        treatment_queries.list_documents(job.id),
        treatment_queries.list_regions(job.id),
        treatment_queries.list_best_pairs(job.id),
    )
    known = {each.uid: each for each in (*documents, *_list_other_documents(job, documents, regions, pairs))}
    links = find_image_links(known.values(), access)
    return {
        "documents": [_present_document(each, links) for each in documents],
        "more_documents": state.documents - len(documents),
        "images": [_present_image(list(rows), links) for _, rows in groupby(regions, lambda each: each[:2])],
        "regions": _format_region_count(regions[0]) if regions else "",
        "more_images": max(regions[0].images - MAX_IMAGES, 0) if regions else 0,
        "pairs": [_present_pair(each, links) for each in pairs],
        "more_pairs": _format_remaining_pairs(pairs[0].total - len(pairs), pairs[0].total) if pairs else "",
        "nothing": job.state == SUCCEEDED and not regions and not pairs,
    }


def _list_other_documents(
    job: JobListItem, documents: Iterable[Document], regions: Iterable[RegionRow], pairs: Iterable[SimilarPair]
) -> list[Document]:
    """Return the documents of results that are not among `documents`."""
    named = {uid for each in regions for uid in each[:2]} | {uid for each in pairs for uid in each[:2]}
    return treatment_queries.list_documents_by_uid(job.id, named - {each.uid for each in documents})


def _present_document(document: Document, links: Mapping[str, ImageLink]) -> TemplateData:
    return {"uid": document.uid, "type": document.type, **links.get(document.uid, NO_IMAGE_LINK)._asdict()}


def _present_image(rows: list[RegionRow], links: Mapping[str, ImageLink]) -> TemplateData:
    """Return an image with its regions: the source that the processor names, else the document."""
    first = rows[0]
    link = links.get(first.source) or links.get(first.document) or NO_IMAGE_LINK
    return {
        "document": first.document,
        "source": "" if first.source == first.document else first.source,
        "count": _format_count(first.of_image, "region"),
        "more": max(first.of_image - MAX_REGIONS_PER_IMAGE, 0),
        "regions": [_present_region(each) for each in rows],
        **link._asdict(),
    }


def _present_region(region: RegionRow) -> TemplateData:
    x, y, width, height = (_format_pixels(each) for each in (region.x, region.y, region.width, region.height))
    return {"x": x, "y": y, "width": width, "height": height, "text": f"{width} × {height} at {x}, {y}"}  # noqa: RUF001 - the sign of multiplication


def _format_pixels(pixels: float) -> str:
    return f"{pixels:.2f}".rstrip("0").rstrip(".")


def _present_pair(pair: SimilarPair, links: Mapping[str, ImageLink]) -> TemplateData:
    sides = [{"uid": uid, **links.get(uid, NO_IMAGE_LINK)._asdict()} for uid in (pair.a, pair.b)]
    return {"sides": sides, "score": f"{pair.score:.3f}"}


def _format_region_count(first: RegionRow) -> str:
    if first.total > MAX_SCANNED_REGIONS:
        return f"more than {MAX_SCANNED_REGIONS:,} regions"
    return f"{_format_count(first.total, 'region')} in {_format_count(first.images, 'image')}"


def _format_remaining_pairs(others: int, total: int) -> str:
    if total > MAX_SCANNED_PAIRS:
        return f"There are more: these are the most similar of the first {MAX_SCANNED_PAIRS:,}."
    return f"{others:,} more pairs are less similar." if others else ""


def _format_count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
