"""Names and docstrings follow CONTRIBUTING.md; `naming_exceptions.toml` lists the exceptions, each with its reason."""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXCEPTIONS: dict[str, dict[str, str]] = tomllib.loads((Path(__file__).parent / "naming_exceptions.toml").read_text())
"""For each rule the violations that stay, `path: text` or a class name, with the reason."""

PARTICIPLE = re.compile(
    r"(?!(?:embed|exceed|feed|need|proceed|seed|shed|speed|succeed)(?:_|$))"
    r"(?:[a-z]{2,}ed|begun|bound|bought|broken|brought|built|caught|chosen|done|drawn|driven|fallen|felt|found|frozen|"
    r"given|gone|grown|heard|held|hidden|kept|known|laid|led|left|lent|lost|made|meant|met|paid|said|seen|sent|shown|"
    r"sold|spent|spoken|stood|stuck|taken|thought|thrown|told|understood|woken|worn|written)(?:_|$)"
)
SUPERLATIVE = re.compile(
    r"\b_?(?:[A-Z]+_)*(?:MOST|LONGEST|LARGEST|BIGGEST|DEEPEST|SHORTEST|WIDEST|FARTHEST|LEAST)_[A-Z_]+\b"
)
VAGUE_DURATION = re.compile(r"(?:^|_)(?:PATIENCE|PAUSE)(?:_|$)|_(?:TIMEOUT|INTERVAL|BACKOFF|DELAY)$")
NOUN_CLAUSE = re.compile(r"(?:How|What|Whatever|When|Where|Whether|Which|Who|Whoever|Why)\b")
NOT_IMPERATIVE = re.compile(
    r"(?:The|A|An|All|Any|As|At|By|Each|Every|For|From|If|In|Its?|No|Nothing|Of|On|One|That|Their|These|They|This|Those|"
    r"To|With|Without)\b"
)
INDEFINITE_PERSON = re.compile(r"\b(?:nobody|whoever|somebody)\b", re.IGNORECASE)


def find_modules() -> list[Path]:
    """Return the Python files of the app, the commands, the benchmarks, the examples and the tests."""
    directories = [ROOT / name for name in ("app", "benchmarks", "examples", "tests")]
    patterns = ("*.py", "*/*.py", "*/*/*.py")  # not rglob: tests/clients/.venv has thousands of files
    modules = {path for directory in directories for pattern in patterns for path in directory.glob(pattern)}
    return sorted({*modules, *ROOT.glob("*.py"), ROOT / "migrations" / "env.py"} - {Path(__file__)})


def find_texts() -> list[Path]:
    """Return the files with text for people: modules, documents and the sources of the blueprint."""
    documents = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "api-blueprint").glob("*.apib"), *ROOT.glob("*.md")]
    modules = [path for path in find_modules() if "tests" not in path.parts]  # "nobody" is a name in tests
    return [*modules, *sorted(documents), ROOT / ".env.example", ROOT / "Makefile"]


@cache
def parse_module(path: Path) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(path.read_text(), str(path))


def find_participles(tree: ast.Module) -> Iterator[str]:
    """Yield the names of functions that begin with a past participle (`told`, `_listed_rows`)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and PARTICIPLE.match(node.name.lstrip("_")):
            yield node.name


def find_noun_clauses(tree: ast.Module) -> Iterator[str]:
    """Yield docstrings, of attributes too, that are a noun clause, and those of functions that are not imperative."""
    for node in ast.walk(tree):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        body = getattr(node, "body", ())
        for position, statement in enumerate(body if isinstance(body, list) else ()):
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                is_docstring = is_function and position == 0 and not node.name.startswith("test_")
                if NOUN_CLAUSE.match(value.value) or (is_docstring and NOT_IMPERATIVE.match(value.value)):
                    yield value.value.splitlines()[0]


def find_vague_durations(tree: ast.Module) -> Iterator[str]:
    """Yield the constants for a duration whose name has no unit."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.BinOp):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            yield from (name for name in names if name.isupper() and VAGUE_DURATION.search(name))


