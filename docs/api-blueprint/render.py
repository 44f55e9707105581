"""Render the blueprint to open-event-api.html: one page that loads nothing, and that carries a digest of its sources.

The page is committed, so that the server shows it on a machine without Node. The digest covers the page itself and
everything it is made from: a test tells when the page must be rendered again.
"""

import os
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE / "open-event-api.html"
MODULES = HERE / "node_modules"
SOURCE = HERE / "api_blueprint_source.apib"

INCLUDE = re.compile(r"<!-- include\((.+?)\) -->")
EXTERNAL = re.compile(r"""<link[^>]*>|@import[^;]*;""")
LOADING = re.compile(r"""<link\b|@import|\burl\(|\bsrc=|<iframe\b|<object\b""")
DIGEST = re.compile(r'<meta name="digest" content="([0-9a-f]*)">')


def run_aglio(page: Path) -> None:
    """Let aglio render the sources."""
    # Its install script makes this directory; install scripts are not run here.
    (MODULES / "aglio-theme-olio" / "cache").mkdir(exist_ok=True)
    program = str(MODULES / ".bin" / "aglio")
    command = [program, "-i", SOURCE.name, "--theme-template", "triple", "-o", str(page)]
    subprocess.run(command, cwd=HERE, check=True, stdin=subprocess.DEVNULL)  # noqa: S603  # nothing from outside


def self_contained(html: str) -> str:
    """Return the page without what it would load from elsewhere; ValueError when something is left."""
    style = (HERE / "page.css").read_text()
    head = f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
    html = EXTERNAL.sub("", html).replace("</head>", head, 1).replace("<html>", '<html lang="en">', 1)
    if left := LOADING.search(html):
        raise ValueError(f"the page would still load something: {html[left.start() : left.start() + 120]}")
    return html


def sources() -> list[Path]:
    """Return the files that the page is made from."""
    included = [HERE / name for name in INCLUDE.findall(SOURCE.read_text())]
    return [SOURCE, *included, HERE / "page.css", HERE / "package.json", Path(__file__).resolve()]


def digest_of(html: str) -> str:
    """Return the digest of the sources and of the page without its own digest."""
    parts = [*(path.read_text() for path in sources()), DIGEST.sub("", html)]
    return sha256("\0".join(parts).encode()).hexdigest()


def with_digest(html: str) -> str:
    """Return the page with its digest in the head."""
    return html.replace("</head>", f'<meta name="digest" content="{digest_of(html)}"></head>', 1)


def is_current(html: str) -> bool:
    """Whether this page was rendered from the present sources, and not changed since."""
    found = DIGEST.search(html)
    return found is not None and found[1] == digest_of(html)


def main() -> None:
    """Render the page; readers get the old one or the new one."""
    draft = HERE / f".{os.getpid()}.html"
    try:
        run_aglio(draft)
        draft.write_text(with_digest(self_contained(draft.read_text())))
        draft.replace(PAGE)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"render.py: {error}")
    finally:
        draft.unlink(missing_ok=True)
    sys.stdout.write(f"{PAGE.relative_to(HERE.parent.parent)}\n")


if __name__ == "__main__":
    main()
