"""/jobs/document-sets: the list of a user's document sets, and the form for a new one, with images to upload."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from flask import Response, request
from werkzeug.datastructures import FileStorage, MultiDict

from app import quotas
from app.database import commit, get_connection, open_transaction
from app.documents.resources import DOCUMENT_SET
from app.documents.schemas import MAX_TITLE_LENGTH
from app.errors import ApiError, ApiErrorGroup, InvalidParameter
from app.images import request_images
from app.images.upload_view import store_upload
from app.jsonapi.current_user import CurrentUser
from app.jsonapi.data_layer import DATA_LAYERS
from app.jsonapi.document_parser import MAX_LINKAGES, parse_create
from app.jsonapi.json_parsing import INVALID_TEXT_RE
from app.jsonapi.permissions import AccessContext
from app.jsonapi.resource_type import parse_integer_id
from app.pages import cookies, form_options, form_requests, job_queries
from app.pages.cookies import PageSession
from app.pages.decorators import page_view, route
from app.pages.form_requests import redirect_to
from app.pages.image_urls import build_image_link
from app.pages.job_presenter import TemplateData, format_timestamp
from app.pages.rendering import has_processor, render_page
from app.pages.treatment_presenter import NEW_TREATMENT_URL as TREAT
from app.uploads.repository import StoredImage, upsert_upload

LIST_URL = "/jobs/document-sets"
MAX_FILES = 20
"""Maximum images in one form."""
FILE_FIELD = "file"
EMPTY_SET_ERROR = "Choose at least one event or image, or upload one."

RELATIONSHIPS_BY_TYPE = {"event": "events", "faq": "faqs", "upload": "uploads"}
"""Relationships of a document set, by the resource type of their members."""

Problems = dict[str, str]


@dataclass
class DocumentSetForm:
    """Values of the form, from the form itself or from a link."""

    title: str = ""
    ids: dict[str, set[int]] = field(default_factory=dict)
    """Ids by resource type; invalid ones are left out."""
    problems: Problems = field(default_factory=dict)


@page_view("/document-sets")
def list_sets(caller: PageSession) -> Response:
    """List the document sets of the user, newest first."""
    older = request.args.get("older", "")
    if older and parse_integer_id(older) is None:
        raise InvalidParameter("This must be the id of a document set.", parameter="older")
    sets = form_options.list_own_sets(
        job_queries.build_access(caller.viewer), form_options.PAGE_SIZE + 1, parse_integer_id(older)
    )
    page, has_more = sets[: form_options.PAGE_SIZE], len(sets) > form_options.PAGE_SIZE
    more = f"{LIST_URL}?{urlencode({'older': page[-1].id})}" if has_more else ""
    return render_page(
        "document_sets.html", caller, sets=[_build_set_row(each) for each in page], more=more, is_older=bool(older)
    )


@page_view("/document-sets/new")
def show_set_form(caller: PageSession) -> Response:
    """Show the form, filled with the values of the query string."""
    return _render_form(caller, _parse_form(request.args), HTTPStatus.OK)


@route("POST", "/document-sets/new")
def create_set() -> Response:
    """Create a document set as the API does; images become uploads first, and stay uploads if the set is rejected."""
    form_requests.parse_files_in_memory()
    with open_transaction(is_read=True):
        caller = cookies.require_page_session()
        form_requests.require_csrf(caller.cookie)
    form_requests.get_text("title")
    chosen = _parse_form(request.form)
    stored_images = _store_images(chosen, caller.viewer)  # outside of a transaction, as it takes long
    with open_transaction(is_read=False):
        chosen.ids["upload"] |= {upsert_upload(caller.viewer.id, image) for image in stored_images}
        commit()
        set_id = _insert_set(chosen, job_queries.build_access(caller.viewer))
        if set_id is None:
            return _render_form(caller, chosen, HTTPStatus.UNPROCESSABLE_ENTITY)
        commit()
    return redirect_to(f"{TREAT}?{urlencode({'document-set': set_id})}" if has_processor() else LIST_URL)


def _get_max_body_bytes() -> int:
    """Return the maximum size of the body in bytes; raise 401 without a session, 429 or 507 over a quota."""
    with open_transaction(is_read=True):
        viewer = cookies.require_page_session().viewer
    quotas.require_quota(viewer.id)
    return request_images.get_max_body_bytes()


create_set.largest_body = _get_max_body_bytes  # type: ignore[attr-defined]  # read by app/request_bodies.py


def _parse_form(sent: MultiDict[str, str]) -> DocumentSetForm:
    """Parse a form or query string; leave out invalid ids and add a problem for them."""
    chosen = DocumentSetForm(INVALID_TEXT_RE.sub("\ufffd", sent.get("title", "")))
    for name in RELATIONSHIPS_BY_TYPE:
        texts = [text for text in sent.getlist(name) if text]
        ids = {text: parse_integer_id(text) for text in texts}
        chosen.ids[name] = {id_ for id_ in ids.values() if id_ is not None}
        if None in ids.values():
            chosen.problems[name] = f"This is not a valid id: {next(text for text in texts if ids[text] is None)[:40]}"
        elif len(chosen.ids[name]) > MAX_LINKAGES:
            chosen.problems[name] = f"Choose at most {MAX_LINKAGES}, not {len(chosen.ids[name])}."
    return chosen


def _store_images(chosen: DocumentSetForm, viewer: CurrentUser) -> list[StoredImage]:
    """Store the files of the form; return the accepted images and add a problem for the others."""
    sent = [each for each in request.files.getlist(FILE_FIELD) if each.filename]
    if len(sent) > MAX_FILES:
        chosen.problems[FILE_FIELD] = f"Send at most {MAX_FILES} images at once."
        return []
    images, problems = [], []
    for each in sent:
        try:
            images.append(store_upload(each.read(), viewer))
        except ApiError as error:
            problems.append(f"{_get_printable_name(each)}: {error}")
    if problems:
        chosen.problems[FILE_FIELD] = " ".join(problems)
    return images


def _get_printable_name(file: FileStorage) -> str:
    return INVALID_TEXT_RE.sub("\ufffd", file.filename or "")[:100]


def _insert_set(chosen: DocumentSetForm, access: AccessContext) -> int | None:
    """Insert the document set and return its id; None, with problems in the form, if it is rejected."""
    if chosen.problems:
        return None
    if not any(chosen.ids.values()):
        chosen.problems[""] = EMPTY_SET_ERROR
        return None
    try:
        with get_connection().begin_nested():
            row = DATA_LAYERS[DOCUMENT_SET.name].create_object(
                parse_create(_build_document(chosen), DOCUMENT_SET), access
            )
    except (ApiError, ApiErrorGroup) as error:
        chosen.problems |= _group_problems(form_requests.list_errors(error))
        return None
    return int(row.id)


def _build_document(chosen: DocumentSetForm) -> dict[str, Any]:
    linked = {
        relation: {"data": [{"type": name, "id": str(id_)} for id_ in sorted(chosen.ids[name])]}
        for name, relation in RELATIONSHIPS_BY_TYPE.items()
    }
    return {"data": {"type": DOCUMENT_SET.name, "attributes": {"title": chosen.title}, "relationships": linked}}


def _group_problems(errors: Iterable[ApiError]) -> Problems:
    places = {"/data/attributes/title": "title"}
    places |= {f"/data/relationships/{relation}": name for name, relation in RELATIONSHIPS_BY_TYPE.items()}
    texts: dict[str, list[str]] = {}
    for error in errors:
        pointer = (error.source or {}).get("pointer") or ""
        name = next((name for path, name in places.items() if pointer.startswith(path)), "")
        texts.setdefault(name, []).append(str(error))
    return {name: "; ".join(lines) for name, lines in texts.items()}


def _render_form(caller: PageSession, chosen: DocumentSetForm, status: HTTPStatus) -> Response:
    access = job_queries.build_access(caller.viewer)
    events, faqs = (
        form_options.list_event_options(access, chosen.ids["event"]),
        form_options.list_faq_options(access, chosen.ids["faq"]),
    )
    uploads = form_options.list_upload_options(access, chosen.ids["upload"])
    known = {"event": {each.id for each in events}, "faq": {each.id for each in faqs}}
    known["upload"] = {each.id for each in uploads}
    for name in RELATIONSHIPS_BY_TYPE:
        if chosen.ids[name] - known[name]:
            chosen.problems.setdefault(name, f"There is no such {name} here.")
    return render_page(
        "document_set_new.html",
        caller,
        status,
        title=chosen.title,
        max_title_length=MAX_TITLE_LENGTH,
        choices={
            "event": [_build_option(each, chosen.ids["event"]) for each in events],
            "faq": [_build_option(each, chosen.ids["faq"]) for each in faqs],
        },
        uploads=[_build_upload_option(each, chosen.ids["upload"]) for each in uploads],
        problems=chosen.problems,
        max_bytes=request_images.get_max_image_bytes(),
        max_files=MAX_FILES,
    )


def _build_option(each: form_options.LabelledOption, ids: set[int]) -> TemplateData:
    return {"id": each.id, "label": each.label, "is_checked": each.id in ids}


def _build_upload_option(each: form_options.UploadOption, ids: set[int]) -> TemplateData:
    link = build_image_link(each.storage_key, each.width, each.height)
    return {**link._asdict(), "id": each.id, "is_checked": each.id in ids}


def _build_set_row(each: form_options.SetOption) -> TemplateData:
    counts = {"event": each.events, "FAQ": each.faqs, "image": each.uploads}
    contents = [f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items() if count]
    return {
        "id": each.id,
        "title": each.title,
        "created_at": format_timestamp(each.created_at),
        "holds": ", ".join(contents) or "empty",
        "treat_url": f"{TREAT}?{urlencode({'document-set': each.id})}",
        "api_url": f"/v1/document-sets/{each.id}",
    }
