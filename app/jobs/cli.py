"""Commands `manage.py jobs`, for the operator, who sees all jobs, like an admin, and owns none."""

import io
import sys
from collections.abc import Mapping
from time import monotonic
from typing import Any, NoReturn
from uuid import UUID

import click
from flask.cli import AppGroup
from sqlalchemy import select

from app.database import commit, get_connection, open_transaction
from app.errors import ApiError, ApiErrorGroup, NotFound
from app.jobs import cli_params, lifecycle, serializers, state_hooks, submission
from app.jobs.cli_output import (
    TextOutput,
    choose_output,
    format_update,
    to_one_line,
    write_details,
    write_json,
    write_table,
)
from app.jobs.cli_watch import stream_updates
from app.jobs.kinds import KINDS, Kind
from app.jobs.models import ACTIVE_STATES, ALL_STATES, CANCELED, FAILED, QUEUED, SUCCEEDED, TERMINAL_STATES
from app.jsonapi.json_parsing import INVALID_TEXT_RE
from app.jsonapi.select_plan import Item
from app.users.accounts import has_email
from app.users.models import User

EXIT_STATUSES = {SUCCEEDED: 0, FAILED: 1, CANCELED: 3}
INTERRUPT_EXIT_STATUS = 130
"""Exit status after Ctrl-C (128 + SIGINT)."""

START_TIMEOUT_SECONDS = 3.0
"""Seconds after which a job that is still queued gets a notice; a worker with a free slot starts it earlier."""

NOT_STARTED_NOTICE = "no worker has started the job yet"
DATABASE_DOWN_NOTICE = "the database does not answer; retrying"

MAX_LIST_LIMIT = 1_000


class JobCommandError(click.ClickException):
    """A command that cannot be executed: one line on stderr and exit status 2."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(to_one_line(message))


class JobsGroup(AppGroup):
    """Command group that prints usage and API errors as one line on stderr, with exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; turn its errors into JobCommandError."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # the locale may lack characters of messages
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise JobCommandError(error.format_message()) from None
        except ApiError as error:
            raise JobCommandError(_format_error(error)) from None
        except ApiErrorGroup as error:
            raise JobCommandError("; ".join(map(_format_error, error.errors))) from None


def _format_error(error: ApiError) -> str:
    """Return the detail of an error, after the name of the parameter that it is about."""
    pointer: str = (error.source or {}).get("pointer", "")
    name = pointer.removeprefix("/data/attributes").removeprefix("/parameters/").strip("/")
    return f"{name[:80]}: {error}" if name else str(error)


jobs_cli = JobsGroup("jobs", help="List, start, watch, cancel and retry jobs.")

job_argument = click.argument("name", metavar="ID")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
watch_option = click.option("--watch", "watches", is_flag=True, help="Watch the job; exit with the status of `watch`.")


@jobs_cli.command()
@json_option
def kinds(*, as_json: bool) -> None:
    """List the kinds of jobs and their parameters."""
    available = sorted((kind for kind in KINDS.values() if submission.is_offered(kind)), key=lambda kind: kind.name)
    if as_json:
        write_json([serializers.serialize_kind(kind) for kind in available])
    else:
        rows = [(kind.name, kind.title, cli_params.format_signature(kind.parameters)) for kind in available]
        write_table(("KIND", "TITLE", "PARAMETERS"), rows, wraps=True)


@jobs_cli.command()
@click.argument("kind")
@click.option(cli_params.PARAM_OPTION, "pairs", metavar="NAME=VALUE", multiple=True, help="One parameter; repeatable.")
@click.option(
    cli_params.PARAMS_OPTION,
    "document",
    metavar="JSON|@FILE|-",
    help="Parameters as a JSON object; --param takes precedence.",
)
@click.option("--owner", metavar="EMAIL", help="The user who will own the job.")
@watch_option
@json_option
def submit(
    *, kind: str, pairs: tuple[str, ...], document: str | None, owner: str | None, watches: bool, as_json: bool
) -> None:
    """Submit a job and print its id; the kind may return an existing job with the same parameters."""
    parameters = cli_params.parse_parameters(submission.get_kind(kind).parameters, document, pairs)
    with open_transaction(is_read=False):
        owner_id = None if owner is None else _find_owner_id(owner)
        job = _submit_job(kind, parameters, trigger="cli", owner_id=owner_id)
        commit()
    _print_job(job, as_json=as_json, watches=watches)


@jobs_cli.command("list")
@click.option(
    "--state", "states", type=click.Choice(ALL_STATES), multiple=True, help="Only jobs in this state; repeatable."
)
@click.option("--kind", help="Only jobs of this kind.")
@click.option("--limit", type=click.IntRange(1, MAX_LIST_LIMIT), default=20, show_default=True)
@json_option
def list_jobs(*, states: tuple[str, ...], kind: str | None, limit: int, as_json: bool) -> None:
    """List jobs, newest first."""
    if kind is not None and INVALID_TEXT_RE.search(kind):
        raise click.BadParameter("the value is not valid UTF-8", param_hint="--kind")
    with open_transaction(is_read=True):
        jobs = serializers.list_jobs(states, kind, limit)
    if not jobs and kind is not None and kind not in KINDS:
        raise click.BadParameter(f"there is no kind of job {kind[:80]!r}", param_hint="--kind")
    if as_json:
        write_json(jobs)
    else:
        titles = ("ID", "KIND", "STATE", "DONE", "BY", "CREATED", "MESSAGE")
        write_table(titles, [_format_row(job) for job in jobs])


