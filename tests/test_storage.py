"""Storage of files in a directory and in an S3 bucket: atomic writes, valid names, and responses for files."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from threading import Event
from urllib.parse import quote
from uuid import uuid4

import httpx
import psutil
import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.processes.process_tree import set_pdeathsig
from app.storage import (
    CACHE_IMMUTABLE,
    CHUNK_BYTES,
    MAX_FILE_STREAMS_PER_ADDRESS,
    FileChanged,
    Storage,
    send_stored_file,
)
from tests.conftest import ROOT, find_free_port, wait_until

pytestmark = pytest.mark.long

CALENDAR = b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n"
DIGITS = b"0123456789"
LARGE_CONTENT = os.urandom(2 * CHUNK_BYTES + 5)
PUBLIC_URL = "https://events.example.com"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start an S3 server for the test run; yield its URL."""
    port = find_free_port()
    with (tmp_path_factory.mktemp("s3") / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=set_pdeathsig(),
        )
    wait_until(lambda: _is_listening(port), 30, "S3 listens")
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait(10)


def _is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture
def bucket_url(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Create an empty bucket and set the environment variables that give access to it; return its URL."""
    settings = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "testtest", "REGION": "us-east-1", "ENDPOINT_URL": s3}
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    bucket = f"files-{uuid4().hex}"
    httpx.put(f"{s3}/{bucket}", trust_env=False).raise_for_status()
    return f"s3://{bucket}"


@pytest.fixture(params=["directory", "bucket"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a directory that does not exist yet, with a space in its path, or of a bucket."""
    if request.param == "directory":
        return (tmp_path / "some files").as_uri()
    url: str = request.getfixturevalue("bucket_url")
    return url


@pytest.fixture
def storage(storage_url: str) -> Storage:
    """Return a storage in a directory or in a bucket."""
    return Storage(storage_url, PUBLIC_URL)


@pytest.fixture
def public_storage(app: Flask, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """Use the storage for the routes of the app."""
    monkeypatch.setitem(app.extensions, "storage", storage)
    return storage


@pytest.fixture
def directory(tmp_path: Path) -> Storage:
    """Return a storage in a directory, for tests that apply to directories only."""
    return Storage((tmp_path / "some files").as_uri(), PUBLIC_URL)


def test_put_then_read_returns_content(storage: Storage) -> None:
    storage.put("calendars/a.ics", CALENDAR, "text/calendar")
    storage.put("calendars/a.ics", CALENDAR * 2, "text/calendar")

    assert storage.read_file("calendars/a.ics") == CALENDAR * 2


def test_delete_is_idempotent(storage: Storage) -> None:
    storage.put("calendars/a.ics", CALENDAR, "text/calendar")

    storage.delete("calendars/a.ics")
    storage.delete("calendars/a.ics")

    with pytest.raises(FileNotFoundError):
        storage.read_file("calendars/a.ics")
    assert not storage.exists("calendars/a.ics")


def test_nothing_unfinished_is_left_in_the_directory(directory: Storage, tmp_path: Path) -> None:
    directory.put("calendars/a.ics", CALENDAR, "text/calendar")

    assert _list_files(tmp_path) == ["a.ics"]


def _list_files(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "some files").rglob("*") if path.is_file()]


def test_open_files_and_iterators_are_put_whole(storage: Storage, tmp_path: Path) -> None:
    content = LARGE_CONTENT * 4  # more than one part of an upload
    (tmp_path / "big").write_bytes(content)

    with (tmp_path / "big").open("rb") as file:
        storage.put("jobs/file.zip", file, "application/zip")
    storage.put("jobs/iterator.zip", (content[at : at + 999_999] for at in range(0, len(content), 999_999)), "x/y")
    storage.put("jobs/memory.zip", io.BytesIO(content), "application/zip")
    storage.put("jobs/empty.zip", iter([]), "application/zip")

    assert {storage.read_file(f"jobs/{name}.zip") == content for name in ("file", "iterator", "memory")} == {True}
    assert storage.read_file("jobs/empty.zip") == b""


def test_a_file_is_known_by_its_content(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(LARGE_CONTENT)

    name = storage.put_content_addressed("images", LARGE_CONTENT, "jpg", "image/jpeg")
    first = storage.stat(name)
    with (tmp_path / "big").open("rb") as file:
        file.seek(100)
        again = storage.put_content_addressed("images", file, "jpg", "image/jpeg")
        other = storage.put_content_addressed("uploads", file, "jpg", "image/jpeg")

    assert name == again == f"images/{sha256(LARGE_CONTENT).hexdigest()}.jpg"
    assert storage.stat(name) == first, "it was not written again"
    assert storage.read_file(other) == LARGE_CONTENT


def test_stat_tells_size_and_whether_it_is_another(storage: Storage) -> None:
    storage.put("calendars/a.ics", DIGITS, "text/calendar")
    first = storage.stat("calendars/a.ics")
    storage.put("calendars/a.ics", DIGITS[::-1], "text/calendar")
    second = storage.stat("calendars/a.ics")

    assert (first.name, first.size, second.size) == ("calendars/a.ics", 10, 10)
    assert first.etag != second.etag
    with pytest.raises(FileNotFoundError):
        storage.stat("calendars/b.ics")


@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (0, 1), (5, CHUNK_BYTES + 5), (CHUNK_BYTES, 2 * CHUNK_BYTES), (7, None), (3, 3)]
)
def test_a_stream_is_the_part_asked_for_bit_by_bit(storage: Storage, start: int, stop: int | None) -> None:
    storage.put("jobs/big.zip", LARGE_CONTENT, "application/zip")

    parts = list(storage.stream_file(storage.stat("jobs/big.zip"), start, stop))

    assert b"".join(parts) == LARGE_CONTENT[start:stop]
    assert all(0 < len(part) <= CHUNK_BYTES for part in parts)


