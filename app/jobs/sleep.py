"""Kinds that sleep, for demonstrations and tests; not available in production."""

from datetime import timedelta
from typing import Any

from app.jobs.context import JobContext
from app.jobs.kinds import job_kind

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "seconds": {"type": "number", "minimum": 0, "maximum": 3600},
        "steps": {"type": "integer", "minimum": 1, "maximum": 10_000},
    },
    "required": ["seconds"],
    "additionalProperties": False,
}

TIME_LIMIT = timedelta(hours=2)


@job_kind("sleep", parameters=PARAMETERS, in_production=False, time_limit=TIME_LIMIT, dedupe="none")
@job_kind("sleep-once", parameters=PARAMETERS, in_production=False, time_limit=TIME_LIMIT, dedupe="once")
@job_kind(
    "sleep-single-flight", parameters=PARAMETERS, in_production=False, time_limit=TIME_LIMIT, dedupe="single-flight"
)
def run_sleep(context: JobContext) -> dict[str, Any]:
    """Sleep, and report progress at each step."""
    seconds, steps = context.parameters["seconds"], context.parameters.get("steps", 10)
    for step in range(steps):
        context.report_progress(step / steps, f"step {step + 1} of {steps}")
        context.wait(seconds / steps)
    return {"slept": seconds}