@jobs_cli.command()
@job_argument
@json_option
def show(*, name: str, as_json: bool) -> None:
    """Show a job with its attempts, progress events and artifacts."""
    with open_transaction(is_read=True):
        job = serializers.get_job_details(_find_job_id(name))
    if as_json:
        write_json(job)
    else:
        write_details(job)


@jobs_cli.command()
@job_argument
@json_option
def watch(*, name: str, as_json: bool) -> None:
    """Watch a job until it ends; exit with 0 if it succeeds, 1 if it fails, 3 if it is canceled."""
    with open_transaction(is_read=True):
        job_id = _find_job_id(name)
    _watch_job(job_id, as_json=as_json)


@jobs_cli.command()
@job_argument
@json_option
def cancel(*, name: str, as_json: bool) -> None:
    """Cancel a job; running work ends at its next progress report."""
    with open_transaction(is_read=False):
        job_id = _find_job_id(name)
        is_changed = state_hooks.cancel_job(job_id) is not None
        job = serializers.get_job(job_id)
        commit()
    if job["state"] in TERMINAL_STATES and not is_changed:
        raise JobCommandError(f"only active jobs can be canceled; this job is {job['state']}")
    if as_json:
        write_json(job)
    else:
        click.echo(f"{job['id']} {job['state']}")


@jobs_cli.command()
@job_argument
@watch_option
@json_option
def retry(*, name: str, watches: bool, as_json: bool) -> None:
    """Submit a job that has ended once more and print the id of the new job."""
    with open_transaction(is_read=False):
        old = serializers.get_job(_find_job_id(name))
        if old["state"] in ACTIVE_STATES:
            raise JobCommandError(f"only jobs that have ended can be retried; this job is {old['state']}")
        job = _retry_job(UUID(old["id"]))
        commit()
    _print_job(job, as_json=as_json, watches=watches)


def _retry_job(job_id: UUID) -> Item:
    old = lifecycle.get_job_for_update(job_id)
    if old is None:
        raise JobCommandError("the job has just been deleted")
    if (new := state_hooks.retry_by_kind(old)) is not None:
        return serializers.get_job(new.id)
    return _submit_job(old.kind, old.parameters, trigger="retry", owner_id=old.owner_id, retry_of_id=old.id)


def _find_job_id(name: str) -> UUID:
    try:
        job_id: UUID = serializers.find_id("job", name)
    except NotFound:
        raise click.BadParameter(f"there is no job {name[:80]!r}", param_hint="ID") from None
    return job_id


def _find_owner_id(email: str) -> int:
    """Return the id of the user with this e-mail address; raise BadParameter if there is none."""
    statement = select(User.id).where(User.deleted_at.is_(None), has_email(email))
    user_id: int | None = None if INVALID_TEXT_RE.search(email) else get_connection().scalar(statement)
    if user_id is None:
        raise click.BadParameter("there is no user with this e-mail address", param_hint="--owner")
    return user_id


def _submit_job(kind_name: str, parameters: Mapping[str, Any], **more: Any) -> Item:
    """Submit a job, without a commit, and return it."""
    return serializers.get_job(submission.submit_job(kind_name, parameters, authorize=_require_event, **more).job.id)


def _require_event(kind: Kind, parameters: Mapping[str, Any]) -> None:
    """Raise if the kind cannot be submitted directly or its event does not exist; operators need no permission."""
    kind.require_directly_submittable(None)
    if kind.belongs_to_event and "event" in parameters:
        try:
            serializers.find_id("event", str(parameters["event"]))
        except NotFound:
            raise JobCommandError(f"event: there is no event {parameters['event']}, or it is deleted") from None


def _print_job(job: Item, *, as_json: bool, watches: bool) -> None:
    if as_json:
        write_json(job)
    else:
        click.echo(job["id"])
    if watches:
        _watch_job(UUID(job["id"]), as_json=as_json)


def _format_row(job: Item) -> tuple[object, ...]:
    progress = None if job["progress"] is None else f"{job['progress']:.0%}"
    created = job["created-at"].astimezone().strftime("%b %d %H:%M")
    ahead = None if job["queue-position"] is None else f"{job['queue-position']} ahead"
    return job["id"], job["kind"], job["state"], progress, job["trigger"], created, ahead or job["message"]


def _watch_job(job_id: UUID, *, as_json: bool) -> NoReturn:
    """Print the progress of a job and exit with the status of its end; Ctrl-C does not stop the job."""
    output = choose_output(as_json=as_json)
    try:
        with output:
            state = _show_updates(job_id, output)
    except KeyboardInterrupt:
        last = f"{format_update(output.last_update)}; " if output.last_update else ""
        click.echo(f"{last}the job continues; `manage.py jobs watch {job_id}` watches it again", err=True)
        sys.exit(INTERRUPT_EXIT_STATUS)
    sys.exit(EXIT_STATUSES[state])


def _show_updates(job_id: UUID, output: TextOutput) -> str:
    """Print the progress of a job until it ends; return its final state."""
    state, queued_since = QUEUED, monotonic()
    for update in stream_updates(job_id):
        if update is None:
            output.show_notice(DATABASE_DOWN_NOTICE)
            continue
        output.show_update(update)
        state = update.event.state
        if state != QUEUED:
            queued_since = monotonic()
        elif monotonic() - queued_since >= START_TIMEOUT_SECONDS:
            output.show_notice(NOT_STARTED_NOTICE)
    return state