def test_a_stream_never_mixes_two_files(storage: Storage) -> None:
    storage.put("jobs/big.zip", LARGE_CONTENT, "application/zip")
    parts = storage.stream_file(storage.stat("jobs/big.zip"))
    next(parts)
    storage.put("jobs/big.zip", LARGE_CONTENT[::-1], "application/zip")

    with pytest.raises(FileChanged):
        next(parts)


# The inbox

ODD_NAMES = [
    ".hidden",
    "IMG 0001.JPG",
    "[a].jpg",
    "a#1.jpg",
    "a%20b.jpg",
    "a&b+c.jpg",
    "a.b.jpg",
    "sub/..a.jpg",
    "sub/a.jpg",
    "~*?|\\.jpg",
    "ä 🙂.jpg",
]


def test_a_listing_has_every_file_below_the_folder_and_no_other(storage: Storage) -> None:
    for name in [*(f"inbox/1/{name}" for name in ODD_NAMES), "inbox/10/other.jpg", "inbox/2.jpg"]:
        storage.put(name, name.encode(), "image/jpeg")

    listed = storage.list_files("inbox/1")

    assert [stored.name for stored in listed] == sorted(f"inbox/1/{name}" for name in ODD_NAMES)
    assert all(storage.read_file(stored.name) == stored.name.encode() for stored in listed)
    assert all(stored == storage.stat(stored.name) for stored in listed)
    assert storage.list_files("inbox/3") == []


def test_a_listing_of_more_than_a_page_is_whole(bucket_url: str) -> None:
    storage = Storage(bucket_url, PUBLIC_URL)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: storage.put(f"inbox/1/{number}.jpg", b"", "image/jpeg"), range(1001)))

    assert len(storage.list_files("inbox/1")) == 1001


def test_the_object_that_stands_for_a_folder_is_no_file(bucket_url: str, s3: str) -> None:
    storage = Storage(bucket_url, PUBLIC_URL)
    httpx.put(f"{s3}/{bucket_url.removeprefix('s3://')}/inbox/1/", trust_env=False).raise_for_status()

    assert storage.list_files("inbox/1") == []


