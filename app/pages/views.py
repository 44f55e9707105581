"""/jobs and /jobs/{id}: what runs, waits and has ended, for its owner and for admins; cancel and retry."""

from flask import Response, render_template, request

from app.database import commit
from app.errors import BadRequest, NotFound
from app.jobs.kinds import KINDS
from app.jobs.models import ENDED
from app.jobs.records import JobRow
from app.jobs.resources import cancel, file_of, retry, submitted
from app.jobs.submission import is_offered
from app.jsonapi.permissions import Access
from app.jsonapi.resource_type import parse_uuid
from app.pages import findings, forms, listing, reading, shown, treated
from app.pages.cookies import SignedIn
from app.pages.forms import HOME, go_to
from app.pages.rendering import rendered
from app.pages.routing import command, page
from app.pages.streams import marker

SLEEP = "sleep"
"""The kind that is there to be looked at."""
STEPS_A_SECOND = 2


@page("")
def list_jobs(caller: SignedIn) -> Response:
    """The caller's jobs, everybody's for admins."""
    filters = listing.read_filters(request.args)
    after = marker()  # before anything is read: what changes meanwhile comes again
    found = listing.sections(reading.access_of(caller.viewer), filters)
    return rendered(
        "jobs.html",
        caller,
        filters=filters,
        sections=found,
        kinds=listing.kinds(filters),
        states=shown.STATES,
        stream=filters.url("/jobs/stream", state=""),
        after=after,
        is_empty=not any(section.jobs for section in found),
        lives=any(not job["can_retry"] for section in found for job in section.jobs),
        can_sleep=SLEEP in KINDS and is_offered(KINDS[SLEEP]),
    )


@page("/<id>")
def show_job(caller: SignedIn, id: str) -> Response:
    """All there is to know of one job."""
    access = reading.access_of(caller.viewer)
    job = _found(access, id)
    lines, made, state = reading.newest_lines(job.id), reading.files(job.id), treated.state(job.id)
    words = shown.whole(job, reading.outcome(job.id), caller.viewer)
    return rendered(
        "job.html",
        caller,
        job={**words, **findings.remote(job, state, made)} if state else words,
        treatment=state and findings.about(job, state),
        findings=state and findings.findings(job, state, access),
        parameters=shown.as_json(reading.parameters(job.id)),
        lines=[shown.line(each) for each in lines],
        older_lines=lines[-1].seq - 1 if lines else 0,
        attempts=[shown.tried(each) for each in reading.tries(job.id)],
        files=[shown.file(each, job.id) for each in made],
        stream=f"/jobs/{job.id}/stream",
        after=lines[0].seq if lines else 0,
        lives=job.state not in ENDED,
    )


@page("/<id>/findings")
def show_findings(caller: SignedIn, id: str) -> Response:
    """The part of that page that a script fetches when there is more to be seen."""
    access = reading.access_of(caller.viewer)
    job = _found(access, id)
    state = treated.state(job.id)
    if state is None:
        raise NotFound("This job is no treatment.")
    html = render_template("_findings.html", findings=findings.findings(job, state, access))
    return Response(html, content_type="text/html; charset=utf-8")


@page("/<id>/artifacts/<artifact_id>")
def download(caller: SignedIn, id: str, artifact_id: str) -> Response:
    """A file that the job made."""
    access = reading.access_of(caller.viewer)
    job = _found(access, id)
    if parse_uuid(artifact_id) not in {each.id for each in reading.files(job.id)}:
        raise NotFound("This job has no such file.")
    return file_of(artifact_id, access)


@command("")
def start_sleeping(caller: SignedIn) -> Response:
    """A job to look at."""
    try:
        seconds = int(forms.text("seconds"))
    except ValueError:
        raise BadRequest("The seconds must be a whole number.") from None
    parameters = {"seconds": seconds, "steps": max(seconds * STEPS_A_SECOND, 1)}
    submitted(SLEEP, parameters, reading.access_of(caller.viewer), trigger="page")
    commit()
    return go_to(HOME)


@command("/<id>/cancel")
def cancel_job(caller: SignedIn, id: str) -> Response:
    """Ask a job to end, and look at where the button was."""
    access = reading.access_of(caller.viewer)
    cancel(_locked(access, id), access)
    commit()
    return go_to(forms.next_page(forms.text("next")))


@command("/<id>/retry")
def retry_job(caller: SignedIn, id: str) -> Response:
    """Submit the same once more, and look at that."""
    access = reading.access_of(caller.viewer)
    again = retry(_locked(access, id), access)
    commit()
    return go_to(f"{HOME}/{again.id}")


def _found(access: Access, id_: str) -> reading.Listed:
    job = reading.job(access, id_)
    if job is None:
        raise NotFound("There is no such job.")
    return job


def _locked(access: Access, id_: str) -> JobRow:
    job = reading.locked(access, id_)
    if job is None:
        raise NotFound("There is no such job.")
    return job
