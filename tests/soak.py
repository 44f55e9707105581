"""Soak test (`make soak`): write while the server is disturbed, and report acknowledged and lost writes.

It starts `manage.py run` in its own VAR_DIR and continuously signs up users and publishes events. Meanwhile it runs
its phases: each kills every child in turn (SIGKILL), or stops Redis for some seconds (SIGSTOP). A write counts when the
client got a 201; it is lost or late if its mail or calendar is missing a minute after the last write.

Exit status 1: something was lost or late, nothing was written, or the server was not healthy before or after.
"""

import argparse
import email
import email.policy
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.progress import track

from tests.conftest import find_free_port
from tests.hostile_mix import AttackTarget, attack_server
from tests.test_end_to_end import build_document, send_request

ROOT = Path(__file__).resolve().parent.parent
WRITER = {"email": "writer@example.com", "password": "correct horse"}
LARGE_FILE = "uploads/large.png"
CHILDREN = ("web", "worker", "relay", "redis", "postgres")
EVENT = {
    "timezone": "UTC",
    "state": "published",
    "starts-at": "2030-05-01T10:00:00Z",
    "ends-at": "2030-05-02T10:00:00Z",
}

MIN_WRITES_BEFORE_FREEZE = 100
"""Acknowledged writes before Redis is stopped, so that the queues are in use."""

START_TIMEOUT_SECONDS = 90
RESTART_TIMEOUT_SECONDS = 20
MAX_LATE_SECONDS = 60
"""Time after the last write in which all acknowledged writes must have their consequences."""

console = Console()


@dataclass
class AcknowledgedWrites:
    """Writes that the server has acknowledged."""

    users: set[str] = field(default_factory=set)
    events: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    refused: int = 0


