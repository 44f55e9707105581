"""/jobs and /jobs/{id}: the list and the page of a job, for owners and admins, with cancel and retry."""

from flask import Response, render_template, request

from app.database import commit
from app.errors import BadRequest, NotFound
from app.jobs.kinds import KINDS
from app.jobs.models import TERMINAL_STATES
from app.jobs.records import JobRow
from app.jobs.resources import artifact_response, cancel_for, retry_for, submit_for
from app.jobs.submission import is_offered
from app.jsonapi.permissions import AccessContext
from app.jsonapi.resource_type import parse_uuid
from app.pages import form_requests, job_list, job_presenter, job_queries, treatment_presenter, treatment_queries
from app.pages.cookies import PageSession
from app.pages.decorators import form_action, page_view
from app.pages.form_requests import JOBS_URL, redirect_to
from app.pages.rendering import render_page
from app.pages.sse import resume_marker

SLEEP_KIND = "sleep"
"""Demo kind, which is not offered in production."""
STEPS_PER_SECOND = 2


@page_view("")
def list_jobs(caller: PageSession) -> Response:
    """List the jobs of the user, or of all users for admins."""
    filters = job_list.parse_filters(request.args)
    after = resume_marker()  # before the jobs are read, so that the stream repeats later changes
    sections = job_list.list_sections(job_queries.build_access(caller.viewer), filters)
    return render_page(
        "jobs.html",
        caller,
        filters=filters,
        sections=sections,
        kinds=job_list.list_kinds(filters),
        states=job_presenter.STATE_LABELS,
        stream=filters.url("/jobs/stream", state=""),
        after=after,
        is_empty=not any(section.jobs for section in sections),
        is_active=any(not job["can_retry"] for section in sections for job in section.jobs),
        can_sleep=SLEEP_KIND in KINDS and is_offered(KINDS[SLEEP_KIND]),
    )


@page_view("/<id>")
def show_job(caller: PageSession, id: str) -> Response:
    """Show a job with its log, attempts, files and the results of its treatment."""
    access = job_queries.build_access(caller.viewer)
    job = _require_job(access, id)
    lines, artifacts, state = (
        job_queries.list_newest_lines(job.id),
        job_queries.list_artifacts(job.id),
        treatment_queries.get_treatment_state(job.id),
    )
    detail = job_presenter.job_detail(job, job_queries.get_job_result(job.id), caller.viewer)
    return render_page(
        "job.html",
        caller,
        job={**detail, **treatment_presenter.processor_status(job, state, artifacts)} if state else detail,
        treatment=state and treatment_presenter.treatment_header(job, state),
        findings=state and treatment_presenter.treatment_results(job, state, access),
        parameters=job_presenter.format_json(job_queries.get_parameters(job.id)),
        lines=[job_presenter.log_line(each) for each in lines],
        older_lines=lines[-1].seq - 1 if lines else 0,
        attempts=[job_presenter.attempt_row(each) for each in job_queries.list_attempts(job.id)],
        files=[job_presenter.artifact_row(each, job.id) for each in artifacts],
        stream=f"/jobs/{job.id}/stream",
        after=lines[0].seq if lines else 0,
        is_active=job.state not in TERMINAL_STATES,
    )


@page_view("/<id>/findings")
def show_findings(caller: PageSession, id: str) -> Response:
    """Render the results of a treatment, which the script fetches when they have changed."""
    access = job_queries.build_access(caller.viewer)
    job = _require_job(access, id)
    state = treatment_queries.get_treatment_state(job.id)
    if state is None:
        raise NotFound("This job does not belong to a treatment.")
    html = render_template("_findings.html", findings=treatment_presenter.treatment_results(job, state, access))
    return Response(html, content_type="text/html; charset=utf-8")


@page_view("/<id>/artifacts/<artifact_id>")
def download_artifact(caller: PageSession, id: str, artifact_id: str) -> Response:
    """Send a file of the job."""
    access = job_queries.build_access(caller.viewer)
    job = _require_job(access, id)
    if parse_uuid(artifact_id) not in {each.id for each in job_queries.list_artifacts(job.id)}:
        raise NotFound("This job has no such file.")
    return artifact_response(artifact_id, access)


@form_action("")
def start_sleep_job(caller: PageSession) -> Response:
    """Submit a demo job of the kind `sleep`."""
    try:
        seconds = int(form_requests.get_text("seconds"))
    except ValueError:
        raise BadRequest("The seconds must be a whole number.") from None
    parameters = {"seconds": seconds, "steps": max(seconds * STEPS_PER_SECOND, 1)}
    submit_for(SLEEP_KIND, parameters, job_queries.build_access(caller.viewer), trigger="page")
    commit()
    return redirect_to(JOBS_URL)


@form_action("/<id>/cancel")
def cancel_job(caller: PageSession, id: str) -> Response:
    """Cancel a job and redirect to the page of the button."""
    access = job_queries.build_access(caller.viewer)
    cancel_for(_require_job_for_update(access, id), access)
    commit()
    return redirect_to(form_requests.get_next_path(form_requests.get_text("next")))


@form_action("/<id>/retry")
def retry_job(caller: PageSession, id: str) -> Response:
    """Retry a job and redirect to the new job."""
    access = job_queries.build_access(caller.viewer)
    new_job = retry_for(_require_job_for_update(access, id), access)
    commit()
    return redirect_to(f"{JOBS_URL}/{new_job.id}")


def _require_job(access: AccessContext, id_: str) -> job_queries.JobListItem:
    job = job_queries.get_job(access, id_)
    if job is None:
        raise NotFound("There is no such job.")
    return job


def _require_job_for_update(access: AccessContext, id_: str) -> JobRow:
    job = job_queries.get_job_for_update(access, id_)
    if job is None:
        raise NotFound("There is no such job.")
    return job
