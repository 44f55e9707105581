"""/jobs/document-sets: the caller's document sets, and a new one from a form, with pictures sent along."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from flask import Response, request
from werkzeug.datastructures import FileStorage, MultiDict

from app import quotas
from app.database import commit, connection, transaction
from app.documents.resources import DOCUMENT_SET
from app.documents.schemas import LONGEST_TITLE
from app.errors import ApiError, Errors, InvalidParameter
from app.images import sent as images
from app.images.uploads import taken_in
from app.jsonapi.body import UNSTORABLE
from app.jsonapi.documents import MOST_LINKAGES, read_new_resource
from app.jsonapi.permissions import Access
from app.jsonapi.resource_type import parse_number
from app.jsonapi.viewer import Viewer
from app.jsonapi.writing import LAYERS
from app.pages import choices, cookies, forms, reading
from app.pages.cookies import SignedIn
from app.pages.findings import NEW as TREAT
from app.pages.forms import go_to
from app.pages.pictures import picture_of
from app.pages.rendering import has_processor, rendered
from app.pages.routing import page, route
from app.pages.shown import Shown, iso
from app.uploads.intake import StoredImage, keep

LIST = "/jobs/document-sets"
MOST_FILES = 20
"""Pictures in one form."""
FILES = "file"
EMPTY = "Choose at least one event or picture, or send one."

TYPES = {"event": "events", "faq": "faqs", "upload": "uploads"}
"""What a set is made of, and the relationship that holds it."""

Problems = dict[str, str]


@dataclass
class Chosen:
    """What a form or a link says."""

    title: str = ""
    ids: dict[str, set[int]] = field(default_factory=dict)
    """By type; in no form are ids that cannot be."""
    problems: Problems = field(default_factory=dict)


@page("/document-sets")
def list_sets(caller: SignedIn) -> Response:
    """The caller's sets, the newest first."""
    older = request.args.get("older", "")
    if older and parse_number(older) is None:
        raise InvalidParameter("There is no such page.", parameter="older")
    found = choices.own_sets(reading.access_of(caller.viewer), choices.PAGE + 1, parse_number(older))
    shown, has_more = found[: choices.PAGE], len(found) > choices.PAGE
    more = f"{LIST}?{urlencode({'older': shown[-1].id})}" if has_more else ""
    return rendered("document_sets.html", caller, sets=[_set(each) for each in shown], more=more, is_older=bool(older))


@page("/document-sets/new")
def new_set(caller: SignedIn) -> Response:
    """The form, with what a link has chosen."""
    return _form(caller, _read(request.args), HTTPStatus.OK)


@route("POST", "/document-sets/new")
def create_set() -> Response:
    """A set as the API makes it; pictures that come along become uploads first, and stay that if it is refused."""
    forms.expect_files()
    with transaction(is_read=True):
        caller = cookies.signed_in()
        forms.require_ours(caller.cookie)
    forms.text("title")
    chosen = _read(request.form)
    images_taken = _taken(chosen, caller.viewer)  # outside of any transaction: this takes its time
    with transaction(is_read=False):
        chosen.ids["upload"] |= {keep(caller.viewer.id, image) for image in images_taken}
        commit()
        set_id = _created(chosen, reading.access_of(caller.viewer))
        if set_id is None:
            return _form(caller, chosen, HTTPStatus.UNPROCESSABLE_ENTITY)
        commit()
    return go_to(f"{TREAT}?{urlencode({'document-set': set_id})}" if has_processor() else LIST)


def _largest_body() -> int:
    """Whoever is not signed in may send none."""
    with transaction(is_read=True):
        viewer = cookies.signed_in().viewer
    quotas.require_room(viewer.id)
    return images.largest_body()


create_set.largest_body = _largest_body  # type: ignore[attr-defined]  # read by app/bodies.py


def _read(sent: MultiDict[str, str]) -> Chosen:
    """What was sent, without what cannot be: that is a problem."""
    chosen = Chosen(UNSTORABLE.sub("\ufffd", sent.get("title", "")))
    for name in TYPES:
        texts = [text for text in sent.getlist(name) if text]
        ids = {text: parse_number(text) for text in texts}
        chosen.ids[name] = {id_ for id_ in ids.values() if id_ is not None}
        if None in ids.values():
            chosen.problems[name] = (
                f"This is not the id of one: {next(text for text in texts if ids[text] is None)[:40]}"
            )
        elif len(chosen.ids[name]) > MOST_LINKAGES:
            chosen.problems[name] = f"At most {MOST_LINKAGES} at once, not {len(chosen.ids[name])}."
    return chosen


