"""/overview is compatible with clients of the work queue; tested with real processes and programs."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.database import commit, open_transaction
from app.jobs import lifecycle, submission
from app.overview import progress
from tests.conftest import wait_until
from tests.dataset import Dataset, get_data
from tests.programs.conftest import PYTHON, ProgramDirectory
from tests.worker_process import run_process

pytestmark = pytest.mark.faults

SERVER = "https://overview.example.com"
FIELDS = ["n_ahead_in_queue", "fraction", "message", "returncode", "error"]

SLOW_PROGRAM = f"""{PYTHON}
import os, pathlib, sys, time
server, document_set_id, output = sys.argv[1:]
print("0.25\\treading", flush=True)
while not pathlib.Path(document_set_id.partition("?")[0]).exists():
    time.sleep(0.02)
about = document_set_id.rpartition("?")[2], len(os.environ["API_TOKEN"])
pathlib.Path(output).write_text('{{"set": "%s", "length": %d}}' % about)
"""
"""Program that runs until the file exists whose path is the beginning of the document set id."""
QUICK_PROGRAM = 'printf \'["%s", "%s"]\' "$2" "$(printf %s "$API_TOKEN" | wc -c)" > "$3"'


def basic_auth_header(token: str) -> dict[str, str]:
    """Return the Authorization header for a token."""
    return {"Authorization": f"Basic {b64encode(f'{token}:x-api-token'.encode()).decode()}"}


class OverviewPlugin:
    """A server with programs, its relay and a worker with one slot."""

    def __init__(self, environment: dict[str, str], directory: Path, stack: ExitStack) -> None:
        self.programs = ProgramDirectory(directory / "programs")
        self.environment = {
            **environment,
            "JOB_PROGRAMS_DIR": str(self.programs.directory),
            "WORKER_CONCURRENCY": "1",
        }
        self.url = f"http://127.0.0.1:{environment['PORT']}/overview"
        self.log = directory / "output"
        for name in (("web",), ("relay", "2"), ("worker",)):
            stack.enter_context(run_process(self.environment, self.log, *name))
        wait_until(self._answers, 30)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/metadata", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def generate(self, form: dict[str, str], **headers: str) -> Any:
        """Send a request and return all elements of the stream, after its end."""
        answer = httpx.post(f"{self.url}/generate", data=form, headers=headers, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        return answer.json()

    @contextmanager
    def open_stream(self, form: dict[str, str], **headers: str) -> Iterator[Iterator[dict[str, Any]]]:
        """Send a request and yield an iterator of the elements as they arrive."""
        url = f"{self.url}/generate"
        with (
            httpx.Client(trust_env=False, timeout=60) as client,
            client.stream("POST", url, data=form, headers=headers) as answer,
        ):
            yield iterate_elements(answer.iter_text())

    def search_files(self, token: str, **asked: str) -> httpx.Response:
        """Request the output of the program."""
        return httpx.get(f"{self.url}/search", params=asked, headers=basic_auth_header(token), trust_env=False)


def iterate_elements(parts: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON array while it is received."""
    decoder, text = json.JSONDecoder(), ""
    for part in parts:
        text += part
        while (start := text.find("{")) >= 0:
            try:
                element, end = decoder.raw_decode(text, start)
            except json.JSONDecodeError:
                break
            text = text[end:]
            yield element


@pytest.fixture(scope="module")
def plugin(
    app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OverviewPlugin]:
    """Start the processes once for the tests of this module."""
    with ExitStack() as stack:
        yield OverviewPlugin(environment, tmp_path_factory.mktemp("plugin"), stack)


ClientWith = Callable[..., FlaskClient]


@pytest.fixture
def client_with(app: Flask, make_app: Callable[..., Flask], tmp_path: Path) -> ClientWith:
    """Return a function that makes a client of a server with an empty programs directory and the given settings."""
    return lambda **settings: make_app(JOB_PROGRAMS_DIR=str(tmp_path), **settings).test_client()


