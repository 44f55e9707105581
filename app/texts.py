"""Unicode text as it is stored and compared: its normal form (NFC), and whether it shows anything."""

import re
import unicodedata
from functools import cache

MAX_COMBINING_RUN = 30
"""Combining marks in a row (UAX #15, Stream-Safe Text Format): sorting them takes time that grows with the square."""

NFC_SHRINK_FACTOR = 4
"""Characters that may become one in NFC: a text that exceeds its limit by more is too long in any form."""

_COMBINING_RANGE = range(0x300, 0x20000)
"""All characters with a combining class lie here."""

_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Fillers, blanks and variation selectors, whose categories are those of visible characters."""


class TooManyMarks(ValueError):
    """The text has more combining marks in a row than any language uses."""

    def __init__(self) -> None:
        super().__init__(f"Must have at most {MAX_COMBINING_RUN} combining marks in a row.")


def to_nfc(text: str) -> str:
    """Return the text in Normalization Form C; raise TooManyMarks where that would take too long."""
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    if _compile_long_run().search(text):
        raise TooManyMarks
    return unicodedata.normalize("NFC", text)


def is_blank(text: str) -> bool:
    """Return whether the text has no visible character: spaces, control and format characters, fillers."""
    return all(_is_invisible(character) for character in text)


def is_visible(text: str) -> bool:
    """Return whether the text has visible characters only."""
    return not any(_is_invisible(character) for character in text)


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in _INVISIBLE_CATEGORIES or bool(_INVISIBLE.match(character))


@cache
def _compile_long_run() -> re.Pattern[str]:
    # By what a character decomposes to: U+0F73 is a starter made of two marks.
    decomposed = {character: unicodedata.normalize("NFD", character) for character in map(chr, _COMBINING_RANGE)}
    marks = "".join(character for character, parts in decomposed.items() if unicodedata.combining(parts[0]))
    return re.compile(f"[{marks}]{{{MAX_COMBINING_RUN + 1}}}")
