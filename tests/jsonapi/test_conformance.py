"""docs/json-api.md is correct: its tables are complete, its limits are those of the code, its examples run."""

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.dataset import ApiClient, Dataset

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT = (ROOT / "docs" / "json-api.md").read_text()
REQUIREMENTS = re.findall(
    r"\S+",
    """
    request-content-type request-accept response-ignore-parameters response-content-type
    response-unsupported-media-type response-not-acceptable additional-members ignore-additional-members json-object
    required-top-level data-errors data-included primary-data logical-collection resource-required-top-level
    resource-optional-top-level resource-id-type resource-id-type-types resource-unique resource-type-constraints
    resource-fields resource-attributes-key resource-attributes-reserve-members resource-relationships-key
    resource-relationships-object resource-related-resource-link resource-related-resource-link-change
    resource-linkage resource-link-response resource-identifier-required-members compound-documents-top-level-included
    compound-documents-full-linkage compound-documents-duplicates meta-objects top-level-links top-level-links-members
    json-api-type member-name-case member-name-character member-name-allowed-characters-only
    member-name-globally-allowed member-name-reserved-characters member-name-at-members-no-process
    member-name-at-members-ignore-for-definitions fetch-url-support fetch-response-code fetch-primary-data-collection
    fetch-primary-data-single fetch-responses-404 fetch-responses-http-semantics fetch-relationships
    fetch-relationships-response-200 fetch-relationships-response-200-primary-data fetch-relationships-response-404
    fetch-relationships-response-exists-empty fetch-relationships-http-semantics inclusion-unrequested
    inclusion-include-parameter-value inclusion-bad-request sparse-fieldsets-parameter-value
    sparse-fieldsets-additional-fields sorting-parameter-value sorting-multiple-fields sorting-order
    sorting-not-supported sorting-specified-order pagination-links-object pagination-keys pagination-unavailable-link
    pagination-order crud-atomic create-single-resource create-type-member create-relationships-member
    create-client-generated-ids-key create-client-generated-ids-forbidden create-responses-201-status
    create-responses-201-document create-responses-201-self create-responses-202 create-responses-204
    create-responses-409-exists create-responses-409-bad-type create-http-semantics update-patch-resource
    update-patch-resource-members update-interpret-resource-attributes update-interpret-resource-relationships
    update-resource-relationship-value update-resource-relationship-reject-full-replacement-response
    update-resource-202-status update-resource-200-status update-resource-relationship-200-response
    update-resource-200-meta update-resource-200-meta-representation update-resource-204-status
    update-resource-403-status update-resource-404-status update-resource-404-related update-resource-409-no-match
    update-resource-http-semantics respond-patch-to-one-relationship-link patch-to-one-data-member
    patch-to-one-response respond-patch-post-delete-to-many-relationship-link patch-post-delete-to-many-data-member
    patch-to-many-complete-replace post-to-many-add post-to-many-add-again post-to-many-response delete-to-many
    delete-to-many-success updating-relationship-202-status updating-relationship-204-status
    updating-relationship-200-status updating-relationship-200-response updating-relationship-200-meta
    updating-relationship-200-meta-content updating-relationship-403-status update-relationship-http-semantics
    delete-202-status delete-204-status delete-200-status deleting-http-semantics query-parameters-non-alpha
    error-object-key
    """,
)
"""Ids of the statements with MUST in the specification's own list (normative-statements-1.1.json)."""


def get_section(title: str) -> str:
    """Return the text below a heading, up to the next one."""
    return re.split(r"\n#+ ", DOCUMENT.split(f"# {title}\n", 1)[1], maxsplit=1)[0]


def get_table_rows(text: str) -> list[list[str]]:
    """Return the cells of the rows of a table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


TITLES = re.findall(r"^### (.*: (?:MUST|SHOULD))$", DOCUMENT, re.MULTILINE)
CONFORMANCE = [row for title in TITLES for row in get_table_rows(get_section(title))]


def list_test_names(below: Path) -> set[str]:
    """Return the names of all test functions in a directory."""
    trees = (ast.parse(path.read_text()) for path in below.rglob("test_*.py"))
    functions = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}


def test_every_must_is_in_the_table() -> None:
    listed = [statement for statement, _tested in get_table_rows(get_section("JSON:API 1.1: MUST"))]

    assert [statement for statement in listed if statement in REQUIREMENTS] == REQUIREMENTS


def test_every_statement_is_tested_or_has_a_reason() -> None:
    known = list_test_names(ROOT / "tests")
    for statement, tested in CONFORMANCE:
        named = set(re.findall(r"`(test_\w+)`", tested))
        assert named <= known, statement
        assert named or len(tested.split()) > 2, statement


def test_every_test_of_conformance_is_named() -> None:
    named = {name for _statement, tested in CONFORMANCE for name in re.findall(r"`(test_\w+)`", tested)}

    assert list_test_names(ROOT / "tests" / "jsonapi" / "conformance") - named == {"test_the_samples_are_of_every_kind"}


LIMITS = {constant.strip("`"): number for _what, number, constant in get_table_rows(get_section("Limits"))}


@pytest.mark.parametrize("constant", LIMITS)
def test_limits_are_those_of_the_code(constant: str) -> None:
    module, _, name = constant.rpartition(".")

    assert getattr(import_module(module), name) == int(LIMITS[constant].replace(",", ""))


def test_every_limit_of_the_layer_is_listed() -> None:
    named = re.compile(r"^((?:MAX|MIN|DEFAULT)_[A-Z_]*) = [0-9]", re.MULTILINE)
    found = {
        f"app.jsonapi.{path.stem}.{name}"
        for path in (ROOT / "app" / "jsonapi").glob("*.py")
        for name in named.findall(path.read_text())
    }

    assert found - LIMITS.keys() == {"app.jsonapi.resource_type.MAX_ID"}


def list_curl_examples() -> list[str]:
    """Return all curl commands of the document."""
    blocks = re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL)
    return [command for block in blocks for command in re.findall(r"^curl .*?(?=^curl |^\n|^#|\Z)", block, re.M | re.S)]


def run_curl_command(command: str, caller: ApiClient) -> int:
    """Send the request of a curl command by `caller`, who has no token, and return its status."""
    words = iter(shlex.split(command.replace("\\\n", ""), comments=True)[1:])
    method, path, query, body, headers = "GET", "", "", None, {}
    for word in words:
        match word:
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name.replace("-", "_")] = value
            case "-X":
                method = next(words)
            case "-d":
                body, method = next(words), "POST" if method == "GET" else method
            case "--data-urlencode":
                name, _, value = next(words).partition("=")
                query = "?" + urlencode({name: value})
            case "-g" | "-G" | "-i":
                pass
            case _:
                path = word
    return caller.send(method, path + query, body, **headers).status_code


@pytest.mark.parametrize("command", list_curl_examples())
def test_examples_run(dataset: Dataset, command: str) -> None:
    expected = re.search(r"# (\d{3})\s*$", command)
    ids = {"$EVENT": dataset.events, "$FAQ": dataset.faqs, "$TYPE": dataset.types}
    values = {variable: str(named["published"]) for variable, named in ids.items()}
    values |= {"$USER": str(dataset.stranger.id), "$API": "", "$AUTH": f"Authorization: JWT {dataset.owner.token}"}
    values["$JSONAPI"] = "Content-Type: application/vnd.api+json"
    for variable, value in values.items():
        command = command.replace(variable, value)

    status = run_curl_command(command, dataset.anonymous)

    assert status == int(expected[1]) if expected else status in (200, 201)
