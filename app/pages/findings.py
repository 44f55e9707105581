"""A treatment in words: how the processor is, its documents, and what was found, with regions to be drawn."""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from itertools import groupby
from urllib.parse import urlencode

from app.documents.expansion import Document
from app.jobs.kinds import KINDS
from app.jobs.models import SUCCEEDED
from app.jobs.submission import is_offered
from app.jsonapi.permissions import Access
from app.pages import treated
from app.pages.pictures import Picture, pictures
from app.pages.reading import File, Listed
from app.pages.shown import Shown, iso
from app.pages.treated import MOST_COMPARED, MOST_IMAGES, MOST_READ, MOST_REGIONS, Found, Pair, State

NEW = "/jobs/treatments/new"
NO_PICTURE = Picture("")


def remote(job: Listed, state: State, files: Iterable[File]) -> Shown:
    """How the processor is, for the page and for the script; `findings` changes when there is more to be seen."""
    is_known = state.tracking_id is not None
    unanswered = state.unanswered or 0
    return {
        "remote_status": state.status,
        "tracking_id": state.tracking_id or "",
        "heard_at": iso(state.heard_at) if is_known else "",
        "unanswered": str(unanswered) if unanswered else "",
        "findings": _mark(job, state, files),
    }


def _mark(job: Listed, state: State, files: Iterable[File]) -> str:
    known = (job.attempt, job.state == SUCCEEDED, state.documents, [(each.sha256, each.partial) for each in files])
    return sha256(repr(known).encode()).hexdigest()[:16]


def about(job: Listed, state: State) -> Shown:
    """What never changes, and where to go from here."""
    kind = KINDS.get(job.kind)
    return {
        "set": state.title,
        "api_url": "" if state.deleted_at else f"/v1/treatments/{job.id}",
        "again_url": f"{NEW}?{urlencode(_as_asked(state))}" if kind is not None and is_offered(kind) else "",
        "fragment": f"/jobs/{job.id}/findings",
    }


def _as_asked(state: State) -> dict[str, object]:
    """What a link fills the form with; secrets stand in none."""
    secrets = KINDS[state.task_type].secrets
    given = {
        name: value
        for name, value in state.parameters.items()
        if isinstance(value, str | int | float) and name not in secrets
    }
    words = {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}
    return {**words, "task-type": state.task_type, "document-set": state.document_set_id}


def findings(job: Listed, state: State, access: Access) -> Shown:
    """The documents and what was found in them, as much as a page holds."""
    documents, regions, pairs = treated.documents(job.id), treated.regions(job.id), treated.pairs(job.id)
    known = {each.uid: each for each in (*documents, *_named(job, documents, regions, pairs))}
    seen = pictures(known.values(), access)
    return {
        "documents": [_document(each, seen) for each in documents],
        "more_documents": state.documents - len(documents),
        "images": [_image(list(found), seen) for _, found in groupby(regions, lambda each: each[:2])],
        "regions": _how_many_regions(regions[0]) if regions else "",
        "more_images": max(regions[0].images - MOST_IMAGES, 0) if regions else 0,
        "pairs": [_pair(each, seen) for each in pairs],
        "more_pairs": _how_many(pairs[0].total - len(pairs), pairs[0].total) if pairs else "",
        "nothing": job.state == SUCCEEDED and not regions and not pairs,
    }


def _named(
    job: Listed, documents: Iterable[Document], regions: Iterable[Found], pairs: Iterable[Pair]
) -> list[Document]:
    """The documents in which something was found, beside those that are known."""
    named = {uid for each in regions for uid in each[:2]} | {uid for each in pairs for uid in each[:2]}
    return treated.documents_named(job.id, named - {each.uid for each in documents})


def _document(document: Document, seen: Mapping[str, Picture]) -> Shown:
    return {"uid": document.uid, "type": document.type, **seen.get(document.uid, NO_PICTURE)._asdict()}


def _image(found: list[Found], seen: Mapping[str, Picture]) -> Shown:
    """An image with its regions: the one that the processor names, else that of the document."""
    first = found[0]
    picture = seen.get(first.source) or seen.get(first.document) or NO_PICTURE
    return {
        "document": first.document,
        "source": "" if first.source == first.document else first.source,
        "count": _count(first.of_image, "region"),
        "more": max(first.of_image - MOST_REGIONS, 0),
        "regions": [_region(each) for each in found],
        **picture._asdict(),
    }


def _region(found: Found) -> Shown:
    x, y, width, height = (_number(each) for each in (found.x, found.y, found.width, found.height))
    return {"x": x, "y": y, "width": width, "height": height, "words": f"{width} × {height} at {x}, {y}"}  # noqa: RUF001 - the sign of multiplication


def _number(pixels: float) -> str:
    return f"{pixels:.2f}".rstrip("0").rstrip(".")


def _pair(pair: Pair, seen: Mapping[str, Picture]) -> Shown:
    sides = [{"uid": uid, **seen.get(uid, NO_PICTURE)._asdict()} for uid in (pair.a, pair.b)]
    return {"sides": sides, "score": f"{pair.score:.3f}"}


def _how_many_regions(first: Found) -> str:
    if first.total > MOST_READ:
        return f"more than {MOST_READ:,} regions"
    return f"{_count(first.total, 'region')} in {_count(first.images, 'image')}"


def _how_many(others: int, total: int) -> str:
    if total > MOST_COMPARED:
        return f"There are more: these are the best of the first {MOST_COMPARED:,}."
    return f"{others:,} more are less alike." if others else ""


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
