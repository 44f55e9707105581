"""/jobs/treatments/new: a treatment from a form, whose fields are those of the task; links may fill it."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from flask import Response, request

from app.database import commit, get_connection
from app.errors import ApiError, ApiErrorGroup
from app.jobs.kinds import KINDS, Kind
from app.jobs.submission import is_offered
from app.jsonapi.data_layer import DATA_LAYERS
from app.jsonapi.document_parser import parse_create
from app.jsonapi.json_parsing import INVALID_TEXT_RE
from app.jsonapi.permissions import AccessContext
from app.jsonapi.resource_type import parse_integer_id
from app.pages import form_options, form_requests, job_queries, schema_form
from app.pages.cookies import PageSession
from app.pages.decorators import form_action, page_view
from app.pages.form_requests import JOBS_URL, TOKEN_FIELD, redirect_to
from app.pages.job_presenter import TemplateData
from app.pages.rendering import render_page
from app.pages.schema_form import BOOLEAN_VALUES, FormField, FormValues
from app.processors.run_start import DOCUMENT_SET_PARAMETER
from app.treatments.job_creation import API_PARAMETERS_POINTER
from app.treatments.resources import DOCUMENT_SET_POINTER, TASK_TYPE_POINTER, TREATMENT

TASK_FIELD, NOTIFY_FIELD = "task-type", "notify-email"
RESERVED_FIELDS = (TASK_FIELD, DOCUMENT_SET_PARAMETER, NOTIFY_FIELD, TOKEN_FIELD)
"""Names in the form that no parameter can have."""

NOTIFY_POINTER = "/data/attributes/notify-email"
SET_POINTER = DOCUMENT_SET_POINTER.removesuffix("/data")
FIELDS_BY_POINTER = {TASK_TYPE_POINTER: TASK_FIELD, SET_POINTER: DOCUMENT_SET_PARAMETER, NOTIFY_POINTER: NOTIFY_FIELD}
"""The field of what an error points to."""

Problems = dict[str, str]
"""What is said of which field, "" for the whole form."""

MAX_TREATMENT_FORM_BYTES = 256 * 1024
"""Bytes of the form: parameters of 64 KiB, percent-encoded."""


@page_view("/treatments/new")
def show_treatment_form(caller: PageSession) -> Response:
    """The form; what a link has filled in wrong is said at once."""
    sent = {name: INVALID_TEXT_RE.sub("\ufffd", value) for name, value in request.args.items()}
    return _render_form(caller, sent, _check_link(sent, job_queries.build_access(caller.viewer)))


@form_action("/treatments/new")
def create_treatment(caller: PageSession) -> Response:
    """A treatment as the API makes it; what it refuses is said in the form."""
    sent = _read_form()
    try:
        with get_connection().begin_nested():
            treatment_id = _insert_treatment(sent, job_queries.build_access(caller.viewer))
    except (ApiError, ApiErrorGroup) as refused:
        problems = _group_problems(_list_fields(sent), form_requests.list_errors(refused))
        return _render_form(caller, sent, problems, HTTPStatus.UNPROCESSABLE_ENTITY)
    commit()
    return redirect_to(f"{JOBS_URL}/{treatment_id}")


create_treatment.largest_body = lambda: MAX_TREATMENT_FORM_BYTES  # type: ignore[attr-defined]  # read by app/request_bodies.py


def list_tasks() -> list[Kind]:
    """The tasks that are installed, by name."""
    offered = [kind for kind in KINDS.values() if kind.runner == "external" and is_offered(kind)]
    return sorted(offered, key=lambda kind: kind.name)


def _read_form() -> FormValues:
    """All fields of the form; a box that is not ticked is not sent, and means no."""
    sent = {name: form_requests.get_text(name) for name in request.form}
    ticks = {
        field.input_name: str(field.input_name in sent).lower() for field in _list_fields(sent) if field.kind == "flag"
    }
    return {**sent, NOTIFY_FIELD: str(NOTIFY_FIELD in sent).lower(), **ticks}


def _get_task(sent: FormValues) -> Kind | None:
    return next((kind for kind in list_tasks() if kind.name == sent.get(TASK_FIELD)), None)


def _list_fields(sent: FormValues) -> list[FormField]:
    """The fields of the task, none as long as none is chosen."""
    task = _get_task(sent)
    return (
        []
        if task is None
        else schema_form.build_fields(task.parameters, reserved=RESERVED_FIELDS, but=DOCUMENT_SET_PARAMETER)
    )


def _insert_treatment(sent: FormValues, access: AccessContext) -> UUID:
    given = schema_form.parse_values(_list_fields(sent), sent, API_PARAMETERS_POINTER)
    attributes = {TASK_FIELD: sent.get(TASK_FIELD, ""), NOTIFY_FIELD: _parse_notify(sent), "api-parameters": given}
    data: dict[str, Any] = {"type": TREATMENT.name, "attributes": attributes}
    if set_id := sent.get(DOCUMENT_SET_PARAMETER, ""):
        data["relationships"] = {"document-set": {"data": {"type": "document-set", "id": set_id}}}
    row = DATA_LAYERS[TREATMENT.name].create_object(parse_create({"data": data}, TREATMENT), access)
    treatment_id: UUID = row.id
    return treatment_id


def _parse_notify(sent: FormValues) -> Any:
    """Whether a mail is wanted; a word that says neither stays as it is."""
    word = sent.get(NOTIFY_FIELD, "false")
    return BOOLEAN_VALUES.get(word.lower(), word)


def _group_problems(known: Iterable[FormField], errors: Iterable[ApiError]) -> Problems:
    """Each error at its field, those of one field together."""
    found: dict[str, list[str]] = {}
    for error in errors:
        pointer = (error.source or {}).get("pointer") or ""
        name = next((name for path, name in FIELDS_BY_POINTER.items() if pointer.startswith(path)), None)
        said = [(name, str(error))] if name else schema_form.list_field_problems(known, [error], API_PARAMETERS_POINTER)
        for at, words in said:
            found.setdefault(at, []).append(words)
    return {name: "; ".join(words) for name, words in found.items()}


def _check_link(sent: FormValues, access: AccessContext) -> Problems:
    """What cannot be among that which a link has filled in; what it has left out is for the reader."""
    problems: Problems = {}
    task, given = _get_task(sent), [field for field in _list_fields(sent) if field.input_name in sent]
    if sent.get(TASK_FIELD) and task is None:
        problems[TASK_FIELD] = "This server has no such task."
    if sent.get(DOCUMENT_SET_PARAMETER) and _get_set(sent, access) is None:
        problems[DOCUMENT_SET_PARAMETER] = "There is no such document-set here."
    if not isinstance(_parse_notify(sent), bool):
        problems[NOTIFY_FIELD] = "This is true or false."
    try:
        found = schema_form.parse_values(given, sent, API_PARAMETERS_POINTER)
        if task is not None:
            task.validate_parameters({**found, DOCUMENT_SET_PARAMETER: 1}, API_PARAMETERS_POINTER)
    except (ApiError, ApiErrorGroup) as refused:
        said = _group_problems(given, form_requests.list_errors(refused))
        problems |= {name: words for name, words in said.items() if name}
    return problems


def _get_set(sent: FormValues, access: AccessContext) -> form_options.SetOption | None:
    id_ = parse_integer_id(sent.get(DOCUMENT_SET_PARAMETER, ""))
    return None if id_ is None else form_options.get_set_by_id(access, id_)


def _render_form(
    caller: PageSession, sent: FormValues, problems: Problems, status: HTTPStatus = HTTPStatus.OK
) -> Response:
    access = job_queries.build_access(caller.viewer)
    named, known = _get_set(sent, access), form_options.list_own_sets(access, form_options.MAX_SETS)
    task = _get_task(sent)
    return render_page(
        "treatment_new.html",
        caller,
        status,
        tasks=[_build_task_link(kind, sent) for kind in list_tasks()],
        task=task,
        sets=known if named is None or named in known else [named, *known],
        chosen=named and named.id,
        fields=[_build_field_data(field, sent, problems) for field in _list_fields(sent)],
        notifies=_parse_notify(sent) is True,
        problems=problems,
    )


def _build_field_data(field: FormField, sent: FormValues, problems: Problems) -> TemplateData:
    text = sent.get(field.input_name, field.default)
    return field.build_template_data(text, problems.get(field.input_name, ""))


def _build_task_link(kind: Kind, sent: FormValues) -> TemplateData:
    """A link to the form of this task, with what else has been chosen."""
    kept = {name: sent[name] for name in (DOCUMENT_SET_PARAMETER, NOTIFY_FIELD) if sent.get(name)}
    query = urlencode({TASK_FIELD: kind.name, **kept})
    return {
        "name": kind.name,
        "title": kind.title,
        "url": f"/jobs/treatments/new?{query}",
        "is_chosen": kind.name == sent.get(TASK_FIELD),
    }