@pytest.fixture
def client(client_with: ClientWith) -> FlaskClient:
    """Return a client of a server without further settings."""
    return client_with()


def test_a_run_says_how_far_it_is_and_what_it_made_is_found(app: Flask, plugin: OverviewPlugin, tmp_path: Path) -> None:
    plugin.programs.add_program("process-docset", SLOW_PROGRAM)
    done = tmp_path / "done"
    asked = {"server": SERVER, "documentSetId": f"{done}?1234"}

    with plugin.open_stream(asked, **basic_auth_header("secret-one")) as watched:
        while (element := next(watched))["fraction"] < 0.25:
            assert list(element) == FIELDS
        assert list(element.values()) == [0, 0.25, "reading", None, None]
        assert plugin.search_files("secret-one", **asked).status_code == 404
        done.touch()
        *_, last = watched

    assert last == {"n_ahead_in_queue": 0, "fraction": 1.0, "message": None, "returncode": 0, "error": None}
    found = plugin.search_files("secret-one", **asked)
    assert (found.status_code, found.json()) == (200, {"set": "1234", "length": 10})
    assert plugin.generate(asked, **basic_auth_header("secret-one")) == []
    assert plugin.search_files("secret-two", **asked).status_code == 404
    assert plugin.generate({**asked, "apiToken": "secret-two"})[-1]["returncode"] == 0


def test_a_client_that_went_away_finds_the_present_state(app: Flask, plugin: OverviewPlugin, tmp_path: Path) -> None:
    plugin.programs.add_program("process-docset", SLOW_PROGRAM)
    done = tmp_path / "done"
    form = {"server": SERVER, "document_set_id": str(done), "api_token": "t"}

    with plugin.open_stream(form) as watched:
        while next(watched)["fraction"] < 0.25:
            continue
    with plugin.open_stream(form) as watched:
        assert next(watched)["message"] == "reading"
        done.touch()
        assert [each["returncode"] for each in watched][-1] == 0


def test_queued_job_streams_its_queue_position(app: Flask, plugin: OverviewPlugin, tmp_path: Path) -> None:
    plugin.programs.add_program("process-docset", SLOW_PROGRAM)
    done = tmp_path / "done"
    first, second = ({"server": SERVER, "documentSetId": f"{done}?{number}", "apiToken": "t"} for number in "12")

    with plugin.open_stream(first) as watched:
        while next(watched)["fraction"] < 0.25:
            continue
        with plugin.open_stream(second) as waiting:
            assert next(waiting)["n_ahead_in_queue"] == 1
            done.touch()
            assert [each["returncode"] for each in waiting][-1] == 0


def test_a_program_that_fails_says_why(app: Flask, plugin: OverviewPlugin) -> None:
    plugin.programs.add_program("process-docset", 'echo "no such set: $API_TOKEN" >&2; exit 3')

    *_, last = plugin.generate({"server": SERVER, "documentSetId": "1", "apiToken": "very-secret"})

    assert (last["returncode"], last["error"]) == (3, "no such set: [hidden]\n")
    plugin.programs.add_program("process-docset", QUICK_PROGRAM)
    assert plugin.generate({"server": SERVER, "documentSetId": "1", "apiToken": "very-secret"})[-1]["returncode"] == 0


def test_a_server_is_the_same_with_and_without_a_slash_at_its_end(app: Flask, plugin: OverviewPlugin) -> None:
    plugin.programs.add_program("process-docset", """printf '["%s"]' "$1" > "$3" """)
    asked = {"server": SERVER, "documentSetId": "1"}
    with_slash = {**asked, "server": f"{SERVER}/"}

    assert plugin.generate(with_slash, **basic_auth_header("t"))[-1]["returncode"] == 0

    assert plugin.generate(asked, **basic_auth_header("t")) == []
    assert [plugin.search_files("t", **each).json() for each in (asked, with_slash)] == [[SERVER], [SERVER]]


