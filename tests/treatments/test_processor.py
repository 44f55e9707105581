"""Reference processor (examples/processor) as a process, with real images and a server for its callbacks."""

import json
import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

import httpx
import pytest

from app.processes.process_tree import set_pdeathsig
from tests.conftest import ROOT, wait_until
from tests.images.sample_images import Image, add_metadata, encode_image, make_flag_image, make_photo, make_png
from tests.treatments.fake_processor import sign_message

pytestmark = pytest.mark.long

SECRET = f"whsec_{b64encode(b'thirty-two bytes of a secret key').decode()}"
TERMINAL_STATES = {"SUCCESS", "ERROR", "CANCELLED"}
BOXES = [(200, 100, 100, 80), (10, 20, 50, 40), (20, 200, 60, 30)]
"""Largest first."""


class CallbackMessage(NamedTuple):
    """A received callback."""

    path: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def json_body(self) -> Any:
        return json.loads(self.content)


class CallbackServer(ThreadingHTTPServer):
    """Server of images, and receiver of callbacks with scripted responses."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.images: dict[str, bytes] = {}
        self.statuses: list[int] = []
        """Statuses of the first responses to callbacks; further ones are 200."""
        self.messages: list[CallbackMessage] = []
        self.release_images = Event()
        """Set to send the images whose path begins with /held."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def document(self, uid: str, content: bytes, prefix: str = "") -> dict[str, str]:
        """Host an image and return its document for a start request."""
        path = f"/{prefix}{uid}"
        self.images[path] = content
        return {"type": "image", "src": f"{self.url}{path}", "uid": uid}

    def list_messages(self, path: str = "/callback") -> list[Any]:
        """Return the bodies of the callbacks to this path."""
        return [message.json_body for message in self.messages if message.path.startswith(path)]

    def list_event_names(self, path: str = "/callback") -> list[str]:
        return [callback["event"] for callback in self.list_messages(path)]


class Handler(BaseHTTPRequestHandler):
    server: CallbackServer

    def do_GET(self) -> None:
        if self.path.startswith("/held"):
            self.server.release_images.wait(30)
        self._answer(200 if self.path in self.server.images else 404, self.server.images.get(self.path, b""))

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.messages.append(CallbackMessage(self.path, headers, content))
        self._answer(self.server.statuses.pop(0) if self.server.statuses else 200, b"{}")

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Print no requests."""

    def finish(self) -> None:
        """Ignore connections that the client has closed."""
        try:
            super().finish()
        except ConnectionError:
            self.close_connection = True


@pytest.fixture
def server() -> Iterator[CallbackServer]:
    """Run the server of images and callbacks."""
    with CallbackServer() as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.release_images.set()
        server.shutdown()


class ReferenceProcessor(NamedTuple):
    """A running processor, a client for it, and the server of its images and callbacks."""

    process: subprocess.Popen[str]
    client: httpx.Client
    server: CallbackServer

    def start_run(self, task: str, *documents: dict[str, str], **members: Any) -> str:
        """Start a run with these documents and return its tracking id."""
        answer = self.client.post(f"/{task}/start", json=self.build_start_body(*documents, **members))
        assert answer.status_code == 202, answer.text
        tracking_id: str = answer.json()["tracking_id"]
        return tracking_id

    def build_start_body(self, *documents: dict[str, str], **members: Any) -> dict[str, Any]:
        """Build the body of a start request."""
        notify = {"notify_url": f"{self.server.url}/callback?token=t", "notify_secret": SECRET}
        return {"experiment_id": "an-id", "documents": documents, **notify, "model": "", **members}

    def wait_for_end(self, task: str, tracking_id: str) -> Any:
        """Wait until the run has ended and its last callback is received; return its status."""
        url = f"/{task}/{tracking_id}/status"
        wait_until(lambda: self.client.get(url).json()["status"] in TERMINAL_STATES, what="the end")
        wait_until(
            lambda: any(
                callback["event"] in TERMINAL_STATES and callback["completed"]
                for callback in self.server.list_messages()
            )
        )
        return self.client.get(url).json()

    def fetch_results(self, status: Any) -> dict[str, Any]:
        """Return the content of each result file by document."""
        return {
            result["doc_id"]: self.client.get(result["result_url"]).json() for result in status["output"]["results_url"]
        }


@contextmanager
def run_processor(directory: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a processor on a free port with its results in this directory; yield the process and its URL."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "examples/processor/server.py"), "--port", "0"],
        env={**os.environ, "TMPDIR": str(directory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=set_pdeathsig(),
    )
    with process:
        word, url = process.stdout.readline().split()
        assert word == "ready:"
        yield process, url
        process.kill()


@pytest.fixture(scope="module")
def module_processor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run one processor for all tests that do not stop it or fill its memory."""
    with run_processor(tmp_path_factory.mktemp("processor")) as started:
        yield started


