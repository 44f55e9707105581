"""What stands in docs/processors.md: its programs, and the tables of its limits."""

import re

from tests.conftest import ROOT

PROCESSORS = (ROOT / "docs" / "processors.md").read_text()


def get_code_block(name: str) -> str:
    """The code block after the line that ends with this name."""
    found = re.search(rf"^\S.*`{re.escape(name)}`:\n\n```\w*\n(.*?)^```$", PROCESSORS, re.DOTALL | re.MULTILINE)
    if found is None:
        raise LookupError(name)
    return found[1]


def get_table_rows(title: str) -> list[list[str]]:
    """The rows of the tables below a title, without their heads."""
    section = re.split(r"^#{2,4} ", PROCESSORS.partition(f" {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[1:] if not line.startswith(("|-", "|:"))]
