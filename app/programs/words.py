"""Words of a program made fit to be stored and shown: text, without control characters, without its secrets."""

import re
from collections.abc import Iterable, Iterator
from json import dumps
from urllib.parse import quote

HIDDEN = "[hidden]"

LEAST_PART = 4
"""Characters of a secret that betray something of it, where a text was cut within it."""

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabs and newlines
_SURROGATES = re.compile(r"[\ud800-\udfff]")


class Words:
    """Knows the secrets of a job."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        self._secrets = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._secrets))) if self._secrets else None

    def line(self, text: str, *, most: int, is_cut: bool = False) -> str:
        """One line, of so many characters at most; perhaps it had gone on."""
        shown = self._without_secrets(self._without_last_part(text) if is_cut else text)
        return " ".join(_plain(shown).split())[:most]

    def text(self, content: bytes, *, is_cut: bool, most: int) -> str:
        """Lines, so many characters of them at most, the last ones; perhaps there were more before them."""
        decoded = content.decode(errors="replace")
        shown = self._without_first_part(decoded.lstrip("\ufffd")) if is_cut else decoded
        return _plain(self._without_secrets(shown).replace("\r\n", "\n"))[-most:]

    def _without_secrets(self, text: str) -> str:
        return text if self._pattern is None else self._pattern.sub(HIDDEN, text)

    def _without_first_part(self, text: str) -> str:
        for secret in self._secrets:
            for length in range(min(len(secret) - 1, len(text)), LEAST_PART - 1, -1):
                if text.startswith(secret[-length:]):
                    return HIDDEN + text[length:]
        return text

    def _without_last_part(self, text: str) -> str:
        for secret in self._secrets:
            for length in range(min(len(secret) - 1, len(text)), LEAST_PART - 1, -1):
                if text.endswith(secret[:length]):
                    return text[:-length] + HIDDEN
        return text


def _forms(secret: str) -> Iterator[str]:
    """How a secret may be written: as it is, each of its lines, in JSON, in a URL."""
    for part in (secret, *map(str.strip, secret.splitlines())):
        if part:
            yield from (part, dumps(part)[1:-1], dumps(part, ensure_ascii=False)[1:-1], quote(part, safe=""))


def _plain(text: str) -> str:
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", text))
