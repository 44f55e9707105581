"""/jobs/treatments/new: a treatment from a form, whose fields are those of the task; links may fill it."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from flask import Response, request

from app.database import commit, connection
from app.errors import ApiError, Errors
from app.jobs.kinds import KINDS, Kind
from app.jobs.submission import is_offered
from app.jsonapi.body import UNSTORABLE
from app.jsonapi.documents import read_new_resource
from app.jsonapi.permissions import Access
from app.jsonapi.resource_type import parse_number
from app.jsonapi.writing import LAYERS
from app.pages import choices, fields, forms, reading
from app.pages.cookies import SignedIn
from app.pages.fields import WORDS, Field, Sent
from app.pages.forms import HOME, TOKEN, go_to
from app.pages.rendering import rendered
from app.pages.routing import command, page
from app.pages.shown import Shown
from app.processors.starting import DOCUMENT_SET
from app.treatments.launching import API_PARAMETERS
from app.treatments.resources import SET, TASK_TYPE, TREATMENT

TASK, NOTIFY = "task-type", "notify-email"
OWN = (TASK, DOCUMENT_SET, NOTIFY, TOKEN)
"""Names in the form that no parameter can have."""

NOTIFY_EMAIL = "/data/attributes/notify-email"
RELATIONSHIP = SET.removesuffix("/data")
FIELDS = {TASK_TYPE: TASK, RELATIONSHIP: DOCUMENT_SET, NOTIFY_EMAIL: NOTIFY}
"""The field of what an error points to."""

Problems = dict[str, str]
"""What is said of which field, "" for the whole form."""

MAX_TREATMENT_FORM_BYTES = 256 * 1024
"""Bytes of the form: parameters of 64 KiB, percent-encoded."""


@page("/treatments/new")
def new_treatment(caller: SignedIn) -> Response:
    """The form; what a link has filled in wrong is said at once."""
    sent = {name: UNSTORABLE.sub("\ufffd", value) for name, value in request.args.items()}
    return _form(caller, sent, _problems_of_link(sent, reading.access_of(caller.viewer)))


@command("/treatments/new")
def create_treatment(caller: SignedIn) -> Response:
    """A treatment as the API makes it; what it refuses is said in the form."""
    sent = _sent()
    try:
        with connection().begin_nested():
            treatment_id = _created(sent, reading.access_of(caller.viewer))
    except (ApiError, Errors) as refused:
        problems = _problems(_fields(sent), forms.errors_in(refused))
        return _form(caller, sent, problems, HTTPStatus.UNPROCESSABLE_ENTITY)
    commit()
    return go_to(f"{HOME}/{treatment_id}")


create_treatment.largest_body = lambda: MAX_TREATMENT_FORM_BYTES  # type: ignore[attr-defined]  # read by app/bodies.py


def tasks() -> list[Kind]:
    """The tasks that are installed, by name."""
    offered = [kind for kind in KINDS.values() if kind.runner == "external" and is_offered(kind)]
    return sorted(offered, key=lambda kind: kind.name)


def _sent() -> Sent:
    """All fields of the form; a box that is not ticked is not sent, and means no."""
    sent = {name: forms.text(name) for name in request.form}
    ticks = {field.sent_as: str(field.sent_as in sent).lower() for field in _fields(sent) if field.kind == "flag"}
    return {**sent, NOTIFY: str(NOTIFY in sent).lower(), **ticks}


def _task(sent: Sent) -> Kind | None:
    return next((kind for kind in tasks() if kind.name == sent.get(TASK)), None)


def _fields(sent: Sent) -> list[Field]:
    """The fields of the task, none as long as none is chosen."""
    task = _task(sent)
    return [] if task is None else fields.fields_of(task.parameters, reserved=OWN, but=DOCUMENT_SET)


def _created(sent: Sent, access: Access) -> UUID:
    given = fields.values(_fields(sent), sent, API_PARAMETERS)
    attributes = {TASK: sent.get(TASK, ""), NOTIFY: _flag(sent), "api-parameters": given}
    data: dict[str, Any] = {"type": TREATMENT.name, "attributes": attributes}
    if set_id := sent.get(DOCUMENT_SET, ""):
        data["relationships"] = {"document-set": {"data": {"type": "document-set", "id": set_id}}}
    row = LAYERS[TREATMENT.name].create_object(read_new_resource({"data": data}, TREATMENT), access)
    treatment_id: UUID = row.id
    return treatment_id


def _flag(sent: Sent) -> Any:
    """Whether a mail is wanted; a word that says neither stays as it is."""
    word = sent.get(NOTIFY, "false")
    return WORDS.get(word.lower(), word)


def _problems(known: Iterable[Field], errors: Iterable[ApiError]) -> Problems:
    """Each error at its field, those of one field together."""
    found: dict[str, list[str]] = {}
    for error in errors:
        pointer = (error.source or {}).get("pointer") or ""
        name = next((name for path, name in FIELDS.items() if pointer.startswith(path)), None)
        said = [(name, str(error))] if name else fields.problems(known, [error], API_PARAMETERS)
        for at, words in said:
            found.setdefault(at, []).append(words)
    return {name: "; ".join(words) for name, words in found.items()}


def _problems_of_link(sent: Sent, access: Access) -> Problems:
    """What cannot be among that which a link has filled in; what it has left out is for the reader."""
    problems: Problems = {}
    task, given = _task(sent), [field for field in _fields(sent) if field.sent_as in sent]
    if sent.get(TASK) and task is None:
        problems[TASK] = "This server has no such task."
    if sent.get(DOCUMENT_SET) and _named_set(sent, access) is None:
        problems[DOCUMENT_SET] = "There is no such document-set here."
    if not isinstance(_flag(sent), bool):
        problems[NOTIFY] = "This is true or false."
    try:
        found = fields.values(given, sent, API_PARAMETERS)
        if task is not None:
            task.check({**found, DOCUMENT_SET: 1}, API_PARAMETERS)
    except (ApiError, Errors) as refused:
        said = _problems(given, forms.errors_in(refused))
        problems |= {name: words for name, words in said.items() if name}
    return problems


def _named_set(sent: Sent, access: Access) -> choices.Set | None:
    id_ = parse_number(sent.get(DOCUMENT_SET, ""))
    return None if id_ is None else choices.named_set(access, id_)


def _form(caller: SignedIn, sent: Sent, problems: Problems, status: HTTPStatus = HTTPStatus.OK) -> Response:
    access = reading.access_of(caller.viewer)
    named, known = _named_set(sent, access), choices.own_sets(access, choices.MOST_SETS)
    task = _task(sent)
    return rendered(
        "treatment_new.html",
        caller,
        status,
        tasks=[_choice(kind, sent) for kind in tasks()],
        task=task,
        sets=known if named is None or named in known else [named, *known],
        chosen=named and named.id,
        fields=[_shown(field, sent, problems) for field in _fields(sent)],
        notifies=_flag(sent) is True,
        problems=problems,
    )


def _shown(field: Field, sent: Sent, problems: Problems) -> Shown:
    text = sent.get(field.sent_as, field.default)
    return field.shown(text, problems.get(field.sent_as, ""))


def _choice(kind: Kind, sent: Sent) -> Shown:
    """A link to the form of this task, with what else has been chosen."""
    kept = {name: sent[name] for name in (DOCUMENT_SET, NOTIFY) if sent.get(name)}
    query = urlencode({TASK: kind.name, **kept})
    return {
        "name": kind.name,
        "title": kind.title,
        "url": f"/jobs/treatments/new?{query}",
        "is_chosen": kind.name == sent.get(TASK),
    }