def find_shared_class_names(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Return the class names that are defined in more than one package, each with its packages."""
    packages: dict[str, set[str]] = defaultdict(set)
    for package, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                packages[node.name.lstrip("_")].add(package)
    return {name: places for name, places in packages.items() if len(places) > 1}


def get_package(path: Path) -> str:
    """Return the package of a module, such as `app.jobs`; a module directly in `app` is a package of its own."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[:2])


def test_no_function_name_begins_with_a_participle() -> None:
    violations = {
        f"{path.relative_to(ROOT)}: {name}" for path in find_modules() for name in find_participles(parse_module(path))
    }
    assert violations == set(EXCEPTIONS["participles"])


def test_no_docstring_is_a_noun_clause() -> None:
    violations = {
        f"{path.relative_to(ROOT)}: {line}" for path in find_modules() for line in find_noun_clauses(parse_module(path))
    }
    assert violations == set(EXCEPTIONS["noun_clauses"])


def test_no_duration_is_without_a_unit() -> None:
    violations = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in find_modules()
        for name in find_vague_durations(parse_module(path))
    }
    assert violations == set(EXCEPTIONS["durations"])


def test_no_class_name_is_in_two_packages() -> None:
    trees: dict[str, ast.Module] = defaultdict(lambda: ast.Module(body=[], type_ignores=[]))
    for path in (ROOT / "app").rglob("*.py"):
        trees[get_package(path)].body.extend(parse_module(path).body)
    assert set(find_shared_class_names(trees)) == set(EXCEPTIONS["class_names"])


@pytest.mark.parametrize(("rule", "pattern"), [("superlatives", SUPERLATIVE), ("persons", INDEFINITE_PERSON)])
def test_no_text_has_a_forbidden_word(rule: str, pattern: re.Pattern[str]) -> None:
    violations = {
        f"{path.relative_to(ROOT)}: {word}" for path in find_texts() for word in pattern.findall(path.read_text())
    }
    assert violations == set(EXCEPTIONS[rule])


def test_every_exception_has_a_reason() -> None:
    assert all(reason.strip() for rule in EXCEPTIONS.values() for reason in rule.values())


@pytest.mark.parametrize("name", ["told", "_listed_rows", "shown", "unnested", "kept_for"])
def test_planted_participle_is_found(name: str) -> None:
    assert list(find_participles(ast.parse(f"class Planted:\n    def {name}(self): ..."))) == [name]


@pytest.mark.parametrize("name", ["read_row", "feed", "need_token", "find", "is_shown"])
def test_other_function_names_are_not_found(name: str) -> None:
    assert not list(find_participles(ast.parse(f"def {name}(): ...")))


@pytest.mark.parametrize(
    "source",
    [
        'def f():\n    """What is said of it."""',
        'class C:\n    x = 1\n    """Whether it is open."""',
        '"""Who asks."""',
        'async def f():\n    """The id of a row."""',
    ],
)
def test_planted_noun_clause_is_found(source: str) -> None:
    assert len(list(find_noun_clauses(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source", ['def f():\n    """Return the id of a row."""', 'X = 1\n"""The limit."""', 'class C:\n    """The row."""']
)
def test_other_docstrings_are_not_found(source: str) -> None:
    assert not list(find_noun_clauses(ast.parse(source)))


@pytest.mark.parametrize("source", ["PATIENCE = 3", "_READ_TIMEOUT = 2.5", "class C:\n    LONG_PAUSE_SECONDS = 2 * 3"])
def test_planted_duration_is_found(source: str) -> None:
    assert len(list(find_vague_durations(ast.parse(source)))) == 1


@pytest.mark.parametrize("source", ["READ_TIMEOUT_SECONDS = 3", "RETRY_DELAY = timedelta(seconds=3)"])
def test_other_durations_are_not_found(source: str) -> None:
    assert not list(find_vague_durations(ast.parse(source)))


def test_planted_class_name_in_two_packages_is_found() -> None:
    trees = {"app.a": ast.parse("class Limits: ..."), "app.b": ast.parse("class _Limits: ...")}
    assert find_shared_class_names(trees) == {"Limits": {"app.a", "app.b"}}


@pytest.mark.parametrize("text", ["MOST_ITEMS = 3", "    _LONGEST_NAME = 3", "see HTTP_SHORTEST_NAME"])
def test_planted_superlative_is_found(text: str) -> None:
    assert SUPERLATIVE.search(text)