@pytest.fixture
def reference_processor(
    module_processor: tuple[subprocess.Popen[str], str], server: CallbackServer
) -> Iterator[ReferenceProcessor]:
    """Return the processor of the module with the server of this test."""
    process, url = module_processor
    with httpx.Client(base_url=url, trust_env=False) as client:
        yield ReferenceProcessor(process, client, server)


@pytest.fixture
def own_processor(server: CallbackServer, tmp_path: Path) -> Iterator[ReferenceProcessor]:
    """Run a processor for this test only; its results are in `tmp_path`."""
    with run_processor(tmp_path) as (process, url), httpx.Client(base_url=url, trust_env=False) as client:
        yield ReferenceProcessor(process, client, server)


def draw_rectangles() -> Image:
    """Draw three white rectangles on black."""
    image = Image.black(400, 300)
    for box in BOXES:
        image = image.draw_rect(255, *box, fill=True)
    return image


def list_boxes(content: Any) -> list[tuple[int, ...]]:
    """Return the regions in a result file of one image."""
    return [tuple(crop["absolute"][name] for name in ("x", "y", "width", "height")) for crop in content[0]["crops"]]


def test_regions_are_where_the_image_is_bright(reference_processor: ReferenceProcessor, server: CallbackServer) -> None:
    documents = [
        server.document(f"image-{form}", encode_image(draw_rectangles(), form)) for form in ("png", "jpeg", "webp")
    ]

    status = reference_processor.wait_for_end(
        "regions", reference_processor.start_run("regions", *documents, algorithm="any")
    )

    assert (status["status"], status["fraction"], status["error"]) == ("SUCCESS", 1.0, [])
    found = reference_processor.fetch_results(status)
    assert {uid: list_boxes(content) for uid, content in found.items()} == {
        "image-png": BOXES,
        "image-jpeg": BOXES,
        "image-webp": BOXES,
    }
    assert found["image-png"][0]["source"] == "image-png"
    assert {crop["source"] for crop in found["image-png"][0]["crops"]} == {"image-png"}


def test_regions_are_those_of_the_upright_image(
    reference_processor: ReferenceProcessor, server: CallbackServer
) -> None:
    lying = add_metadata(draw_rectangles().rot270(), orientation=6)

    status = reference_processor.wait_for_end(
        "regions", reference_processor.start_run("regions", server.document("one", encode_image(lying, "jpeg")))
    )

    assert list_boxes(reference_processor.fetch_results(status)["one"]) == BOXES


def test_a_large_image_is_searched_from_further_away(
    reference_processor: ReferenceProcessor, server: CallbackServer
) -> None:
    large = Image.black(5000, 3000).draw_rect(255, 1000, 600, 2000, 1200, fill=True)
    content = encode_image(large.draw_rect(255, 4000, 2990, 3, 3, fill=True), "png")

    status = reference_processor.wait_for_end(
        "regions", reference_processor.start_run("regions", server.document("one", content))
    )

    assert list_boxes(reference_processor.fetch_results(status)["one"]) == [(1000, 600, 2000, 1200)]


