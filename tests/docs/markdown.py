"""Programs and tables of limits in docs/processors.md."""

import re

from tests.conftest import ROOT

PROCESSORS = (ROOT / "docs" / "processors.md").read_text()


def get_code_block(name: str) -> str:
    """Return the code block after the line that ends with this name."""
    found = re.search(rf"^\S.*`{re.escape(name)}`:\n\n```\w*\n(.*?)^```$", PROCESSORS, re.DOTALL | re.MULTILINE)
    if found is None:
        raise LookupError(name)
    return found[1]


def get_table_rows(title: str) -> list[list[str]]:
    """Return the rows of the tables below a title, without their headers."""
    section = re.split(r"^#{2,4} ", PROCESSORS.partition(f" {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[1:] if not line.startswith(("|-", "|:"))]