def test_a_program_that_is_not_there_is_an_error_of_the_run(app: Flask, plugin: OverviewPlugin) -> None:
    (plugin.programs.directory / "process-docset").unlink(missing_ok=True)

    *_, last = plugin.generate({"server": SERVER, "documentSetId": "1", "apiToken": "t"})

    assert last["returncode"] is None
    assert last["error"]


def test_the_token_is_in_no_command_line_log_or_answer(
    app: Flask, plugin: OverviewPlugin, dataset: Dataset, tmp_path: Path
) -> None:
    plugin.programs.add_program("process-docset", SLOW_PROGRAM)
    done = tmp_path / "done"
    token = "only-for-the-environment"

    with plugin.open_stream({"server": SERVER, "documentSetId": str(done)}, **basic_auth_header(token)) as watched:
        while next(watched)["fraction"] < 0.25:
            continue
        lines = [" ".join(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])]
        assert any(str(done) in line for line in lines)
        assert not any(token in line for line in lines)
        done.touch()
        assert [each["returncode"] for each in watched][-1] == 0

    (job,) = get_data(dataset.admin.get("/v1/jobs"))
    assert job["attributes"]["parameters"] == {"server": SERVER, "document_set_id": str(done)}
    assert get_data(dataset.stranger.get("/v1/jobs")) == []
    assert token not in plugin.log.read_text()
    assert b64encode(token.encode())[:12].decode() not in plugin.log.read_text()


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ({}, basic_auth_header("t")),
        ({"server": SERVER}, basic_auth_header("t")),
        ({"server": SERVER, "documentSetId": ""}, basic_auth_header("t")),
        ({"server": SERVER, "documentSetId": "1\n2"}, basic_auth_header("t")),
        ({"server": SERVER, "documentSetId": "1" * 501}, basic_auth_header("t")),
        ({"server": "ftp://x", "documentSetId": "1"}, basic_auth_header("t")),
        ({"server": "https://[", "documentSetId": "1"}, basic_auth_header("t")),
        ({"server": "http://a\u2100b", "documentSetId": "1"}, basic_auth_header("t")),
        ({"server": SERVER, "documentSetId": "1"}, {}),
        ({"server": SERVER, "documentSetId": "1"}, {"Authorization": "Bearer x"}),
        ({"server": SERVER, "documentSetId": "1"}, {"Authorization": "Basic !"}),
        ({"server": SERVER, "documentSetId": "1"}, {"Authorization": "Basic eHg="}),
        ({"server": SERVER, "documentSetId": "1"}, basic_auth_header("../../etc")),
        ({"server": SERVER, "documentSetId": "1", "apiToken": "a b"}, {}),
    ],
)
def test_invalid_request_is_400_with_reason(client: FlaskClient, form: dict[str, str], headers: dict[str, str]) -> None:
    answer = client.post("/overview/generate", data=form, headers=headers)

    assert answer.status_code == 400
    (error,) = answer.get_json(force=True)["errors"]
    assert error["detail"].startswith("Expected form data")
    assert "Problem: " in error["detail"]


@pytest.mark.parametrize(
    ("query", "source"),
    [
        ({}, {"parameter": "server"}),
        ({"server": "ftp://x", "documentSetId": "1"}, {"parameter": "server"}),
        ({"server": SERVER}, {"parameter": "documentSetId"}),
        ({"server": SERVER, "document_set_id": "1\n2"}, {"parameter": "document_set_id"}),
        ({"server": SERVER, "documentSetId": "1"}, {"header": "Authorization"}),
    ],
)
def test_refused_search_names_its_parameter_or_header(
    client: FlaskClient, query: dict[str, str], source: dict[str, str]
) -> None:
    answer = client.get("/overview/search", query_string=query)

    (error,) = answer.get_json(force=True)["errors"]
    assert (answer.status_code, error["source"]) == (400, source)