def _taken(chosen: Chosen, viewer: Viewer) -> list[StoredImage]:
    """The pictures that are taken, in storage by now; why the others are not is a problem."""
    sent = [each for each in request.files.getlist(FILES) if each.filename]
    if len(sent) > MOST_FILES:
        chosen.problems[FILES] = f"At most {MOST_FILES} pictures at once."
        return []
    taken, refused = [], []
    for each in sent:
        try:
            taken.append(taken_in(each.read(), viewer))
        except ApiError as error:
            refused.append(f"{_name(each)}: {error}")
    if refused:
        chosen.problems[FILES] = " ".join(refused)
    return taken


def _name(file: FileStorage) -> str:
    return UNSTORABLE.sub("\ufffd", file.filename or "")[:100]


def _created(chosen: Chosen, access: Access) -> int | None:
    """The id of the new set; None where there is a problem with what was chosen."""
    if chosen.problems:
        return None
    if not any(chosen.ids.values()):
        chosen.problems[""] = EMPTY
        return None
    try:
        with connection().begin_nested():
            row = LAYERS[DOCUMENT_SET.name].create_object(read_new_resource(_document(chosen), DOCUMENT_SET), access)
    except (ApiError, Errors) as refused:
        chosen.problems |= _problems(forms.errors_in(refused))
        return None
    return int(row.id)


def _document(chosen: Chosen) -> dict[str, Any]:
    linked = {
        relation: {"data": [{"type": name, "id": str(id_)} for id_ in sorted(chosen.ids[name])]}
        for name, relation in TYPES.items()
    }
    return {"data": {"type": DOCUMENT_SET.name, "attributes": {"title": chosen.title}, "relationships": linked}}


def _problems(errors: Iterable[ApiError]) -> Problems:
    places = {"/data/attributes/title": "title"}
    places |= {f"/data/relationships/{relation}": name for name, relation in TYPES.items()}
    found: dict[str, list[str]] = {}
    for error in errors:
        pointer = (error.source or {}).get("pointer") or ""
        name = next((name for path, name in places.items() if pointer.startswith(path)), "")
        found.setdefault(name, []).append(str(error))
    return {name: "; ".join(words) for name, words in found.items()}


def _form(caller: SignedIn, chosen: Chosen, status: HTTPStatus) -> Response:
    access = reading.access_of(caller.viewer)
    events, faqs = choices.events(access, chosen.ids["event"]), choices.faqs(access, chosen.ids["faq"])
    uploads = choices.uploads(access, chosen.ids["upload"])
    known = {"event": {each.id for each in events}, "faq": {each.id for each in faqs}}
    known["upload"] = {each.id for each in uploads}
    for name in TYPES:
        if chosen.ids[name] - known[name]:
            chosen.problems.setdefault(name, f"There is no such {name} here.")
    return rendered(
        "document_set_new.html",
        caller,
        status,
        title=chosen.title,
        longest_title=LONGEST_TITLE,
        choices={
            "event": [_named(each, chosen.ids["event"]) for each in events],
            "faq": [_named(each, chosen.ids["faq"]) for each in faqs],
        },
        uploads=[_upload(each, chosen.ids["upload"]) for each in uploads],
        problems=chosen.problems,
        most_bytes=images.largest_image(),
        most_files=MOST_FILES,
    )


def _named(each: choices.Named, ids: set[int]) -> Shown:
    return {"id": each.id, "words": each.words, "is_ticked": each.id in ids}


def _upload(each: choices.Sent, ids: set[int]) -> Shown:
    picture = picture_of(each.stored_as, each.width, each.height)
    return {**picture._asdict(), "id": each.id, "is_ticked": each.id in ids}


def _set(each: choices.Set) -> Shown:
    counts = {"event": each.events, "FAQ": each.faqs, "picture": each.uploads}
    held = [f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items() if count]
    return {
        "id": each.id,
        "title": each.title,
        "created_at": iso(each.created_at),
        "holds": ", ".join(held) or "nothing",
        "treat_url": f"{TREAT}?{urlencode({'document-set': each.id})}",
        "api_url": f"/v1/document-sets/{each.id}",
    }
