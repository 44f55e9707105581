"""/jobs/treatments/new: the form for a new treatment, with the parameters of its task; query strings can fill it."""

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
"""Field names of the form itself; a parameter with such a name gets a prefix."""

NOTIFY_POINTER = "/data/attributes/notify-email"
SET_POINTER = DOCUMENT_SET_POINTER.removesuffix("/data")
FIELDS_BY_POINTER = {TASK_TYPE_POINTER: TASK_FIELD, SET_POINTER: DOCUMENT_SET_PARAMETER, NOTIFY_POINTER: NOTIFY_FIELD}
"""Fields of the form by the pointer of errors."""

Problems = dict[str, str]
"""Texts of errors by field name, "" for the whole form."""

MAX_TREATMENT_FORM_BYTES = 256 * 1024
"""Maximum size of the form in bytes: enough for parameters of 64 KiB, percent-encoded."""


@page_view("/treatments/new")
def show_treatment_form(caller: PageSession) -> Response:
    """Show the form, filled with the values of the query string and with errors for invalid ones."""
    sent = {name: INVALID_TEXT_RE.sub("\ufffd", value) for name, value in request.args.items()}
    return _render_form(caller, sent, _check_link(sent, job_queries.build_access(caller.viewer)))


@form_action("/treatments/new")
def create_treatment(caller: PageSession) -> Response:
    """Create a treatment as the API does; show its errors in the form."""
    sent = _read_form()
    try:
        with get_connection().begin_nested():
            treatment_id = _insert_treatment(sent, job_queries.build_access(caller.viewer))
    except (ApiError, ApiErrorGroup) as error:
        problems = _group_problems(_list_fields(sent), form_requests.list_errors(error))
        return _render_form(caller, sent, problems, HTTPStatus.UNPROCESSABLE_ENTITY)
    commit()
    return redirect_to(f"{JOBS_URL}/{treatment_id}")


create_treatment.largest_body = lambda: MAX_TREATMENT_FORM_BYTES  # type: ignore[attr-defined]  # read by app/request_bodies.py


def list_tasks() -> list[Kind]:
    """Return the kinds of the installed treatment tasks, sorted by name."""
    offered = [kind for kind in KINDS.values() if kind.runner == "external" and is_offered(kind)]
    return sorted(offered, key=lambda kind: kind.name)


def _read_form() -> FormValues:
    """Return all fields of the form; checkboxes that are not checked are not sent, and get "false"."""
    sent = {name: form_requests.get_text(name) for name in request.form}
    ticks = {
        field.input_name: str(field.input_name in sent).lower() for field in _list_fields(sent) if field.kind == "flag"
    }
    return {**sent, NOTIFY_FIELD: str(NOTIFY_FIELD in sent).lower(), **ticks}


def _get_task(sent: FormValues) -> Kind | None:
    return next((kind for kind in list_tasks() if kind.name == sent.get(TASK_FIELD)), None)


def _list_fields(sent: FormValues) -> list[FormField]:
    """Return the parameter fields of the selected task; none without a task."""
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
    """Return the field as a boolean, or its text if it is not one."""
    text = sent.get(NOTIFY_FIELD, "false")
    return BOOLEAN_VALUES.get(text.lower(), text)


def _group_problems(fields: Iterable[FormField], errors: Iterable[ApiError]) -> Problems:
    """Return the texts of the errors, joined by field."""
    texts: dict[str, list[str]] = {}
    for error in errors:
        pointer = (error.source or {}).get("pointer") or ""
        name = next((name for path, name in FIELDS_BY_POINTER.items() if pointer.startswith(path)), None)
        problems = (
            [(name, str(error))] if name else schema_form.list_field_problems(fields, [error], API_PARAMETERS_POINTER)
        )
        for field_name, text in problems:
            texts.setdefault(field_name, []).append(text)
    return {name: "; ".join(lines) for name, lines in texts.items()}


def _check_link(sent: FormValues, access: AccessContext) -> Problems:
    """Return the problems of the values in a query string; missing values are not problems."""
    problems: Problems = {}
    task, given = _get_task(sent), [field for field in _list_fields(sent) if field.input_name in sent]
    if sent.get(TASK_FIELD) and task is None:
        problems[TASK_FIELD] = "This server has no such task."
    if sent.get(DOCUMENT_SET_PARAMETER) and _get_set(sent, access) is None:
        problems[DOCUMENT_SET_PARAMETER] = "There is no such document-set here."
    if not isinstance(_parse_notify(sent), bool):
        problems[NOTIFY_FIELD] = "This must be true or false."
    try:
        parameters = schema_form.parse_values(given, sent, API_PARAMETERS_POINTER)
        if task is not None:
            task.validate_parameters({**parameters, DOCUMENT_SET_PARAMETER: 1}, API_PARAMETERS_POINTER)
    except (ApiError, ApiErrorGroup) as error:
        texts = _group_problems(given, form_requests.list_errors(error))
        problems |= {name: text for name, text in texts.items() if name}
    return problems


def _get_set(sent: FormValues, access: AccessContext) -> form_options.SetOption | None:
    id_ = parse_integer_id(sent.get(DOCUMENT_SET_PARAMETER, ""))
    return None if id_ is None else form_options.get_set_by_id(access, id_)


def _render_form(
    caller: PageSession, sent: FormValues, problems: Problems, status: HTTPStatus = HTTPStatus.OK
) -> Response:
    access = job_queries.build_access(caller.viewer)
    selected, own = _get_set(sent, access), form_options.list_own_sets(access, form_options.MAX_SETS)
    task = _get_task(sent)
    return render_page(
        "treatment_new.html",
        caller,
        status,
        tasks=[_build_task_link(kind, sent) for kind in list_tasks()],
        task=task,
        sets=own if selected is None or selected in own else [selected, *own],
        chosen=selected and selected.id,
        fields=[_build_field_data(field, sent, problems) for field in _list_fields(sent)],
        notifies=_parse_notify(sent) is True,
        problems=problems,
    )


def _build_field_data(field: FormField, sent: FormValues, problems: Problems) -> TemplateData:
    text = sent.get(field.input_name, field.default)
    return field.build_template_data(text, problems.get(field.input_name, ""))


def _build_task_link(kind: Kind, sent: FormValues) -> TemplateData:
    """Return the values of a link to the form of this task, which keeps the other fields."""
    kept = {name: sent[name] for name in (DOCUMENT_SET_PARAMETER, NOTIFY_FIELD) if sent.get(name)}
    query = urlencode({TASK_FIELD: kind.name, **kept})
    return {
        "name": kind.name,
        "title": kind.title,
        "url": f"/jobs/treatments/new?{query}",
        "is_chosen": kind.name == sent.get(TASK_FIELD),
    }