@pytest.mark.parametrize("name", [b"a\nb.jpg", b"\xff.jpg"])
def test_a_file_whose_name_cannot_be_is_reported(directory: Storage, tmp_path: Path, name: bytes) -> None:
    directory.put("inbox/1/a.jpg", b"", "image/jpeg")
    Path(os.fsdecode(bytes(tmp_path / "some files" / "inbox" / "1") + b"/" + name)).touch()

    with pytest.raises(ValueError, match="a file below inbox/1 has an invalid name"):
        directory.list_files("inbox/1")


@pytest.mark.parametrize("folder", ["", "/", "inbox/", "/inbox", "../inbox", "inbox/..", "inbox//1", "a b", "in.box"])
def test_a_folder_that_is_not_ours_is_refused(directory: Storage, folder: str) -> None:
    with pytest.raises(ValueError, match="not a valid folder name"):
        directory.list_files(folder)


# Names and URLs


def test_a_url_is_absolute_and_leads_back_to_the_name(storage: Storage) -> None:
    url = storage.get_url("calendars/a.ics")

    assert url == "https://events.example.com/files/calendars/a.ics"
    assert storage.get_name_from_url(url) == "calendars/a.ics"
    assert storage.get_name_from_url("http://where.we.were.before/files/calendars/a.ics") == "calendars/a.ics"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "/a.ics",
        "../a.ics",
        "a/../b.ics",
        "a//b.ics",
        ".a.ics",
        "a.b.ics",
        "a b.ics",
        "a.ics\n",
        "ä.ics",
        "inbox",
        "inbox/",
        "inbox/..",
        "inbox/../secret",
        "inbox/1/../../secret",
        "inbox/./a.jpg",
        "inbox//a.jpg",
        "inbox/1/a.jpg\n",
        "inbox/1/a\x00.jpg",
        "/inbox/1/a.jpg",
        "inbox/" + "a" * 256,
    ],
)
def test_a_name_that_is_not_ours_is_refused(storage: Storage, name: str) -> None:
    acts = (
        storage.read_file,
        storage.delete,
        storage.get_url,
        storage.stat,
        lambda name: storage.put(name, b"", "x/y"),
    )
    for act in acts:
        with pytest.raises(ValueError, match="not a valid file name"):
            act(name)


@pytest.mark.parametrize("name", ["jobs/1/a.jpg", "inbox/1/a.jpg", "uploads/private/a.jpg", "a.jpg"])
def test_a_private_file_has_no_url(directory: Storage, name: str) -> None:
    with pytest.raises(ValueError, match="is not a public file"):
        directory.get_url(name)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (f"{PUBLIC_URL}/files/images/a.jpg", "images/a.jpg"),
        (f"{PUBLIC_URL}/files/jobs/1/a.jpg", None),
        (f"{PUBLIC_URL}/files/inbox/1/a.jpg", None),
        (f"{PUBLIC_URL}/files/uploads/private/a.jpg", None),
        (f"{PUBLIC_URL}/files/images/../jobs/a.jpg", None),
        (f"{PUBLIC_URL}/files/images/a.jpg?b", "images/a.jpg"),  # the same file, whatever follows
        (f"{PUBLIC_URL}/files/images/a.jpg#b", "images/a.jpg"),
        (f"{PUBLIC_URL}?/files/images/a.jpg", None),
        (f"{PUBLIC_URL}/files/jobs/1/a.jpg?/files/images/a.jpg", None),
        (f"{PUBLIC_URL}/v1/files/images/a.jpg", None),
        ("https://elsewhere.example.com/files/images/a.jpg", None),
        (f"{PUBLIC_URL}.example.com/files/images/a.jpg", None),
        ("/files/images/a.jpg", None),
        ("", None),
    ],
)
def test_only_our_own_url_of_a_public_file_names_one(directory: Storage, url: str, name: str | None) -> None:
    assert directory.get_public_name(url) == name