@pytest.mark.parametrize("kind", ["noise", "one colour"])
def test_an_image_without_areas_has_few_regions_or_none(
    reference_processor: ReferenceProcessor, server: CallbackServer, kind: str
) -> None:
    noise = Image.gaussnoise(2000, 2000, mean=128, sigma=40).cast("uchar")
    image = noise if kind == "noise" else Image.black(2000, 2000)

    status = reference_processor.wait_for_end(
        "regions", reference_processor.start_run("regions", server.document("one", encode_image(image, "png")))
    )

    assert status["status"] == "SUCCESS"
    assert len(list_boxes(reference_processor.fetch_results(status)["one"])) <= (100 if kind == "noise" else 0)


def test_equal_images_are_more_alike_than_others(
    reference_processor: ReferenceProcessor, server: CallbackServer
) -> None:
    documents = [
        server.document("a", encode_image(make_flag_image(), "png")),
        server.document("b", encode_image(make_photo(300, 200), "png")),
        server.document("c", encode_image(make_flag_image(), "png")),
        server.document("d", encode_image(make_flag_image(160, 80), "jpeg")),
    ]

    status = reference_processor.wait_for_end("similarity", reference_processor.start_run("similarity", *documents))

    pairs = reference_processor.fetch_results(status)["all"]
    scores = {pair["a"] + pair["b"]: pair["score"] for pair in pairs}
    assert pairs[0] == {"a": "a", "b": "c", "score": 1.0}
    assert scores.keys() == {"ab", "ac", "ad", "bc", "bd", "cd"}
    assert scores["ad"] == scores["cd"] > 0.9
    assert all(0 <= scores[pair] < 0.9 for pair in ("ab", "bc", "bd"))


def test_each_image_is_called_back_when_it_is_done_and_all_of_them_at_the_end(
    reference_processor: ReferenceProcessor, server: CallbackServer
) -> None:
    documents = [server.document(uid, encode_image(make_flag_image(), "png")) for uid in ("one", "two")]

    tracking_id = reference_processor.start_run("regions", *documents)
    reference_processor.wait_for_end("regions", tracking_id)

    first, one, two, last = server.list_messages()
    assert [first["event"], one["event"], two["event"], last["event"]] == ["STARTED", "PROGRESS", "PROGRESS", "SUCCESS"]
    assert {(callback["experiment_id"], callback["tracking_id"]) for callback in server.list_messages()} == {
        ("an-id", tracking_id)
    }
    assert [one["fraction"], two["fraction"], last["fraction"]] == [0.5, 1.0, 1.0]
    assert [result["doc_id"] for result in one["output"]["results_url"]] == ["one"]
    assert last["output"]["results_url"] == one["output"]["results_url"] + two["output"]["results_url"]
    assert last["completed"] is True


def test_callbacks_are_signed(reference_processor: ReferenceProcessor, server: CallbackServer) -> None:
    reference_processor.wait_for_end(
        "regions",
        reference_processor.start_run("regions", server.document("one", encode_image(make_flag_image(), "png"))),
    )

    for message in server.messages:
        id_, sent_at = message.headers["webhook-id"], message.headers["webhook-timestamp"]
        assert message.path == "/callback?token=t"
        assert (
            message.headers["webhook-signature"]
            == sign_message(SECRET, id_, sent_at, message.content)["webhook-signature"]
        )
        assert abs(int(sent_at) - time.time()) < 60
    assert len({message.headers["webhook-id"] for message in server.messages}) == len(server.messages)


def test_without_a_secret_callbacks_are_not_signed(
    reference_processor: ReferenceProcessor, server: CallbackServer
) -> None:
    documents = server.document("one", encode_image(make_flag_image(), "png"))

    reference_processor.wait_for_end("regions", reference_processor.start_run("regions", documents, notify_secret=None))

    assert server.list_event_names() == ["STARTED", "PROGRESS", "SUCCESS"]
    assert not [name for message in server.messages for name in message.headers if name.startswith("webhook-")]


