"""Writer that replaces a documented response in the sources by a real one."""

import json
import textwrap
from typing import Any

from tests.docs.blueprint_sources import list_files


def record_answer(number: int, body: Any) -> None:
    """Replace the body of the documented response with this number, counted from 0 through all files."""
    for path in list_files():
        lines = path.read_text().splitlines()
        answers = [at for at, line in enumerate(lines) if line.startswith("+ Response ")]
        if number < len(answers):
            path.write_text("\n".join(_replace_body(lines, answers[number], body)) + "\n")
            return
        number -= len(answers)


def _replace_body(lines: list[str], answer: int, body: Any) -> list[str]:
    end = next((at for at in range(answer + 1, len(lines)) if lines[at].startswith(("+", "#"))), len(lines))
    has_headers = "    + Body" in lines[answer:end]
    start = lines.index("    + Body", answer) if has_headers else answer
    indent = " " * (12 if has_headers else 8)
    plain = body if isinstance(body, str) else json.dumps(body, indent=4, ensure_ascii=False)
    text = textwrap.indent(plain.rstrip(), indent)
    following = [""] if end < len(lines) else []
    return [*lines[: start + 1], "", *text.splitlines(), *following, *lines[end:]]