# Concurrent and interrupted writers


def test_concurrent_writers_leave_one_complete_file(storage: Storage) -> None:
    contents = [bytes([number]) * 6_000_000 for number in range(6)]
    storage.put("jobs/a.zip", contents[0], "application/zip")
    over, seen = Event(), set[bytes]()

    def read() -> None:
        while not over.is_set():
            seen.add(storage.read_file("jobs/a.zip"))

    with ThreadPoolExecutor(7) as pool:
        reader = pool.submit(read)
        writers = [pool.submit(storage.put, "jobs/a.zip", iter([content]), "x/y") for content in contents]
        for writer in writers:
            writer.result()
        over.set()
        reader.result()

    assert seen <= set(contents)
    assert storage.read_file("jobs/a.zip") in contents
    assert [stored.name for stored in storage.list_files("jobs")] == ["jobs/a.zip"]


def test_a_put_that_fails_leaves_what_was_there(storage: Storage) -> None:
    def fail_midway() -> Iterator[bytes]:
        yield bytes(12_000_000)
        raise RuntimeError("no more of it")

    storage.put("jobs/a.zip", DIGITS, "application/zip")

    for name in ("jobs/a.zip", "jobs/b.zip"):
        with pytest.raises(RuntimeError, match="no more of it"):
            storage.put(name, fail_midway(), "application/zip")

    assert [stored.name for stored in storage.list_files("jobs")] == ["jobs/a.zip"]
    assert storage.read_file("jobs/a.zip") == DIGITS


def test_a_put_that_fails_leaves_no_part_in_the_directory(directory: Storage, tmp_path: Path) -> None:
    test_a_put_that_fails_leaves_what_was_there(directory)

    assert _list_files(tmp_path) == ["a.zip"]


WRITER_SCRIPT = """
import sys
from app.storage import Storage

def endless():
    for number in range(1 << 30):
        yield bytes(1_000_000)
        if number == 12:
            print("writing", flush=True)
            sys.stdin.read()

Storage(sys.argv[1], "").put("jobs/a.zip", endless(), "application/zip")
"""


def test_a_writer_that_is_killed_leaves_nothing_to_be_seen(storage: Storage, storage_url: str) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER_SCRIPT, storage_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=set_pdeathsig(),
        cwd=ROOT,
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        writer.send_signal(signal.SIGKILL)

    assert not storage.exists("jobs/a.zip")
    assert storage.list_files("jobs") == []
    storage.put("jobs/a.zip", DIGITS, "application/zip")
    assert storage.read_file("jobs/a.zip") == DIGITS


def test_a_large_file_is_never_in_memory(
    client: FlaskClient, app: Flask, directory: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.extensions, "storage", directory)
    process = psutil.Process()
    name = f"uploads/{'0' * 64}.zip"
    directory.put("uploads/warm.zip", iter([LARGE_CONTENT]), "application/zip")
    used = before = process.memory_info().rss
    sent = 0

    def content() -> Iterator[bytes]:
        nonlocal used
        for _ in range(200):
            used = max(used, process.memory_info().rss)
            yield bytes(CHUNK_BYTES)

    directory.put(name, content(), "application/zip")
    with client.get(f"/files/{name}", buffered=False) as response:
        for part in response.iter_encoded():
            sent += len(part)
            used = max(used, process.memory_info().rss)

    assert sent == response.content_length == 200 * CHUNK_BYTES
    assert used - before < 60_000_000


FORK_SCRIPT = """
import os, sys
from app.storage import Storage

storage = Storage(sys.argv[1], "")
storage.put("jobs/a.zip", b"", "application/zip")
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
storage.read_file("jobs/a.zip")
"""


def test_a_fork_of_a_process_that_used_it_fails_and_does_not_hang(storage_url: str) -> None:
    forker = subprocess.run(
        [sys.executable, "-c", FORK_SCRIPT, storage_url], capture_output=True, timeout=20, cwd=ROOT, check=False
    )

    assert forker.returncode == 1
    assert b"RuntimeError: The storage was used before this process was forked" in forker.stderr


