"""Write while the server's processes die: `make soak` prints what was acknowledged, and what of it never arrived.

It starts `manage.py run` in a VAR_DIR of its own, signs users up and publishes events without a pause, and meanwhile
kills (-9) every child in turn, then stops Redis (SIGSTOP) for a while. A write counts when the client got its 201 or
200; it is lost when its row, its mail or its calendar is not there in the end.
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

from tests.conftest import free_port
from tests.hostile_mix import Target, attack_server
from tests.test_flow import call, resource

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
"""Writes that are acknowledged before Redis is stopped: the queues are then in use."""

console = Console()


@dataclass
class Acknowledged:
    """What the server said it had stored."""

    users: set[str] = field(default_factory=set)
    events: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    refused: int = 0


class Server:
    """`manage.py run` and its children."""

    def __init__(self, var_dir: Path) -> None:
        self.var_dir = var_dir
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")},
            "VAR_DIR": str(var_dir),
            "PORT": str(self.port),
            "DEMO": "0",
            "RATELIMIT_ENABLED": "0",
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
        """The present process of a child."""
        command = [sys.executable, str(ROOT / "manage.py"), "status", "--json"]
        said = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        entry = json.loads(said.stdout or "{}").get(child)
        return entry["pid"] if entry else None

    def stop(self) -> float:
        """SIGTERM; the seconds until it was gone."""
        begun = monotonic()
        self.process.terminate()
        self.process.wait(30)
        return monotonic() - begun


def attempt(url: str, *arguments: Any) -> tuple[int, Any]:
    """One request; 0 where there was no answer."""
    try:
        return call(url, *arguments)
    except (OSError, ValueError):
        return 0, None


def write(base: str, token: str, stop: threading.Event, seen: Acknowledged) -> None:
    """Sign up and publish until told to stop."""
    while not stop.is_set():
        address = f"{uuid4().hex}@example.com"
        begun = monotonic()
        credentials = {"email": address, "password": "correct horse"}
        status, _ = attempt(f"{base}/v1/users", "POST", resource("user", credentials))
        if status == 201:
            seen.users.add(address)
        begun = monotonic()
        made, document = attempt(f"{base}/v1/events", "POST", resource("event", {**EVENT, "name": address}), token)
        if made == 201:
            seen.events.add(document["data"]["id"])
            seen.seconds.append(monotonic() - begun)
        if status != 201 or made != 201:
            seen.refused += 1
            sleep(0.05)


def eventually(condition: Callable[[], Any], seconds: float) -> Any:
    """What the condition returns once it is true, or at the deadline."""
    deadline = monotonic() + seconds
    while not (result := condition()) and monotonic() < deadline:
        sleep(0.2)
    return result


def missing(server: Server, seen: Acknowledged, token: str) -> tuple[set[str], set[str]]:
    """Acknowledged users without a mail, and events without a calendar."""
    mailed = set()
    for path in (server.var_dir / "mail").glob("*.eml"):
        mailed.add(email.message_from_bytes(path.read_bytes(), policy=email.policy.default)["To"])
    without = set()
    for event in seen.events:
        status, document = attempt(f"{server.base}/v1/events/{event}", "GET", None, token)
        if status != 200 or not document["data"]["attributes"]["ical-url"]:
            without.add(event)
    return seen.users - mailed, without


def main() -> int:
    """Run it; exit status 1 when anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1, help="how often every child is killed")
    parser.add_argument(
        "--redis-stopped", type=float, nargs="*", default=[8.0, 30.0], help="seconds of each SIGSTOP of Redis"
    )
    parser.add_argument(
        "--hostile", type=float, default=0.0, metavar="SECONDS", help="how long hostile clients attack before that"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="open event soak ") as directory:
        return soak(Server(Path(directory)), chosen.rounds, chosen.redis_stopped, chosen.hostile)