def test_a_callback_that_is_not_taken_comes_again_with_id_and_bytes(
    reference_processor: ReferenceProcessor, server: CallbackServer
) -> None:
    server.statuses = [500, 302]

    reference_processor.wait_for_end(
        "regions",
        reference_processor.start_run("regions", server.document("one", encode_image(make_flag_image(), "png"))),
    )

    assert server.list_event_names() == ["STARTED", "STARTED", "STARTED", "PROGRESS", "SUCCESS"]
    assert len({(message.headers["webhook-id"], message.content) for message in server.messages[:3]}) == 1


@pytest.mark.parametrize("status", [401, 404, 410, 422])
def test_a_callback_that_is_refused_does_not_come_again(
    reference_processor: ReferenceProcessor, server: CallbackServer, status: int
) -> None:
    server.statuses = [status]

    reference_processor.wait_for_end(
        "regions",
        reference_processor.start_run("regions", server.document("one", encode_image(make_flag_image(), "png"))),
    )

    assert server.list_event_names() == ["STARTED", "PROGRESS", "SUCCESS"]


def list_unreadable_images() -> dict[str, bytes]:
    """Return images that cannot be read, by error message."""
    return {
        "It is not a JPEG, PNG or WebP image.": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "It cannot be decoded.": encode_image(make_photo(300, 200), "png")[:5000],
        "It has more than 50 million pixels.": make_png(10_000, 10_000),
        "It is larger than 20 MiB.": bytes(21 * 2**20),
    }


def test_a_broken_image_does_not_keep_the_others_from_it(
    reference_processor: ReferenceProcessor, server: CallbackServer
) -> None:
    contents = list_unreadable_images()
    documents = [server.document(f"bad-{number}", content) for number, content in enumerate(contents.values())]
    documents.insert(2, server.document("good", encode_image(draw_rectangles(), "png")))
    documents.append({"type": "image", "src": f"{server.url}/gone?signature=s3cret", "uid": "gone"})

    status = reference_processor.wait_for_end("regions", reference_processor.start_run("regions", *documents))

    errors = [f"bad-{number}: {message}" for number, message in enumerate(contents)]
    errors.append("gone: It could not be downloaded: the response was 404.")
    assert status["status"] == "SUCCESS"
    assert {uid: list_boxes(content) for uid, content in reference_processor.fetch_results(status).items()} == {
        "good": BOXES
    }
    assert status["error"] == status["output"]["error"] == errors
    warnings = [callback for callback in server.list_messages() if callback["event"] == "ERROR"]
    assert [(callback["completed"], callback["message"]) for callback in warnings] == [
        (False, message) for message in errors
    ]
    assert server.list_event_names()[-1] == "SUCCESS"


@pytest.mark.parametrize("task", ["regions", "similarity"])
def test_without_an_image_there_is_nothing_to_do(
    reference_processor: ReferenceProcessor, server: CallbackServer, task: str
) -> None:
    documents = [{"type": "event", "src": f"{server.url}/event", "uid": "event-5"}]

    status = reference_processor.wait_for_end(task, reference_processor.start_run(task, *documents))

    assert (status["status"], status["error"]) == ("ERROR", ["There is no image among the documents."])
    assert server.list_event_names() == ["STARTED", "ERROR"]


def test_non_image_documents_are_skipped(reference_processor: ReferenceProcessor, server: CallbackServer) -> None:
    event = {"type": "event", "src": f"{server.url}/event", "uid": "event-5"}

    status = reference_processor.wait_for_end(
        "regions",
        reference_processor.start_run("regions", event, server.document("one", encode_image(make_flag_image(), "png"))),
    )

    assert (status["status"], status["error"], list(reference_processor.fetch_results(status))) == (
        "SUCCESS",
        [],
        ["one"],
    )