def test_only_servers_that_are_listed_are_asked_for(client_with: ClientWith) -> None:
    client = client_with(OVERVIEW_SERVERS=f"{SERVER}/,https://other.example.com")
    form = {"documentSetId": "1", "apiToken": "t"}

    assert client.post("/overview/generate", data={**form, "server": "https://evil.example.com"}).status_code == 400
    listed = client.get(f"/overview/search?server={SERVER}&documentSetId=1", headers=basic_auth_header("t"))
    assert listed.status_code == 404
    assert (
        f"frame-ancestors {SERVER} https://other.example.com"
        in client.get("/overview/show").headers["Content-Security-Policy"]
    )


def test_without_a_list_any_server_is_asked_for_but_in_production(client: FlaskClient) -> None:
    url = f"/overview/search?server={SERVER}&documentSetId=1"

    def request_run() -> tuple[int, str]:
        policy = client.get("/overview/show").headers["Content-Security-Policy"]
        return client.get(url, headers=basic_auth_header("t")).status_code, policy.rpartition(" ")[2]

    in_development = request_run()
    client.application.config["APP_ENV"] = "production"

    assert (in_development, request_run()) == ((404, "*"), (400, "'none'"))


def test_a_program_for_admins_alone_is_not_there_for_those_with_a_token(
    client: FlaskClient, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "process-docset.json").write_text('{"may-start": "admins"}')
    capsys.readouterr()

    answer = client.post("/overview/generate", data={"server": SERVER, "documentSetId": "1", "apiToken": "t"})

    assert answer.status_code == 503
    assert get_data(dataset.admin.get("/v1/jobs")) == []
    assert "may-start: must be anyone" in capsys.readouterr().out


def test_a_token_in_a_url_is_not_looked_at(client: FlaskClient) -> None:
    answer = client.get(f"/overview/search?server={SERVER}&documentSetId=1&apiToken=t")

    assert answer.status_code == 400


def test_the_runs_of_one_address_are_limited(client_with: ClientWith) -> None:
    client = client_with(RATELIMIT_ENABLED="1")

    answers = [client.post("/overview/generate").status_code for _ in range(30)]

    assert answers.count(400) == 20
    assert answers[-1] == 429


def test_the_searches_of_one_address_are_limited_but_may_be_many(client_with: ClientWith) -> None:
    client = client_with(RATELIMIT_ENABLED="1")

    answers = [client.get("/overview/search").status_code for _ in range(130)]

    assert answers.count(400) == 120
    assert answers[-1] == 429
    assert client.post("/overview/generate").status_code == 400


def test_without_a_directory_of_programs_there_is_nothing(app: Flask) -> None:
    client = app.test_client()

    for path in ("metadata", "show", "search", "static/overview.js"):
        assert client.get(f"/overview/{path}").status_code == 404
    assert client.post("/overview/generate", data={"server": SERVER}).status_code == 404


def test_the_metadata_may_be_read_from_elsewhere(client: FlaskClient) -> None:
    answer = client.get("/overview/metadata")

    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.get_json()["title"] == "Run the program process-docset"


def test_silence_is_white_space_within_the_array(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "KEEP_ALIVE_INTERVAL_SECONDS", 0.1)
    with dataset.app.app_context(), open_transaction(is_read=False):
        job = submission.submit_job("sleep", {"seconds": 1}, trigger="api", owner_id=None).job
        claimed = lifecycle.claim_job(job.id, "tests", timedelta(minutes=5))
        commit()
    assert claimed is not None

    with dataset.app.test_request_context():
        parts = progress.ProgressStream(claimed)
        text = b""
        while not text.endswith(b"  "):
            text += next(parts)
        with open_transaction(is_read=False):
            lifecycle.finish_succeeded(claimed, None)
            commit()
        text += b"".join(parts)
        parts.close()

    assert b"\n" not in text
    assert [each["returncode"] for each in json.loads(text)][-1] == 0
