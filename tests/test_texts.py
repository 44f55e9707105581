"""Normalization to NFC, and blank texts."""

import unicodedata
from time import perf_counter

import pytest

from app.texts import MAX_COMBINING_RUN, TooManyMarks, is_blank, to_nfc


@pytest.mark.parametrize(
    "text", ["", "ascii", "e\u0301cole", "\u00e9cole", "\u1112\u1161\u11ab", "\u212b", "\U0001f389"]
)
def test_to_nfc_any_text_is_in_normal_form(text: str) -> None:
    assert to_nfc(text) == unicodedata.normalize("NFC", text)


def test_to_nfc_marks_in_a_row_up_to_the_limit_are_kept() -> None:
    allowed = "a" + "\u0316\u0301" * (MAX_COMBINING_RUN // 2)

    assert to_nfc(allowed) == unicodedata.normalize("NFC", allowed)


@pytest.mark.parametrize("marks", ["\u0301\u0316", "\u0f73"])
def test_to_nfc_too_many_marks_are_refused_at_once(marks: str) -> None:
    started = perf_counter()

    with pytest.raises(TooManyMarks, match="at most 30"):
        to_nfc("a" + marks * 500_000)

    assert perf_counter() - started < 1  # sorting them takes minutes


@pytest.mark.parametrize(
    "text", ["", " ", "\t\n", "\u00a0", "\u200b", "\u2060", "\ufeff", "\u00ad", "\u200e", "\u3164", "\u2800", "\u034f",
             "\ufe0f", "\U000e0101", "\x07", " \u200b\u2060 \ufeff"],
)  # fmt: skip
def test_is_blank_invisible_text_is_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", " a ", "\u200ba", "0", ".", "\U0001f389", "\u05d0", "\u4e2d"])
def test_is_blank_visible_text_is_not(text: str) -> None:
    assert not is_blank(text)
