"""Output of programs in chunks of any size: lines, progress reports and redaction."""

from time import monotonic

import pytest

from app.programs import progress_parser
from app.programs.discovery import MAX_PARAMETERS_BYTES
from app.programs.line_buffer import MAX_LINE_BYTES, LineBuffer, TailBuffer
from app.programs.progress_parser import ProgressParseError, ProgressReport
from app.programs.redaction import SecretRedactor


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_the_same_however_they_arrive(size: int) -> None:
    content = b"one\ntwo\n\nthree\nrest"
    lines = LineBuffer()

    parsed = [line for start in range(0, len(content), size) for line in lines.feed(content[start : start + size], 100)]

    assert parsed == [b"one", b"two", b"", b"three"]
    assert lines.get_last_line() == [b"rest"]


def test_line_buffer_keeps_last_lines() -> None:
    lines = LineBuffer()
    lines.feed(b"begun", 2)

    assert lines.feed(b"1\n2\n3\n4\n5", 2) == [b"3", b"4"]
    assert lines.feed(b"6\n", 2) == [b"56"]


def test_a_line_without_end_is_cut() -> None:
    lines = LineBuffer()
    for _ in range(100):
        assert lines.feed(b"x" * 1000, 10) == []

    assert lines.feed(b"x\nnext\n", 10) == [b"x" * MAX_LINE_BYTES, b"next"]


def test_a_tail_holds_the_last_bytes() -> None:
    tail = TailBuffer(10)
    for number in range(100):
        tail.feed(b"%03d" % number)

    assert tail.get_content() == b"6097098099"
    assert tail.is_cut


@pytest.mark.parametrize(
    ("line", "report"),
    [
        ("0.25", ProgressReport(0.25, None)),
        (" 1 \r", ProgressReport(1.0, None)),
        (".5\thalf\tway", ProgressReport(0.5, "half\tway")),
        ("0.25\t", ProgressReport(0.25, None)),
        ("", ProgressReport(None, None)),
        ("NaN", ProgressReport(0.0, None)),
        ("inf", ProgressReport(1.0, None)),
        ("-3", ProgressReport(0.0, None)),
        ("1e400", ProgressReport(1.0, None)),
        ("1.5\tbeyond", ProgressReport(1.0, "beyond")),
        ('{"fraction": 0.5, "message": "half", "n_ahead_in_queue": 0}', ProgressReport(0.5, "half")),
        ('{"progress": 0.5}', ProgressReport(0.5, None)),
        ('{"fraction": NaN}', ProgressReport(0.0, None)),
        ('{"fraction": -Infinity}', ProgressReport(0.0, None)),
        ('{"fraction": 1' + "0" * 400 + "}", ProgressReport(1.0, None)),
        ('{"message": "only"}', ProgressReport(None, "only")),
        ('{"error": "other"}', ProgressReport(None, None)),
    ],
)
def test_a_report_is_read(line: str, report: ProgressReport) -> None:
    assert progress_parser.parse_progress(line) == report


@pytest.mark.parametrize(
    "line",
    [
        "half",
        "0.25 half",
        "1_0",
        "50%",
        "0x1",
        "٣",
        '{"fraction": "0.5"}',
        '{"fraction": true}',
        '{"message": 3}',
        "{",
        "[1]",
        '{"a":' * 1500,
        '{"fraction": ' + "9" * 5000 + "}",
    ],
)
def test_invalid_report_raises(line: str) -> None:
    with pytest.raises(ProgressParseError):
        progress_parser.parse_progress(line)


def test_a_long_line_of_digits_is_soon_read() -> None:
    line = "9" * (MAX_LINE_BYTES - 1) + "x"
    begun = monotonic()

    for _ in range(20):
        with pytest.raises(ProgressParseError):
            progress_parser.parse_progress(line)

    assert monotonic() - begun < 1


def test_control_characters_and_invalid_utf8_are_removed() -> None:
    redactor = SecretRedactor([])

    assert redactor.redact_text(b"a\x00b\x1b[31mc\r\n\td\xff", is_cut=False, most=100) == "ab[31mc\n\td\ufffd"
    assert redactor.redact_line("a\x00\ud800\tb\x9b", most=100) == "a\ufffd b"


@pytest.mark.parametrize(
    "spelling",
    ['s3cr3t/"ü', 's3cr3t/\\"\\u00fc', 's3cr3t/\\"ü', "s3cr3t%2F%22%C3%BC"],
    ids=["plain", "json", "utf-8", "url"],
)
def test_secrets_are_hidden_however_they_are_written(spelling: str) -> None:
    redactor = SecretRedactor(['s3cr3t/"ü'])

    assert redactor.redact_line(f"with {spelling} in it", most=100) == "with [hidden] in it"
    assert redactor.redact_text(f"with {spelling} in it".encode(), is_cut=False, most=100) == "with [hidden] in it"


def test_a_secret_of_several_lines_is_hidden_line_by_line() -> None:
    assert (
        SecretRedactor(["first\nsecond"]).redact_text(b"second, first", is_cut=False, most=100) == "[hidden], [hidden]"
    )


def test_a_part_of_a_secret_at_a_cut_is_hidden() -> None:
    redactor = SecretRedactor(["0123456789"])

    assert redactor.redact_text(b"3456789 is the end", is_cut=True, most=100) == "[hidden] is the end"
    assert redactor.redact_line("it begins 012345", most=100, is_cut=True) == "it begins [hidden]"


def test_a_long_secret_takes_no_longer_than_the_text_at_a_cut() -> None:
    redactor = SecretRedactor(["0123456789" * (MAX_PARAMETERS_BYTES // 10)])
    begun = monotonic()

    for _ in range(20):
        assert redactor.redact_line(f"{'x' * MAX_LINE_BYTES}0123", most=2 * MAX_LINE_BYTES, is_cut=True).endswith(
            "xx[hidden]"
        )
        assert redactor.redact_text(b"6789" + b"x" * MAX_LINE_BYTES, is_cut=True, most=2 * MAX_LINE_BYTES).startswith(
            "[hidden]xx"
        )

    assert monotonic() - begun < 1
