"""The decoder process: its limits are enforced, every failure is one error, and it leaves no files or processes."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.images import resizer
from app.images.image_info import CorruptImage, DecodeLimitExceeded, ImageInfo
from app.images.resizer import USER_SIZES, DecodeLimits, VariantSpec, make_variants
from tests.images.sample_images import Image, encode_image, make_flag_image

ROOT = Path(__file__).resolve().parents[2]
LONG_LIMITS = DecodeLimits(processor_seconds=60, seconds=60)
SLOW_SIZES = [VariantSpec("huge", 4000, 4000, crops=True, format="webp")] * 50
"""Sizes that take a minute of CPU time with a small image."""


@pytest.fixture(autouse=True)
def _assert_nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Assert after each test that no file, named or unnamed, and no process is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    children = _children(os.getpid())
    yield
    assert list(tmp_path.iterdir()) == []
    assert not [file for file in _open_files(os.getpid()) if str(tmp_path) in file]
    assert _children(os.getpid()) == children


def test_too_much_memory_is_refused() -> None:
    deep = Image.black(5000, 5000, bands=4).cast("ushort").copy(interpretation="rgb16")
    content = encode_image(deep, "png", bitdepth=16, interlace=True)

    with pytest.raises(DecodeLimitExceeded):
        make_variants(content, USER_SIZES, replace(LONG_LIMITS, memory=256 * 2**20))


def test_too_much_processor_time_is_refused() -> None:
    with pytest.raises(DecodeLimitExceeded):
        make_variants(encode_image(make_flag_image(), "png"), SLOW_SIZES, replace(LONG_LIMITS, processor_seconds=1))


def test_too_much_time_is_refused() -> None:
    with pytest.raises(DecodeLimitExceeded):
        make_variants(encode_image(make_flag_image(), "png"), SLOW_SIZES, replace(LONG_LIMITS, seconds=0.5))


def test_too_much_output_is_refused() -> None:
    with pytest.raises(DecodeLimitExceeded):
        make_variants(encode_image(make_flag_image(), "png"), USER_SIZES, replace(LONG_LIMITS, output=1000))


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_decoder_crash_raises_decode_limit_exceeded(how: signal.Signals, wait_until: Callable[..., Any]) -> None:
    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(make_variants, encode_image(make_flag_image(), "png"), SLOW_SIZES, LONG_LIMITS)
        os.kill(_wait_for_decoder(os.getpid(), wait_until), how)

        with pytest.raises(DecodeLimitExceeded):
            making.result(timeout=30)


def test_being_stopped_with_the_service_is_no_fault_of_the_image(wait_until: Callable[..., Any]) -> None:
    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(make_variants, encode_image(make_flag_image(), "png"), SLOW_SIZES, LONG_LIMITS)
        os.kill(_wait_for_decoder(os.getpid(), wait_until), signal.SIGTERM)

        with pytest.raises(RuntimeError, match="the decoder ended with status -15"):
            making.result(timeout=30)


def test_a_decoder_that_cannot_start_is_no_fault_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resizer, "_PROGRAM", (sys.executable, "-c", "import no_such_module"))

    with pytest.raises(RuntimeError, match="no_such_module"):
        make_variants(encode_image(make_flag_image(), "png"), USER_SIZES)


def test_the_decoder_ends_with_the_worker_that_started_it(wait_until: Callable[..., Any]) -> None:
    program = (
        "from tests.images.test_decoder import *\n"
        "make_variants(encode_image(make_flag_image(), 'png'), SLOW_SIZES, LONG_LIMITS)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    try:
        decoder = _wait_for_decoder(worker.pid, wait_until)
    finally:
        worker.kill()
        worker.wait()

    wait_until(lambda: not _is_running(decoder), what="the decoder is gone")


def test_the_decoder_gets_no_secret(monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any]) -> None:
    monkeypatch.setenv("SECRET_KEY", "not for decoders")
    content = encode_image(make_flag_image(), "png")

    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(make_variants, content, SLOW_SIZES, LONG_LIMITS)
        decoder = _wait_for_decoder(os.getpid(), wait_until)
        seen = _read_proc_file(decoder, "environ") + _read_proc_file(decoder, "cmdline")
        files = _open_files(decoder)
        os.kill(decoder, signal.SIGKILL)
        making.exception(timeout=30)

    assert "decoder.py" in seen
    assert "not for decoders" not in seen
    assert not [file for file in files if "deleted" not in file and not file.startswith(("anon_inode:", "/dev/"))]


@pytest.mark.parametrize("form", ["svg", "gif", "jpeg"])
def test_only_the_loader_of_the_inspected_format_reads(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='80' height='40'/>",
        "gif": make_flag_image().gifsave_buffer(),
        "jpeg": encode_image(make_flag_image(), "jpeg"),
    }[form]
    taken_for_png = ImageInfo("png", 80, 40, is_progressive=False, frames=1, end=len(content))
    monkeypatch.setattr(resizer, "inspect_image", lambda _: taken_for_png)

    with pytest.raises(CorruptImage):
        make_variants(content, USER_SIZES)


def test_decoded_size_other_than_inspected_is_corrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode_image(make_flag_image(), "jpeg")
    other = replace(resizer.inspect_image(content), width=8)
    monkeypatch.setattr(resizer, "inspect_image", lambda _: other)

    with pytest.raises(CorruptImage):
        make_variants(content, USER_SIZES)


def _wait_for_decoder(parent: int, wait_until: Callable[..., Any]) -> int:
    """Wait until this process has a decoder whose limits are set; return its pid."""

    def find_limited_decoders() -> list[int]:
        return [child for child in _children(parent) if str(LONG_LIMITS.memory) in _read_proc_file(child, "limits")]

    found: list[int] = wait_until(find_limited_decoders, what="a decoder at work")
    return found[0]


def _children(parent: int) -> list[int]:
    threads = Path(f"/proc/{parent}/task").iterdir()
    return [
        int(child) for thread in threads for child in _read_proc_file(parent, f"task/{thread.name}/children").split()
    ]


def _open_files(process: int) -> list[str]:
    with os.scandir(f"/proc/{process}/fd") as entries:
        return [os.readlink(entry.path) for entry in entries]


def _is_running(process: int) -> bool:
    return _read_proc_file(process, "stat").rpartition(")")[2].split()[:1] not in ([], ["Z"])


def _read_proc_file(process: int, name: str) -> str:
    """Return a file of the process in /proc, "" if the process has ended."""
    try:
        return Path(f"/proc/{process}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