# Responses for public files


def test_a_file_is_served_with_its_type(client: FlaskClient, public_storage: Storage) -> None:
    public_storage.put("calendars/a.ics", CALENDAR, "text/calendar")

    response = client.get("/files/calendars/a.ics")

    assert response.status_code == 200
    assert response.data == CALENDAR
    assert response.headers["Content-Type"] == "text/calendar; charset=utf-8"
    assert response.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert response.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    ("suffix", "media_type"),
    [
        ("jpg", "image/jpeg"),
        ("jpeg", "image/jpeg"),
        ("png", "image/png"),
        ("webp", "image/webp"),
        ("zip", "application/zip"),
        ("json", "application/json"),
    ],
)
def test_content_addressed_file_is_immutable_cacheable(
    client: FlaskClient, app: Flask, directory: Storage, monkeypatch: pytest.MonkeyPatch, suffix: str, media_type: str
) -> None:
    monkeypatch.setitem(app.extensions, "storage", directory)
    name = directory.put_content_addressed("images", DIGITS, suffix, media_type)

    response = client.get(directory.get_url(name).removeprefix(PUBLIC_URL))

    assert (response.status_code, response.data, response.content_type) == (200, DIGITS, media_type)
    assert response.headers["Cache-Control"] == CACHE_IMMUTABLE


def test_head_tells_the_length_without_the_content(client: FlaskClient, public_storage: Storage) -> None:
    public_storage.put("calendars/a.ics", CALENDAR, "text/calendar")

    response = client.head("/files/calendars/a.ics", headers={"Range": "bytes=0-0"})

    assert (response.status_code, response.data) == (200, b"")
    assert response.content_length == len(CALENDAR)
    assert response.headers["Accept-Ranges"] == "bytes"


def test_an_unchanged_file_is_not_sent_again(client: FlaskClient, public_storage: Storage) -> None:
    public_storage.put("calendars/a.ics", CALENDAR, "text/calendar")
    etag = client.get("/files/calendars/a.ics").headers["ETag"]

    same = client.get("/files/calendars/a.ics", headers={"If-None-Match": etag, "Range": "bytes=0-1"})
    public_storage.put("calendars/a.ics", CALENDAR * 2, "text/calendar")
    changed = client.get("/files/calendars/a.ics", headers={"If-None-Match": etag})
    gone = client.get("/files/calendars/a.ics", headers={"If-Match": etag})

    assert etag.startswith('"')
    assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", etag)
    assert same.headers["Cache-Control"] == "no-cache"
    assert changed.status_code == 200
    assert gone.status_code == 412


def test_an_empty_file_is_served(client: FlaskClient, public_storage: Storage) -> None:
    public_storage.put("calendars/a.ics", b"", "text/calendar")

    whole = client.get("/files/calendars/a.ics")
    part = client.get("/files/calendars/a.ics", headers={"Range": "bytes=0-"})

    assert (whole.status_code, whole.data, whole.content_length) == (200, b"", 0)
    assert (part.status_code, part.headers["Content-Range"]) == (416, "bytes */0")


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=2-5", 2, 6),
        ("bytes=0-", 0, 10),
        ("bytes=7-", 7, 10),
        ("bytes=7-99999999999999999999", 7, 10),
        ("bytes=-3", 7, 10),
        ("bytes=-99", 0, 10),
        ("BYTES = 2-5 ", 2, 6),
    ],
)
def test_a_range_is_sent_alone(client: FlaskClient, public_storage: Storage, asked: str, start: int, stop: int) -> None:
    public_storage.put("uploads/a.zip", DIGITS, "application/zip")

    response = client.get("/files/uploads/a.zip", headers={"Range": asked})

    assert (response.status_code, response.data) == (206, DIGITS[start:stop])
    assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/10"
    assert response.content_length == stop - start
    assert response.content_type == "application/zip"