def test_cancelling_stops_the_work_and_is_called_back_once(
    reference_processor: ReferenceProcessor, server: CallbackServer
) -> None:
    documents = [
        server.document("one", encode_image(make_flag_image(), "png")),
        server.document("two", encode_image(make_flag_image(), "png"), "held/"),
    ]
    tracking_id = reference_processor.start_run("regions", *documents)
    wait_until(lambda: "PROGRESS" in server.list_event_names())

    answers = [reference_processor.client.post(f"/regions/{tracking_id}/cancel") for _ in range(2)]
    status = reference_processor.wait_for_end("regions", tracking_id)
    server.release_images.set()

    assert [answer.json() for answer in answers] == [{"status": "CANCELLED"}] * 2
    assert (status["status"], status["fraction"]) == ("CANCELLED", 0.5)
    assert list(reference_processor.fetch_results(status)) == ["one"]
    another = reference_processor.start_run("regions", documents[0], notify_url=f"{server.url}/another")
    wait_until(lambda: "SUCCESS" in server.list_event_names("/another"))
    assert another != tracking_id
    assert server.list_event_names() == ["STARTED", "PROGRESS", "CANCELLED"]


def test_a_run_that_waits_can_be_cancelled_and_never_begins(
    reference_processor: ReferenceProcessor, server: CallbackServer
) -> None:
    held = [server.document(f"held-{number}", encode_image(make_flag_image(), "png"), "held/") for number in range(2)]
    for document in held:
        reference_processor.start_run("regions", document, notify_url=f"{server.url}/busy")
    wait_until(lambda: server.list_event_names("/busy") == ["STARTED", "STARTED"])
    waiting = reference_processor.start_run("regions", server.document("one", encode_image(make_flag_image(), "png")))
    before = reference_processor.client.get(f"/regions/{waiting}/status").json()

    reference_processor.client.post(f"/regions/{waiting}/cancel")

    reference_processor.wait_for_end("regions", waiting)
    assert before["status"] == "PENDING"
    assert server.list_event_names() == ["CANCELLED"]


def test_cancel_ended_run_returns_final_status(reference_processor: ReferenceProcessor, server: CallbackServer) -> None:
    tracking_id = reference_processor.start_run(
        "regions", server.document("one", encode_image(make_flag_image(), "png"))
    )
    reference_processor.wait_for_end("regions", tracking_id)

    answer = reference_processor.client.post(f"/regions/{tracking_id}/cancel")

    assert (answer.status_code, answer.json()) == (200, {"status": "SUCCESS"})


def test_too_many_runs_are_refused_and_old_ones_make_room(
    own_processor: ReferenceProcessor, server: CallbackServer
) -> None:
    held = server.document("one", encode_image(make_flag_image(), "png"), "held/")
    oldest = own_processor.start_run("regions", server.document("two", encode_image(make_flag_image(), "png")))
    own_processor.wait_for_end("regions", oldest)
    result = f"/regions/{oldest}/results/0.json"
    assert own_processor.client.get(result).status_code == 200

    for _ in range(50):
        own_processor.start_run("regions", held, notify_url=f"{server.url}/busy")
    refused = own_processor.client.post("/regions/start", json=own_processor.build_start_body(held))

    assert (refused.status_code, refused.json()) == (503, {"error": "Too many runs are waiting."})
    assert own_processor.client.get(f"/regions/{oldest}/status").status_code == 404
    assert own_processor.client.get(result).status_code == 404


