"""Mail to the requester of a treatment when it has ended."""

from textwrap import fill
from uuid import UUID

from flask import current_app
from sqlalchemy import select

from app import mail, outbox
from app.database import get_connection
from app.extensions import db
from app.jobs.models import CANCELED, FAILED, SUCCEEDED, Job
from app.jobs.records import JobRow
from app.outbox import OutboxEntry, consumer_task
from app.processes.worker_nodes import MAILS_QUEUE
from app.treatments.models import Treatment
from app.users.emails import to_ascii_email
from app.users.models import User

MAIL_CONSUMER = "treatments.mail"

OUTCOMES = {SUCCEEDED: "has succeeded", FAILED: "has failed", CANCELED: "was canceled"}

BODY_TEMPLATE = """\
The treatment ({task}) that you requested {end}.
{why}
{url}
"""


def enqueue_mail(job: JobRow) -> None:
    """Enqueue the mail, when `notify-email` is set, in the transaction that ends the job."""
    statement = select(Treatment.id).where(Treatment.id == job.id, Treatment.notify_email.is_(True))
    if get_connection().scalar(statement) is not None:
        outbox.enqueue_entry(MAIL_CONSUMER, f"treatment.{job.state}", {"id": str(job.id)})


@consumer_task(MAIL_CONSUMER, queue=MAILS_QUEUE)
def send_mail(entry: OutboxEntry) -> None:
    """Mail the outcome of a treatment to its requester, unless they are blocked or deleted."""
    row = db.session.execute(
        select(Job, User)
        .join_from(Treatment, Job, Job.id == Treatment.id)
        .join(User, Treatment.requested_by)
        .where(Treatment.id == UUID(entry.payload["id"]))
    ).one_or_none()
    if row is None:
        return
    job, user = row
    if user.deleted_at is None and not user.is_blocked:
        mail.send_message(
            mail.build_message(
                id=entry.id,
                created_at=entry.created_at,
                to=to_ascii_email(user.email),
                subject=f"Treatment {OUTCOMES[job.state]}: {job.kind}",
                body=_build_body(job),
                resource_type="treatment",
                resource_id=job.id,
            ),
            kind=entry.consumer,
            is_limited=not user.is_verified,
        )


def _build_body(job: Job) -> str:
    """Return the text of the mail, in ASCII: the outcome of the job and the detail of its error."""
    detail = (job.error or {}).get("detail", "")
    why = f"\n{fill(ascii(detail)[1:-1], 76)}\n" if detail else ""
    url = f"{current_app.config['PUBLIC_URL']}/jobs/{job.id}"
    return BODY_TEMPLATE.format(task=job.kind, end=OUTCOMES[job.state], why=why, url=url)