@pytest.mark.parametrize(
    "asked", ["", "bytes", "bytes=", "bytes=a-b", "bytes=5-2", "bytes=-0", "bytes=0-1,4-5", "lines=0-1", "bytes=--1"]
)
def test_a_range_that_is_not_one_brings_the_whole(client: FlaskClient, public_storage: Storage, asked: str) -> None:
    public_storage.put("uploads/a.zip", DIGITS, "application/zip")

    response = client.get("/files/uploads/a.zip", headers={"Range": asked})

    assert (response.status_code, response.data) == (200, DIGITS)
    assert "Content-Range" not in response.headers


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-12", "bytes=99999999999999999999-"])
def test_a_range_beyond_the_end_is_416(client: FlaskClient, public_storage: Storage, asked: str) -> None:
    public_storage.put("uploads/a.zip", DIGITS, "application/zip")

    response = client.get("/files/uploads/a.zip", headers={"Range": asked})

    assert (response.status_code, response.headers["Content-Range"]) == (416, "bytes */10")
    assert response.content_type == "application/vnd.api+json"
    assert response.json["errors"][0]["source"] == {"header": "Range"}


def test_a_range_of_another_file_brings_the_whole(client: FlaskClient, public_storage: Storage) -> None:
    public_storage.put("uploads/a.zip", DIGITS, "application/zip")
    etag = client.get("/files/uploads/a.zip").headers["ETag"]

    def status(if_range: str) -> int:
        return client.get("/files/uploads/a.zip", headers={"Range": "bytes=0-1", "If-Range": if_range}).status_code

    assert status(etag) == 206
    assert status(f"W/{etag}") == 200
    assert status('"another"') == 200
    assert status("Sat, 21 Nov 2026 05:42:38 GMT") == 200


def test_a_download_can_be_taken_up_again(client: FlaskClient, public_storage: Storage) -> None:
    public_storage.put("uploads/a.zip", LARGE_CONTENT, "application/zip")

    first = client.get("/files/uploads/a.zip", headers={"Range": f"bytes=0-{CHUNK_BYTES}"})
    rest = client.get(
        "/files/uploads/a.zip", headers={"Range": f"bytes={CHUNK_BYTES + 1}-", "If-Range": first.headers["ETag"]}
    )

    assert first.data + rest.data == LARGE_CONTENT