def soak(server: Server, rounds: int, redis_stopped: Sequence[float], hostile_seconds: float) -> int:
    """Write, attack, kill, count."""
    eventually(lambda: attempt(f"{server.base}/health-check")[0] == 200, 90)
    attempt(f"{server.base}/v1/users", "POST", resource("user", WRITER))
    token = attempt(f"{server.base}/v1/auth/login", "POST", WRITER)[1]["access_token"]
    seen, stop = Acknowledged(), threading.Event()
    writers = [threading.Thread(target=write, args=(server.base, token, stop, seen)) for _ in range(2)]
    for writer in writers:
        writer.start()
    problems = attack(server, token, hostile_seconds) if hostile_seconds else []
    for child in track(CHILDREN * rounds, description="killing"):
        if (pid := server.pid(child)) is not None:
            os.kill(pid, signal.SIGKILL)
        begun = monotonic()
        eventually(lambda: server.pid(child) not in (None, pid), 20)  # noqa: B023  # called before the loop goes on
        console.print(f"{child:<9} killed, back after {monotonic() - begun:.1f} s")
        sleep(3)
    frozen = []
    for seconds in redis_stopped:
        frozen.append(stopped_redis(server, seen, seconds))
        sleep(5)  # under load again, so that the next freeze also finds messages in every stage
    stop.set()
    for writer in writers:
        writer.join()
    begun = monotonic()
    users, events = eventually(lambda: _arrived(server, seen, token), 60) or missing(server, seen, token)
    console.print(
        f"acknowledged: {len(seen.users)} sign-ups, {len(seen.events)} events; refused or cut: {seen.refused}"
    )
    console.print(
        f"lost: {len(users)} mails, {len(events)} calendars, {monotonic() - begun:.1f} s after the last write"
    )
    console.print("\n".join(frozen + problems))
    console.print(f"stopped within {server.stop():.1f} s")
    return 1 if users or events or problems else 0


def attack(server: Server, token: str, seconds: float) -> list[str]:
    """Let hostile clients attack the server and print the figures; return what must not have happened."""
    (server.var_dir / "files" / "uploads").mkdir(parents=True, exist_ok=True)
    (server.var_dir / "files" / LARGE_FILE).write_bytes(bytes(14 * 2**20))
    sleeping = {"kind": "sleep", "parameters": {"seconds": 3600, "steps": 1000}}
    job = attempt(f"{server.base}/v1/jobs", "POST", resource("job", sleeping), token)[1]["data"]["id"]
    before = {child: server.pid(child) for child in CHILDREN}
    target = Target(
        server.base, WRITER["email"], WRITER["password"], token, f"/files/{LARGE_FILE}", f"/v1/jobs/{job}/progress"
    )
    outcome = attack_server(target, seconds)
    after = {child: server.pid(child) for child in CHILDREN}
    attempt(f"{server.base}/v1/jobs/{job}/cancel", "POST", None, token)
    console.print(
        f"hostile clients for {seconds:.0f} s: {outcome.requests} requests of others, p50 {outcome.p50 * 1000:.0f} ms,"
        f" p99 {outcome.p99 * 1000:.0f} ms, {len(outcome.failures)} failed"
    )
    problems = [f"{child} was restarted" for child in CHILDREN if before[child] != after[child]]
    if outcome.server_errors:
        problems.append(f"{outcome.server_errors} answers of status 500")
    failures = Counter(failure[:60] for failure in outcome.failures)
    return problems + [f"{number} x {failure}" for failure, number in failures.most_common()]


def _arrived(server: Server, seen: Acknowledged, token: str) -> tuple[set[str], set[str]] | None:
    lost = missing(server, seen, token)
    return None if any(lost) else lost


def stopped_redis(server: Server, seen: Acknowledged, seconds: float) -> str:
    """SIGSTOP Redis for a while; what writing an event took before and meanwhile."""
    eventually(lambda: len(seen.seconds) >= MIN_WRITES_BEFORE_FREEZE, 60)
    before = sorted(seen.seconds[-200:])
    seen.seconds.clear()
    refused = seen.refused
    pid = server.pid("redis")
    if pid is None:
        return "Redis was not running"
    os.kill(pid, signal.SIGSTOP)
    sleep(seconds)
    meanwhile = sorted(seen.seconds)
    os.kill(pid, signal.SIGCONT)
    return (
        f"POST of an event, ms p50/p99: {_ms(before)} before, {_ms(meanwhile)} while Redis was stopped for"
        f" {seconds:.0f} s ({len(meanwhile)} writes, {seen.refused - refused} refused)"
    )


def _ms(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    return f"{median(seconds) * 1000:.0f}/{seconds[int(len(seconds) * 0.99)] * 1000:.0f}"


if __name__ == "__main__":
    sys.exit(main())
