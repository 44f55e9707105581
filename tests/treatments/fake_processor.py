"""Fake processor over real HTTP, with scripted responses and callbacks.

with FakeProcessor() as processor:
    processor.answer_start(FAILURE)             # repeatedly; of several each once, the last repeatedly
    ...                                         # start a treatment with PROCESSOR_URL=processor.url
    start = processor.starts[0]
    url = processor.host_file("/results/1.json", b"[]")
    processor.call_back(start, "SUCCESS", output={"results_url": [{"doc_id": "image-1", "result_url": url}]})
"""

import contextlib
import hmac
import json
import re
import socket
import struct
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Event, Lock, Thread
from typing import Any, Self
from urllib.parse import unquote

import httpx

BODY_CHUNK = b"x" * 65536
ROUTE = re.compile(r"/([^/]+)/(?:(start)|([^/]+)/(status|cancel))")


@dataclass(frozen=True)
class Answer:
    """A response, its delay in seconds and the repetitions of its body; with `reset` only a TCP reset."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    times: int = 1
    reset: bool = False

    def with_delay(self, seconds: float) -> "Answer":
        """Return a copy with this delay."""
        return replace(self, delay=seconds)


def json_answer(value: Any, status: int = 200) -> Answer:
    """Return a response with this value as JSON."""
    return Answer(status, json.dumps(value).encode())


def start_answer(tracking_id: Any) -> Answer:
    """Return the response to a start request with this tracking id."""
    return json_answer({"tracking_id": tracking_id}, 202)


HTML = Answer(body=b"<!DOCTYPE html><title>Welcome</title>", content_type="text/html")
FAILURE = Answer(500, b'{"error": "out of order"}')
EMPTY = Answer()
INVALID = Answer(body=b'{"tracking_id": ')
NO_TRACKING_ID = json_answer({"message": "thank you"})
INTEGER_TRACKING_ID = start_answer(42)
LONG_TRACKING_ID = start_answer("x" * 100_000)
SLASH_TRACKING_ID = start_answer("../../v1/users/1")
RESET = Answer(reset=True)
HUGE_ANSWER = Answer(body=BODY_CHUNK, times=2**14)
"""Response with a body of 1 GiB."""
NEVER_ANSWERS = Answer(delay=3600)


def redirect_answer(url: str) -> Answer:
    """Return a redirect to a URL."""
    return Answer(302, headers={"Location": url})


@dataclass(frozen=True)
class ReceivedRequest:
    """A received request, with the task and the tracking id of its path."""

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes
    task: str = ""
    tracking_id: str = ""


@dataclass(frozen=True)
class StartRequest:
    """A start request and the tracking id of the default response."""

    task: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    tracking_id: str


class FakeProcessor:
    """Context manager that listens on a free port of 127.0.0.1 and records all requests."""

    def __init__(self) -> None:
        self.starts: list[StartRequest] = []
        self.status_requests: list[ReceivedRequest] = []
        self.cancels: list[ReceivedRequest] = []
        self.fetched: list[ReceivedRequest] = []
        """Requests for hosted files, and all other requests."""
        self.before_answer: Callable[[StartRequest], object] | None = None
        """Function that is called before the response to a start request: for early callbacks."""
        self._scripts: dict[str, list[Answer]] = {}
        self._files: dict[str, Answer] = {}
        self._numbers = count(1)
        self._lock = Lock()
        self._closing = Event()
        self._server = _Server(self)

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Return the value for PROCESSOR_URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer_start(self, *answers: Answer) -> None:
        """Script the responses to start requests: each once, the last repeatedly; without responses, 202."""
        self._set_script("start", answers)

    def answer_status(self, *answers: Answer | Mapping[str, Any]) -> None:
        """Script the responses to status requests; mappings are sent as JSON; without responses, 404."""
        self._set_script("status", answers)

    def answer_cancel(self, *answers: Answer | Mapping[str, Any]) -> None:
        """Script the responses to cancel requests; without responses, 200 with CANCELLED."""
        self._set_script("cancel", answers)

    def host_file(self, path: str, content: bytes | Answer, **more: Any) -> str:
        """Host a file and return its URL; `more` are fields of Answer."""
        self._files[path] = content if isinstance(content, Answer) else Answer(body=content, **more)
        return f"{self.url}{path}"

    def call_back(
        self,
        start: StartRequest,
        event: str,
        *,
        sign: bool = True,
        token: str | None = None,
        secret: str | None = None,
        id: str | None = None,
        timestamp: int | None = None,
        raw: bytes | None = None,
        **members: Any,
    ) -> httpx.Response:
        """Send a callback for a start request, by default signed and with the right token."""
        about = {"experiment_id": start.body["experiment_id"], "tracking_id": start.tracking_id, "event": event}
        body = json.dumps({**about, **members}).encode() if raw is None else raw
        headers = {"Content-Type": "application/json"}
        if sign:
            sent_at = int(time.time()) if timestamp is None else timestamp
            key = secret or start.body["notify_secret"]
            headers |= sign_message(key, id or f"msg_{next(self._numbers)}", str(sent_at), body)
        url = start.body["notify_url"]
        if token is not None:
            url = re.sub(r"(?<=token=)[^&]*", token, url)
        return httpx.post(url, content=body, headers=headers, timeout=30, trust_env=False)

    def answer_for(self, asked: ReceivedRequest) -> Answer:
        """Record a request and return its response."""
        found = ROUTE.fullmatch(asked.path)
        if found is None or asked.path in self._files:
            with self._lock:
                self.fetched.append(asked)
            return self._files.get(asked.path, Answer(404))
        task, start, tracking_id, question = found.groups()
        if start:
            return self._build_start_answer(task, asked)
        asked = replace(asked, task=unquote(task), tracking_id=unquote(tracking_id))
        with self._lock:
            (self.status_requests if question == "status" else self.cancels).append(asked)
        default = (
            json_answer({"error": "unknown"}, 404) if question == "status" else json_answer({"status": "CANCELLED"})
        )
        return self._next_answer(question) or default

    def wait_until_closed(self, seconds: float) -> None:
        """Wait this many seconds, or until the server is closed."""
        self._closing.wait(seconds)

    @property
    def is_closing(self) -> bool:
        """Return whether the server is being closed."""
        return self._closing.is_set()

    def _build_start_answer(self, task: str, asked: ReceivedRequest) -> Answer:
        start = StartRequest(unquote(task), asked.headers, json.loads(asked.content), f"run-{next(self._numbers)}")
        with self._lock:
            self.starts.append(start)
        if self.before_answer:
            self.before_answer(start)
        return self._next_answer("start") or start_answer(start.tracking_id)

    def reset_script(self) -> None:
        """Remove all scripts, files and records."""
        with self._lock:
            for recorded in (self.starts, self.status_requests, self.cancels, self.fetched):
                recorded.clear()
            self._scripts.clear()
            self._files.clear()
        self.before_answer = None

    def _set_script(self, route: str, answers: tuple[Any, ...]) -> None:
        self._scripts[route] = [one if isinstance(one, Answer) else json_answer(one) for one in answers]

    def _next_answer(self, route: str) -> Answer | None:
        with self._lock:
            script = self._scripts.get(route)
            if not script:
                return None
            return script.pop(0) if len(script) > 1 else script[0]


def sign_message(secret: str, id: str, sent_at: str, body: bytes) -> dict[str, str]:
    """Return the headers of Standard Webhooks."""
    key = b64decode(secret.removeprefix("whsec_"), validate=True)
    digest = hmac.digest(key, b".".join((id.encode(), sent_at.encode(), body)), "sha256")
    made = f"v1,{b64encode(digest).decode()}"
    return {"webhook-id": id, "webhook-timestamp": sent_at, "webhook-signature": made}


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:
        processor = self.server.processor
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        given = processor.answer_for(ReceivedRequest(self.command, self.path, headers, content))
        processor.wait_until_closed(given.delay)
        if given.reset:
            self._reset()
        elif not processor.is_closing:
            self._send(given)

    def do_POST(self) -> None:
        self.do_GET()

    def _send(self, given: Answer) -> None:
        self.send_response(given.status)
        length = {"Content-Length": str(len(given.body) * given.times)}
        for name, value in {"Content-Type": given.content_type, **length, **given.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        for _ in range(given.times):
            self.wfile.write(given.body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, *arguments: object) -> None:
        """Print no requests."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, processor: FakeProcessor) -> None:
        self.processor = processor
        super().__init__(("127.0.0.1", 0), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Ignore clients that close the connection during a response."""
        with contextlib.suppress(ConnectionError):
            super().finish_request(request, client_address)