def test_a_file_replaced_just_before_it_is_read_is_served_as_it_is_now(
    client: FlaskClient, public_storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    public_storage.put("calendars/a.ics", DIGITS, "text/calendar")
    looks = [public_storage.stat("calendars/a.ics")]
    public_storage.put("calendars/a.ics", CALENDAR, "text/calendar")
    stat: Callable[[str], object] = public_storage.stat
    monkeypatch.setattr(public_storage, "stat", lambda name: looks.pop() if looks else stat(name))

    response = client.get("/files/calendars/a.ics")

    assert (response.status_code, response.data) == (200, CALENDAR)
    assert looks == []


@pytest.mark.parametrize(
    "path",
    [
        "",
        "calendars",
        "calendars/",
        "calendars/none.ics",
        "calendars/a.txt",
        "../secret-key",
        "%2e%2e/secret.ics",
        "calendars%2f..%2f..%2fsecret.ics",
        "..%5csecret.ics",
        "a%00.ics",
        "calendars/a.ics%0a",
        "calendars/a.ics/",
        "calendars//a.ics",
        "Calendars/a.ics",
        "inbox/1/secret.jpg",
        "inbox/1/secret%20one.jpg",
        "jobs/1/secret.zip",
        "uploads/private/secret.jpg",
        "uploads/../jobs/1/secret.zip",
        "secret.jpg",
    ],
)
def test_private_and_invalid_paths_are_404(
    client: FlaskClient, public_storage: Storage, tmp_path: Path, path: str
) -> None:
    public_storage.put("calendars/a.ics", CALENDAR, "text/calendar")
    public_storage.put("calendars/a.txt", b"not for the web: secret", "text/plain")
    for name in ("inbox/1/secret.jpg", "inbox/1/secret one.jpg", "jobs/1/secret.zip", "uploads/private/secret.jpg"):
        public_storage.put(name, b"secret", "image/jpeg")
    public_storage.put("secret.jpg", b"secret", "image/jpeg")
    (tmp_path / "secret.ics").write_bytes(b"secret")

    response = client.get(f"/files/{path}")

    assert response.status_code == 404
    assert response.content_type == "application/vnd.api+json"
    assert b"secret" not in response.data


# Responses for private files


def test_a_private_file_is_sent_to_be_saved(app: Flask, public_storage: Storage) -> None:
    public_storage.put("jobs/1/a.html", LARGE_CONTENT, "text/html")

    with app.test_request_context(headers={"Range": "bytes=1-"}):
        response = send_stored_file("jobs/1/a.html", media_type="text/html", filename="../ä 🙂\r\n\ud800.html")

    assert (response.status_code, response.get_data()) == (206, LARGE_CONTENT[1:])
    assert response.headers["Content-Type"] == "text/html"
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert response.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    for_all, for_most = ".._? ?___.html", f"UTF-8''{quote('.._ä 🙂___.html')}"
    assert response.headers["Content-Disposition"] == f'attachment; filename="{for_all}"; filename*={for_most}'


def test_unknown_suffix_is_octet_stream(app: Flask, public_storage: Storage) -> None:
    public_storage.put("jobs/1/a.bin", DIGITS, "application/octet-stream")

    with app.test_request_context():
        response = send_stored_file("jobs/1/a.bin")

    assert response.content_type == "application/octet-stream"
    assert "Content-Disposition" not in response.headers


def test_a_file_is_left_to_the_proxy(
    app: Flask, client: FlaskClient, directory: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.extensions, "storage", directory)
    monkeypatch.setitem(app.config, "X_ACCEL_REDIRECT", "/stored-files")
    directory.put("images/a.png", LARGE_CONTENT, "image/png")

    response = client.get("/files/images/a.png", headers={"Range": "bytes=0-9", "If-None-Match": "*"})

    assert (response.status_code, response.data, response.mimetype) == (200, b"", "image/png")
    assert response.headers["X-Accel-Redirect"] == "/stored-files/images/a.png"
    assert client.get("/files/images/b.png").status_code == 404


def test_large_files_of_one_address_have_a_limit_and_give_their_slots_back(
    client: FlaskClient, public_storage: Storage
) -> None:
    public_storage.put("images/a.png", LARGE_CONTENT, "image/png")
    opened = [client.get("/files/images/a.png", buffered=False) for _ in range(MAX_FILE_STREAMS_PER_ADDRESS)]
    parts = [response.iter_encoded() for response in opened]
    for each in parts:
        next(each)

    refused = client.get("/files/images/a.png")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert "16 large files" in refused.json["errors"][0]["detail"]
    assert client.get("/files/images/a.png", environ_base={"REMOTE_ADDR": "192.0.2.1"}).data == LARGE_CONTENT
    assert client.get("/files/images/a.png", headers={"Range": "bytes=0-9"}).data == LARGE_CONTENT[:10]

    opened[0].close()
    assert client.get("/files/images/a.png").data == LARGE_CONTENT
    for response in opened:
        response.close()


def test_a_large_file_that_is_replaced_meanwhile_gives_its_slot_back(
    client: FlaskClient, public_storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    public_storage.put("images/a.png", LARGE_CONTENT, "image/png")

    def fail(*_: object) -> Iterator[bytes]:
        raise FileChanged("images/a.png")
        yield b""

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "stream_file", fail)
        for _ in range(MAX_FILE_STREAMS_PER_ADDRESS + 1):
            assert client.get("/files/images/a.png").status_code == 404
    assert client.get("/files/images/a.png").data == LARGE_CONTENT