class Server:
    """`manage.py run` and its children."""

    def __init__(self, var_dir: Path) -> None:
        self.var_dir = var_dir
        self.port = find_free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")},
            "VAR_DIR": str(var_dir),
            "PORT": str(self.port),
            "DEMO": "0",
            "RATELIMIT_ENABLED": "0",
            "MAX_WRITE_MB_PER_DAY": "1000000",
        }
        self.log = (var_dir / "run.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "run"],
            env=self.environment,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def pid(self, child: str) -> int | None:
        """Return the pid of a child; None if it does not run."""
        command = [sys.executable, str(ROOT / "manage.py"), "status", "--json"]
        said = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        entry = json.loads(said.stdout or "{}").get(child)
        return entry["pid"] if entry else None

    def stop(self) -> float:
        """Send SIGTERM; return the seconds until the process has ended."""
        begun = monotonic()
        self.process.terminate()
        self.process.wait(30)
        return monotonic() - begun


def try_request(url: str, *arguments: Any) -> tuple[int, Any]:
    """Send a request; return status 0 if there was no response."""
    try:
        return send_request(url, *arguments)
    except (OSError, ValueError):
        return 0, None


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    """Return the value of the condition once it is true, or its value at the deadline."""
    deadline = monotonic() + seconds
    while not (result := condition()) and monotonic() < deadline:
        sleep(0.2)
    return result


class Run:
    """A server, two clients that write to it, and the writes that it has acknowledged."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.token = ""
        self.seen = AcknowledgedWrites()
        self.unmailed: set[str] = set()
        self.without_calendar: set[str] = set()
        self.findings: list[str] = []
        self.problems: list[str] = []
        """Violations of the guarantees."""
        self._stop = threading.Event()
        self._writers = [threading.Thread(target=self._write, daemon=True) for _ in range(2)]

    def is_healthy(self) -> bool:
        """Return whether every check passes."""
        status, document = try_request(f"{self.server.base}/health-check")
        return status == 200 and all(result["passed"] for result in document["results"])

    def start(self) -> bool:
        """Start to write; return False if the server does not start."""
        if not wait_for(self.is_healthy, START_TIMEOUT_SECONDS):
            return False
        try_request(f"{self.server.base}/v1/users", "POST", build_document("user", WRITER))
        self.token = try_request(f"{self.server.base}/v1/auth/login", "POST", WRITER)[1]["access_token"]
        for writer in self._writers:
            writer.start()
        return True

    def stop(self) -> None:
        """Stop writing."""
        self._stop.set()
        for writer in self._writers:
            writer.join()
        self.unmailed, self.without_calendar = set(self.seen.users), set(self.seen.events)

    def _write(self) -> None:
        """Sign up users and publish events until stopped."""
        base, seen = self.server.base, self.seen
        while not self._stop.is_set():
            address = f"{uuid4().hex}@example.com"
            credentials = {"email": address, "password": "correct horse"}
            status, _ = try_request(f"{base}/v1/users", "POST", build_document("user", credentials))
            if status == 201:
                seen.users.add(address)
            begun = monotonic()
            event = build_document("event", {**EVENT, "name": address})
            made, document = try_request(f"{base}/v1/events", "POST", event, self.token)
            if made == 201:
                seen.events.add(document["data"]["id"])
                seen.seconds.append(monotonic() - begun)
            if status != 201 or made != 201:
                seen.refused += 1
                sleep(0.05)

    def is_done(self) -> bool:
        """Return whether each user has a mail and each event a calendar; those that have one are not checked again."""
        for path in (self.server.var_dir / "mail").glob("*.eml"):
            mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            self.unmailed.discard(str(mail["To"]))
        for event in list(self.without_calendar):
            status, document = try_request(f"{self.server.base}/v1/events/{event}", "GET", None, self.token)
            if status == 200 and document["data"]["attributes"]["ical-url"]:
                self.without_calendar.discard(event)
        return not self.unmailed and not self.without_calendar


Phase = Callable[[Run], None]
"""Function that disturbs the server while the clients write."""


def kill_children(run: Run) -> None:
    """Kill every child in turn."""
    for child in track(CHILDREN, description="killing"):
        if (pid := run.server.pid(child)) is not None:
            os.kill(pid, signal.SIGKILL)
        begun = monotonic()
        wait_for(lambda: run.server.pid(child) not in (None, pid), RESTART_TIMEOUT_SECONDS)  # noqa: B023  # called before the loop goes on
        console.print(f"{child:<9} killed, back after {monotonic() - begun:.1f} s")
        sleep(3)


def freeze_redis(seconds: float) -> Phase:
    """Return a phase that stops Redis (SIGSTOP) for this time and reports the time of writes before and meanwhile."""

    def freeze(run: Run) -> None:
        seen = run.seen
        wait_for(lambda: len(seen.seconds) >= MIN_WRITES_BEFORE_FREEZE, 60)
        before = sorted(seen.seconds[-200:])
        seen.seconds.clear()
        refused = seen.refused
        pid = run.server.pid("redis")
        if pid is None:
            run.findings.append("Redis was not running")
            return
        os.kill(pid, signal.SIGSTOP)
        sleep(seconds)
        meanwhile = sorted(seen.seconds)
        os.kill(pid, signal.SIGCONT)
        run.findings.append(
            f"POST of an event, ms p50/p99: {_format_milliseconds(before)} before, "
            f"{_format_milliseconds(meanwhile)} while Redis was stopped for {seconds:.0f} s "
            f"({len(meanwhile)} writes, {seen.refused - refused} refused)"
        )
        sleep(5)  # under load again, so that the next phase also finds messages in every stage

    return freeze


def run_attack(seconds: float) -> Phase:
    """Return a phase in which hostile clients attack; it reports response times of a bystander, and restarts."""

    def attack_while_writing(run: Run) -> None:
        server = run.server
        (server.var_dir / "files" / "uploads").mkdir(parents=True, exist_ok=True)
        (server.var_dir / "files" / LARGE_FILE).write_bytes(bytes(14 * 2**20))
        sleeping = {"kind": "sleep", "parameters": {"seconds": 3600, "steps": 1000}}
        job = try_request(f"{server.base}/v1/jobs", "POST", build_document("job", sleeping), run.token)[1]["data"]["id"]
        before = {child: server.pid(child) for child in CHILDREN}
        stream = f"/v1/jobs/{job}/progress"
        target = AttackTarget(
            server.base, WRITER["email"], WRITER["password"], run.token, f"/files/{LARGE_FILE}", stream
        )
        outcome = attack_server(target, seconds)
        after = {child: server.pid(child) for child in CHILDREN}
        try_request(f"{server.base}/v1/jobs/{job}/cancel", "POST", None, run.token)
        run.findings.append(
            f"hostile clients for {seconds:.0f} s: {outcome.requests} requests of others,"
            f" p50 {outcome.p50 * 1000:.0f} ms, p99 {outcome.p99 * 1000:.0f} ms, {len(outcome.failures)} failed"
        )
        run.problems += [f"{child} was restarted" for child in CHILDREN if before[child] != after[child]]
        if outcome.server_errors:
            run.problems.append(f"{outcome.server_errors} answers of status 500")
        failures = Counter(failure[:60] for failure in outcome.failures)
        run.problems += [f"{number} x {failure}" for failure, number in failures.most_common()]

    return attack_while_writing


def _format_milliseconds(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    return f"{median(seconds) * 1000:.0f}/{seconds[int(len(seconds) * 0.99)] * 1000:.0f}"


def run_soak(server: Server, phases: Sequence[Phase]) -> int:
    """Write while the phases run, then report; return the exit status."""
    run = Run(server)
    try:
        if not run.start():
            console.print(f"the server did not come up within {START_TIMEOUT_SECONDS} s")
            return 1
        for phase in phases:
            phase(run)
        run.stop()
        return report_arrivals(run)
    finally:
        console.print(f"stopped within {server.stop():.1f} s")


def report_arrivals(run: Run) -> int:
    """Wait for the consequences of acknowledged writes, print the result, and return the exit status."""
    begun = monotonic()
    is_done = wait_for(run.is_done, MAX_LATE_SECONDS)
    seconds = monotonic() - begun
    is_healthy = wait_for(run.is_healthy, 10)
    seen = run.seen
    console.print(
        f"acknowledged: {len(seen.users)} sign-ups, {len(seen.events)} events; refused or cut: {seen.refused}"
    )
    console.print(
        f"lost or late: {len(run.unmailed)} mails, {len(run.without_calendar)} calendars,"
        f" {seconds:.1f} s after the last write; healthy: {'yes' if is_healthy else 'no'}"
    )
    console.print("\n".join(run.findings + run.problems))
    return 0 if is_done and is_healthy and seen.users and seen.events and not run.problems else 1


def main() -> int:
    """Parse the options and run the phases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1, help="how often every child is killed")
    parser.add_argument(
        "--redis-stopped", type=float, nargs="*", default=[8.0, 30.0], help="seconds of each SIGSTOP of Redis"
    )
    parser.add_argument("--hostile", type=float, metavar="SECONDS", help="how long hostile clients attack before that")
    chosen = parser.parse_args()
    phases: list[Phase] = [run_attack(chosen.hostile)] if chosen.hostile else []
    phases += [kill_children] * chosen.rounds
    phases += [freeze_redis(seconds) for seconds in chosen.redis_stopped]
    with tempfile.TemporaryDirectory(prefix="open event soak ") as directory:
        return run_soak(Server(Path(directory)), phases)


if __name__ == "__main__":
    sys.exit(main())
