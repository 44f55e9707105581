"""Words of a program made fit to be stored and shown: text, without control characters, without its secrets."""

import re
from collections.abc import Iterable, Iterator
from json import dumps
from urllib.parse import quote

REDACTED_TEXT = "[hidden]"

MIN_REDACTED_LENGTH = 4
"""Characters of a secret that betray something of it, where a text was cut within it."""

_CONTROLS_RE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabs and newlines
_SURROGATES_RE = re.compile(r"[\ud800-\udfff]")


class SecretRedactor:
    """Knows the secrets of a job."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _iter_spellings(secret)}
        self._secrets = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._secrets))) if self._secrets else None

    def redact_line(self, text: str, *, most: int, is_cut: bool = False) -> str:
        """One line, of so many characters at most; perhaps it had gone on."""
        shown = self._redact_secrets(self._redact_trailing_part(text) if is_cut else text)
        return " ".join(_strip_controls(shown).split())[:most]

    def redact_text(self, content: bytes, *, is_cut: bool, most: int) -> str:
        """Lines, so many characters of them at most, the last ones; perhaps there were more before them."""
        decoded = content.decode(errors="replace")
        shown = self._redact_leading_part(decoded.lstrip("\ufffd")) if is_cut else decoded
        return _strip_controls(self._redact_secrets(shown).replace("\r\n", "\n"))[-most:]

    def _redact_secrets(self, text: str) -> str:
        return text if self._pattern is None else self._pattern.sub(REDACTED_TEXT, text)

    def _redact_leading_part(self, text: str) -> str:
        for secret in self._secrets:
            for length in range(min(len(secret) - 1, len(text)), MIN_REDACTED_LENGTH - 1, -1):
                if text.startswith(secret[-length:]):
                    return REDACTED_TEXT + text[length:]
        return text

    def _redact_trailing_part(self, text: str) -> str:
        for secret in self._secrets:
            for length in range(min(len(secret) - 1, len(text)), MIN_REDACTED_LENGTH - 1, -1):
                if text.endswith(secret[:length]):
                    return text[:-length] + REDACTED_TEXT
        return text


def _iter_spellings(secret: str) -> Iterator[str]:
    """How a secret may be written: as it is, each of its lines, in JSON, in a URL."""
    for part in (secret, *map(str.strip, secret.splitlines())):
        if part:
            yield from (part, dumps(part)[1:-1], dumps(part, ensure_ascii=False)[1:-1], quote(part, safe=""))


def _strip_controls(text: str) -> str:
    return _SURROGATES_RE.sub("\ufffd", _CONTROLS_RE.sub("", text))
