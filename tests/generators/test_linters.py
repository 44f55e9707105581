"""Linters find nothing in /openapi.json."""

import json
from pathlib import Path

from tests.generators import tools


@tools.needs_node
def test_spectral_finds_nothing(document: Path) -> None:
    output = tools.run_command(
        *(tools.find_npm_executable("spectral"), "lint", document, "--ruleset", tools.DIRECTORY / "spectral.yaml"),
        *("--fail-severity", "hint", "--format", "json", "--quiet"),
        cwd=document.parent,
    )

    assert json.loads(output) == []


@tools.needs_node
def test_redocly_finds_nothing(document: Path) -> None:
    output = tools.run_command(
        *(tools.find_npm_executable("redocly"), "lint", document, "--config", tools.DIRECTORY / "redocly.yaml"),
        *("--format", "summary"),
        cwd=document.parent,
    )

    assert "warning" not in output.replace("Deprecation warning", ""), output
