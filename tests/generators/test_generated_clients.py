"""Clients generated from /openapi.json compile without an error and work against a live server."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from tests.docs import blueprint_dataset
from tests.generators import tools


def generate_with_orval(version: str) -> Callable[[Path, Path], None]:
    """Return what generates a client with one version of orval."""

    def generate(document: Path, output: Path) -> None:
        package = tools.NODE_MODULES / f"orval{version}" / "dist" / "bin"
        (program,) = [*package.glob("orval.js"), *package.glob("orval.mjs")]
        settings = {"INPUT": str(document), "OUTPUT": str(output / "api.ts")}
        config = tools.DIRECTORY / "orval.config.cjs"
        tools.run_command("node", program, "--config", config, cwd=output.parent, **settings)

    return generate


def generate_with_openapi_typescript(document: Path, output: Path) -> None:
    """Generate the types that openapi-fetch reads."""
    tools.run_command(
        tools.find_npm_executable("openapi-typescript"), document, "--output", output / "api.ts", cwd=output.parent
    )


def generate_with_hey_api(document: Path, output: Path) -> None:
    """Generate a client with its own copy of the fetch client."""
    plugins = ["--client", "@hey-api/client-fetch"]
    tools.run_command(
        tools.find_npm_executable("openapi-ts"), "--input", document, "--output", output, *plugins, cwd=output.parent
    )


def generate_with_openapi_generator(generator: str) -> Callable[[Path, Path], None]:
    """Return what generates a client with one of the generators of openapi-generator."""
    return lambda document, output: tools.run_openapi_generator(generator, document, output)


pytestmark = [pytest.mark.usefixtures("declare_example_kinds"), pytest.mark.timeout(600)]

needs_openapi_generator = [tools.needs_python, tools.needs_java]
TYPESCRIPT = [
    pytest.param(
        f"typescript_{library}.ts",
        generate_with_openapi_generator(f"typescript-{library}"),
        marks=[*needs_openapi_generator, tools.needs_node],
        id=f"openapi-generator-typescript-{library}",
    )
    for library in ("fetch", "axios")
] + [
    pytest.param("orval.ts", generate_with_orval("7"), marks=tools.needs_node, id="orval-7"),
    pytest.param("orval.ts", generate_with_orval("8"), marks=tools.needs_node, id="orval-8"),
    pytest.param("openapi_fetch.ts", generate_with_openapi_typescript, marks=tools.needs_node, id="openapi-typescript"),
    pytest.param("hey_api.ts", generate_with_hey_api, marks=tools.needs_node, id="hey-api"),
]


@pytest.mark.parametrize(("program", "generate"), TYPESCRIPT)
def test_typescript_client(
    program: str, generate: Callable[[Path, Path], None], document: Path, app: Flask, base_url: str, tmp_path: Path
) -> None:
    output = tmp_path / "client"
    output.mkdir()
    generate(document, output)
    compiled = tools.compile_typescript(tools.PROGRAMS / program, tmp_path)

    run_client(app, base_url, "node", compiled)


@tools.needs_python
def test_openapi_python_client(document: Path, app: Flask, base_url: str, tmp_path: Path) -> None:
    output = tmp_path / "client"
    path = f"{tools.VENV / 'bin'}:{os.environ['PATH']}"  # it calls ruff
    arguments = ["--path", document, "--output-path", output, "--meta", "none", "--fail-on-warning"]
    tools.run_command(tools.VENV / "bin" / "openapi-python-client", "generate", *arguments, cwd=tmp_path, PATH=path)

    run_client(app, base_url, tools.PYTHON, tools.PROGRAMS / "openapi_python_client.py", PYTHONPATH=str(tmp_path))
    import_all(tmp_path, "client")


@tools.needs_python
@tools.needs_java
def test_openapi_generator_python(document: Path, app: Flask, base_url: str, tmp_path: Path) -> None:
    output = tmp_path / "client"
    tools.run_openapi_generator("python", document, output)

    run_client(app, base_url, tools.PYTHON, tools.PROGRAMS / "openapi_generator_python.py", PYTHONPATH=str(output))
    import_all(output, "openapi_client")


def run_client(app: Flask, base_url: str, interpreter: Path | str, program: Path, **settings: str) -> None:
    """Run a program that uses a generated client, as the owner of the events of the documentation."""
    blueprint_dataset.replace_dataset(app)
    account = {"EMAIL": "owner@example.org", "PASSWORD": blueprint_dataset.PASSWORD}
    tools.run_command(interpreter, program, cwd=program.parent, SERVER=base_url, **account, **settings)


def import_all(directory: Path, package: str) -> None:
    """Import every module of a package: a client is loaded module by module, some of them when they are used."""
    tools.run_command(
        *(tools.PYTHON, "-c"),
        "import importlib, pkgutil, sys\n"
        "package = importlib.import_module(sys.argv[1])\n"
        "for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "    importlib.import_module(module.name)\n",
        package,
        cwd=directory,
        PYTHONPATH=str(directory),
    )
