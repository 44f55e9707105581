"""Redaction of program output before it is stored: removes secrets and control characters."""

import re
from collections.abc import Iterable, Iterator
from json import dumps
from urllib.parse import quote

REDACTED_TEXT = "[hidden]"

MIN_REDACTED_LENGTH = 4
"""Characters of a part of a secret, at the cut end of a text, that are redacted; shorter parts reveal too little."""

_CONTROLS_RE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabs and newlines
_SURROGATES_RE = re.compile(r"[\ud800-\udfff]")


class SecretRedactor:
    """Redactor of the secrets of one job."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _iter_spellings(secret)}
        self._secrets = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._secrets))) if self._secrets else None

    def redact_line(self, text: str, *, most: int, is_cut: bool = False) -> str:
        """Return the first `most` characters of a redacted line; `is_cut` if its end is missing."""
        redacted = self._redact_secrets(self._redact_trailing_part(text) if is_cut else text)
        return " ".join(_strip_controls(redacted).split())[:most]

    def redact_text(self, content: bytes, *, is_cut: bool, most: int) -> str:
        """Return the last `most` characters of a redacted text; `is_cut` if its beginning is missing."""
        text = content.decode(errors="replace")
        text = self._redact_leading_part(text.lstrip("\ufffd")) if is_cut else text
        return _strip_controls(self._redact_secrets(text).replace("\r\n", "\n"))[-most:]

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
    """Yield the forms in which a secret may occur: unchanged, each of its lines, escaped for JSON or a URL."""
    for part in (secret, *map(str.strip, secret.splitlines())):
        if part:
            yield from (part, dumps(part)[1:-1], dumps(part, ensure_ascii=False)[1:-1], quote(part, safe=""))


def _strip_controls(text: str) -> str:
    return _SURROGATES_RE.sub("\ufffd", _CONTROLS_RE.sub("", text))
