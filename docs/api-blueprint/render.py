"""The blueprint becomes open-event-api.html: one page that loads nothing from anywhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE / "open-event-api.html"
MODULES = HERE / "node_modules"

# aglio marks methods with icons of a font from a CDN; these signs are in every font.
STYLE = """<style>
.fa { font: bold 15px/1 monospace; }
.fa-arrow-down::before { content: "\\2193"; }
.fa-plus::before { content: "+"; }
.fa-pencil::before { content: "~"; }
.fa-times::before { content: "\\D7"; }
.tab-button { display: inline-block; white-space: nowrap; }
td:first-child code { white-space: nowrap; }
</style>"""

EXTERNAL = re.compile(r"""<link[^>]*>|@import[^;]*;""")
LOADING = re.compile(r"""<link\b|@import|\burl\(|\bsrc=|<iframe\b|<object\b""")


def aglio(page: Path) -> None:
    """Let aglio render the sources."""
    # Its install script makes this directory; install scripts are not run here.
    (MODULES / "aglio-theme-olio" / "cache").mkdir(exist_ok=True)
    program, source = str(MODULES / ".bin" / "aglio"), "api_blueprint_source.apib"
    command = [program, "-i", source, "--theme-template", "triple", "-o", str(page)]
    subprocess.run(command, cwd=HERE, check=True, stdin=subprocess.DEVNULL)  # noqa: S603  # nothing from outside


def self_contained(html: str) -> str:
    """The page without what it would load from elsewhere; ValueError when something is left."""
    html = EXTERNAL.sub("", html).replace("</head>", f"{STYLE}</head>", 1)
    if left := LOADING.search(html):
        raise ValueError(f"the page would still load something: {html[left.start() : left.start() + 120]}")
    return html


def main() -> None:
    """Render the page; whoever reads it meanwhile gets the old one or the new one."""
    draft = HERE / f".{os.getpid()}.html"
    try:
        aglio(draft)
        draft.write_text(self_contained(draft.read_text()))
        draft.replace(PAGE)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"render.py: {error}")
    finally:
        draft.unlink(missing_ok=True)
    sys.stdout.write(f"{PAGE.relative_to(HERE.parent.parent)}\n")


if __name__ == "__main__":
    main()