DOCUMENT = {"type": "image", "src": "http://127.0.0.1:9/", "uid": "one"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"documents": None}, "documents must be a list of at least one document."),
        ({"documents": []}, "documents must be a list of at least one document."),
        ({"documents": "all"}, "documents must be a list of at least one document."),
        ({"documents": [DOCUMENT] * 2001}, "documents must be a list of at most 2000 documents."),
        ({"documents": [DOCUMENT, "two"]}, "documents/1 must have type, src and uid."),
        ({"documents": [{"type": "image", "src": "http://a/"}]}, "documents/0 must have type, src and uid."),
        (
            {"documents": [{**DOCUMENT, "src": "file:///etc/passwd"}]},
            "documents/0: src must be an http or https URL.",
        ),
        ({"documents": [{**DOCUMENT, "src": "http://a:b/"}]}, "documents/0: src must be an http or https URL."),
        ({"experiment_id": None}, "experiment_id is missing."),
        ({"notify_url": None}, "notify_url must be an http or https URL."),
        ({"notify_url": "ftp://example.com/"}, "notify_url must be an http or https URL."),
        ({"notify_secret": "secret"}, "notify_secret: a secret must begin with whsec_."),
        ({"notify_secret": "whsec_?"}, "notify_secret: a secret must be base64 after whsec_."),
    ],
)
def test_a_start_that_makes_no_sense_is_400(
    reference_processor: ReferenceProcessor, change: dict[str, Any], message: str
) -> None:
    answer = reference_processor.client.post(
        "/regions/start", json={**reference_processor.build_start_body(DOCUMENT), **change}
    )

    assert (answer.status_code, answer.json()) == (400, {"error": message})


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 400), (b"{", 400), (b"[]", 400), (b"[" * 100_000, 400), (b"\xff", 400), (b" " * (4 * 2**20 + 1), 413)],
    ids=["empty", "unfinished", "a list", "deep", "not text", "5 MiB"],
)
def test_a_body_that_is_no_request_is_refused(
    reference_processor: ReferenceProcessor, content: bytes, status: int
) -> None:
    answer = reference_processor.client.post("/regions/start", content=content)

    assert (answer.status_code, list(answer.json())) == (status, ["error"])


def test_unknown_tasks_runs_and_results_are_404(
    reference_processor: ReferenceProcessor, server: CallbackServer
) -> None:
    tracking_id = reference_processor.start_run(
        "regions", server.document("one", encode_image(make_flag_image(), "png"))
    )
    reference_processor.wait_for_end("regions", tracking_id)
    ask: Callable[[str], httpx.Response] = reference_processor.client.get

    answers = [
        reference_processor.client.post("/vectorization/start", json=reference_processor.build_start_body(DOCUMENT)),
        reference_processor.client.post("/regions/unknown/cancel"),
        ask("/regions/unknown/status"),
        ask(f"/similarity/{tracking_id}/status"),
        ask(f"/regions/{tracking_id}/results/7.json"),
        ask(f"/regions/{tracking_id}/results/..%2f..%2fsecret.json"),
    ]

    assert [(answer.status_code, list(answer.json())) for answer in answers] == [(404, ["error"])] * 6


def test_a_repeated_start_is_another_run(reference_processor: ReferenceProcessor, server: CallbackServer) -> None:
    document = server.document("one", encode_image(make_flag_image(), "png"))

    first = reference_processor.start_run("regions", document)
    second = reference_processor.start_run("regions", document, notify_url=f"{server.url}/second")

    wait_until(lambda: server.list_event_names()[-1:] == server.list_event_names("/second")[-1:] == ["SUCCESS"])
    assert {callback["tracking_id"] for callback in server.list_messages()} == {first}
    assert {callback["tracking_id"] for callback in server.list_messages("/second")} == {second}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_at_once_and_leaves_nothing(
    own_processor: ReferenceProcessor, server: CallbackServer, tmp_path: Path, how: signal.Signals
) -> None:
    own_processor.start_run("regions", server.document("one", encode_image(make_flag_image(), "png"), "held/"))
    wait_until(lambda: server.list_event_names() == ["STARTED"])
    began = time.monotonic()

    own_processor.process.send_signal(how)

    assert own_processor.process.wait(10) == 0
    assert time.monotonic() - began < 2
    assert server.list_event_names() == ["STARTED", "ERROR"]
    assert server.list_messages()[-1]["message"] == "The processor was stopped."
    assert list(tmp_path.glob("processor-*")) == []


def test_a_server_that_is_gone_does_not_keep_it_from_stopping(
    own_processor: ReferenceProcessor, server: CallbackServer
) -> None:
    document = server.document("one", encode_image(make_flag_image(), "png"), "held/")
    own_processor.start_run("regions", document, notify_url="http://127.0.0.1:9/")
    began = time.monotonic()

    own_processor.process.terminate()

    assert own_processor.process.wait(10) == 0
    assert time.monotonic() - began < 2
