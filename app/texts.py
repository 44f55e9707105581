"""Unicode text: normal form C (NFC), in which text is stored and compared, and visible characters."""

import re
import unicodedata
from functools import cache

MAX_COMBINING_RUN = 30
"""Max combining marks in a row (UAX #15, Stream-Safe Text Format): the time to sort them grows quadratically."""

NFC_SHRINK_FACTOR = 4
"""Max characters that NFC composes into one: a text longer than its limit by this factor is too long in any form."""

_COMBINING_RANGE = range(0x300, 0x20000)
"""Code points that include all characters with a combining class."""

_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Fillers, blanks and variation selectors that have the Unicode category of visible characters."""


class TooManyMarks(ValueError):
    """The text has more combining marks in a row than any language uses."""

    def __init__(self) -> None:
        super().__init__(f"Must have at most {MAX_COMBINING_RUN} combining marks in a row.")


def to_nfc(text: str) -> str:
    """Return the text in NFC; raise TooManyMarks if normalization would take too long."""
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    if _compile_long_run().search(text):
        raise TooManyMarks
    return unicodedata.normalize("NFC", text)


def is_blank(text: str) -> bool:
    """Return whether the text has only spaces, control and format characters, and fillers."""
    return all(_is_invisible(character) for character in text)


def is_visible(text: str) -> bool:
    """Return whether the text has visible characters only."""
    return not any(_is_invisible(character) for character in text)


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in _INVISIBLE_CATEGORIES or bool(_INVISIBLE.match(character))


@cache
def _compile_long_run() -> re.Pattern[str]:
    # The class of the decomposition counts: U+0F73 is a starter that decomposes into two marks.
    decomposed = {character: unicodedata.normalize("NFD", character) for character in map(chr, _COMBINING_RANGE)}
    marks = "".join(character for character, parts in decomposed.items() if unicodedata.combining(parts[0]))
    return re.compile(f"[{marks}]{{{MAX_COMBINING_RUN + 1}}}")
