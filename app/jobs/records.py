"""Row type of jobs that are read with prepared statements."""

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID


class JobRow(NamedTuple):
    """A row of `jobs`: the columns of `models.Job`, in their order (a test compares them)."""

    id: UUID
    kind: str
    parameters: dict[str, Any]
    state: str
    progress: float | None
    message: str | None
    attempt: int
    max_attempts: int
    trigger: str
    fingerprint: bytes | None
    rerun_requested: bool
    error: dict[str, Any] | None
    result: dict[str, Any] | None
    last_seq: int
    owner_id: int | None
    event_id: int | None
    retry_of_id: UUID | None
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    heartbeat_at: datetime | None
    lease_until: datetime | None
    encrypted_secrets: bytes | None
    retained: bool
    share: int
    hook_id: int | None
    input_bytes: int | None
