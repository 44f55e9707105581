"""/jobs/document-sets: the caller's document sets, and a new one from a form, with pictures sent along."""

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
from app.images import request_images as images
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
"""Pictures in one form."""
FILE_FIELD = "file"
EMPTY_SET_ERROR = "Choose at least one event or picture, or send one."

RELATIONSHIPS_BY_TYPE = {"event": "events", "faq": "faqs", "upload": "uploads"}
"""What a set is made of, and the relationship that holds it."""

Problems = dict[str, str]


@dataclass
class DocumentSetForm:
    """What a form or a link says."""

    title: str = ""
    ids: dict[str, set[int]] = field(default_factory=dict)
    """By type; in no form are ids that cannot be."""
    problems: Problems = field(default_factory=dict)


@page_view("/document-sets")
def list_sets(caller: PageSession) -> Response:
    """The caller's sets, the newest first."""
    older = request.args.get("older", "")
    if older and parse_integer_id(older) is None:
        raise InvalidParameter("There is no such page.", parameter="older")
    found = form_options.list_own_sets(
        job_queries.build_access(caller.viewer), form_options.PAGE_SIZE + 1, parse_integer_id(older)
    )
    shown, has_more = found[: form_options.PAGE_SIZE], len(found) > form_options.PAGE_SIZE
    more = f"{LIST_URL}?{urlencode({'older': shown[-1].id})}" if has_more else ""
    return render_page(
        "document_sets.html", caller, sets=[_build_set_row(each) for each in shown], more=more, is_older=bool(older)
    )


@page_view("/document-sets/new")
def show_set_form(caller: PageSession) -> Response:
    """The form, with what a link has chosen."""
    return _render_form(caller, _parse_form(request.args), HTTPStatus.OK)


@route("POST", "/document-sets/new")
def create_set() -> Response:
    """A set as the API makes it; pictures that come along become uploads first, and stay that if it is refused."""
    form_requests.parse_files_in_memory()
    with open_transaction(is_read=True):
        caller = cookies.require_page_session()
        form_requests.require_csrf(caller.cookie)
    form_requests.get_text("title")
    chosen = _parse_form(request.form)
    images_taken = _store_images(chosen, caller.viewer)  # outside of any transaction: this takes its time
    with open_transaction(is_read=False):
        chosen.ids["upload"] |= {upsert_upload(caller.viewer.id, image) for image in images_taken}
        commit()
        set_id = _insert_set(chosen, job_queries.build_access(caller.viewer))
        if set_id is None:
            return _render_form(caller, chosen, HTTPStatus.UNPROCESSABLE_ENTITY)
        commit()
    return redirect_to(f"{TREAT}?{urlencode({'document-set': set_id})}" if has_processor() else LIST_URL)


def _get_max_body_bytes() -> int:
    """Whoever is not signed in may send none."""
    with open_transaction(is_read=True):
        viewer = cookies.require_page_session().viewer
    quotas.require_quota(viewer.id)
    return images.get_max_body_bytes()


create_set.largest_body = _get_max_body_bytes  # type: ignore[attr-defined]  # read by app/request_bodies.py


def _parse_form(sent: MultiDict[str, str]) -> DocumentSetForm:
    """What was sent, without what cannot be: that is a problem."""
    chosen = DocumentSetForm(INVALID_TEXT_RE.sub("\ufffd", sent.get("title", "")))
    for name in RELATIONSHIPS_BY_TYPE:
        texts = [text for text in sent.getlist(name) if text]
        ids = {text: parse_integer_id(text) for text in texts}
        chosen.ids[name] = {id_ for id_ in ids.values() if id_ is not None}
        if None in ids.values():
            chosen.problems[name] = (
                f"This is not the id of one: {next(text for text in texts if ids[text] is None)[:40]}"
            )
        elif len(chosen.ids[name]) > MAX_LINKAGES:
            chosen.problems[name] = f"At most {MAX_LINKAGES} at once, not {len(chosen.ids[name])}."
    return chosen


def _store_images(chosen: DocumentSetForm, viewer: CurrentUser) -> list[StoredImage]:
    """The pictures that are taken, in storage by now; why the others are not is a problem."""
    sent = [each for each in request.files.getlist(FILE_FIELD) if each.filename]
    if len(sent) > MAX_FILES:
        chosen.problems[FILE_FIELD] = f"At most {MAX_FILES} pictures at once."
        return []
    taken, refused = [], []
    for each in sent:
        try:
            taken.append(store_upload(each.read(), viewer))
        except ApiError as error:
            refused.append(f"{_get_printable_name(each)}: {error}")
    if refused:
        chosen.problems[FILE_FIELD] = " ".join(refused)
    return taken


def _get_printable_name(file: FileStorage) -> str:
    return INVALID_TEXT_RE.sub("\ufffd", file.filename or "")[:100]


def _insert_set(chosen: DocumentSetForm, access: AccessContext) -> int | None:
    """The id of the new set; None where there is a problem with what was chosen."""
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
    except (ApiError, ApiErrorGroup) as refused:
        chosen.problems |= _group_problems(form_requests.list_errors(refused))
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
    found: dict[str, list[str]] = {}
    for error in errors:
        pointer = (error.source or {}).get("pointer") or ""
        name = next((name for path, name in places.items() if pointer.startswith(path)), "")
        found.setdefault(name, []).append(str(error))
    return {name: "; ".join(words) for name, words in found.items()}


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
        longest_title=MAX_TITLE_LENGTH,
        choices={
            "event": [_build_option(each, chosen.ids["event"]) for each in events],
            "faq": [_build_option(each, chosen.ids["faq"]) for each in faqs],
        },
        uploads=[_build_upload_option(each, chosen.ids["upload"]) for each in uploads],
        problems=chosen.problems,
        most_bytes=images.get_max_image_bytes(),
        most_files=MAX_FILES,
    )


def _build_option(each: form_options.LabelledOption, ids: set[int]) -> TemplateData:
    return {"id": each.id, "words": each.label, "is_ticked": each.id in ids}


def _build_upload_option(each: form_options.UploadOption, ids: set[int]) -> TemplateData:
    picture = build_image_link(each.storage_key, each.width, each.height)
    return {**picture._asdict(), "id": each.id, "is_ticked": each.id in ids}


def _build_set_row(each: form_options.SetOption) -> TemplateData:
    counts = {"event": each.events, "FAQ": each.faqs, "picture": each.uploads}
    held = [f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items() if count]
    return {
        "id": each.id,
        "title": each.title,
        "created_at": format_timestamp(each.created_at),
        "holds": ", ".join(held) or "nothing",
        "treat_url": f"{TREAT}?{urlencode({'document-set': each.id})}",
        "api_url": f"/v1/document-sets/{each.id}",
    }
