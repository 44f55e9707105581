"""Transactions that drafter, the reference parser of API Blueprint, finds in the sources."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import pytest

from tests.docs.blueprint_sources import DIRECTORY, read_blueprint

Element = dict[str, Any]


@dataclass(frozen=True)
class Message:
    """Headers and body of a request or response."""

    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True)
class Transaction:
    """A documented request and its response."""

    title: str
    method: str
    uri: str
    request: Message
    status: int
    answer: Message


def parse_blueprint() -> Element:
    """Return the parse result of drafter; skip the test if Node or the parser is not installed."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node on PATH: the blueprint's transactions are not run")
    if not (DIRECTORY / "node_modules" / "drafter.js").is_dir():
        pytest.skip("drafter.js is not installed: `make test-docs` does it")
    command = [node, str(DIRECTORY / "parse.js")]
    done = subprocess.run(command, input=read_blueprint(), capture_output=True, text=True, check=True, timeout=60)
    result: Element = json.loads(done.stdout)
    return result


def list_annotations(result: Element) -> list[str]:
    """Return errors and warnings about the sources."""
    return [each["content"] for each in _children(result, "annotation")]


def list_transactions(result: Element) -> Iterator[Transaction]:
    """Yield every transaction in the order of the sources."""
    for resource in _descendants(result, "resource"):
        for transition in _children(resource, "transition"):
            template = _text(transition, "href") or _text(resource, "href")
            values = {**_examples(resource), **_examples(transition)}
            for transaction in _children(transition, "httpTransaction"):
                yield _build_transaction(transaction, expand_uri_template(template, values))


def expand_uri_template(template: str, values: Mapping[str, str]) -> str:
    """Return a URI template with example values (RFC 6570: `{a}` and `{?a,b}`); query variables may have none."""

    def query(found: re.Match[str]) -> str:
        pairs = [f"{name}={quote(values[name], safe='')}" for name in found[1].split(",") if name in values]
        return "?" + "&".join(pairs) if pairs else ""

    path = re.sub(r"\{\?([^}]*)\}", query, template)
    return re.sub(r"\{([^}]*)\}", lambda found: quote(values[found[1]], safe=""), path)


def _build_transaction(element: Element, uri: str) -> Transaction:
    (request,), (response,) = _children(element, "httpRequest"), _children(element, "httpResponse")
    return Transaction(
        title=request.get("meta", {}).get("title", {}).get("content", ""),
        method=_text(request, "method"),
        uri=uri,
        request=_build_message(request),
        status=int(_text(response, "statusCode")),
        answer=_build_message(response),
    )


def _build_message(element: Element) -> Message:
    headers = element.get("attributes", {}).get("headers", {}).get("content", [])
    bodies = [each["content"] for each in _children(element, "asset") if "messageBody" in json.dumps(each["meta"])]
    return Message(dict(_member(each) for each in headers), "".join(bodies))


def _examples(element: Element) -> dict[str, str]:
    variables = element.get("attributes", {}).get("hrefVariables", {}).get("content", [])
    pairs = [_member(each) for each in variables]
    return {unquote(name) if "%" not in name else name: value for name, value in pairs if value is not None}


def _member(element: Element) -> tuple[str, Any]:
    content = element["content"]
    return content["key"]["content"], content.get("value", {}).get("content")


def _text(element: Element, name: str) -> str:
    text: str = element.get("attributes", {}).get(name, {}).get("content", "")
    return text


def _children(element: Element, kind: str) -> list[Element]:
    return [each for each in element["content"] if isinstance(each, dict) and each.get("element") == kind]


def _descendants(element: Element, kind: str) -> Iterator[Element]:
    for child in element["content"] if isinstance(element.get("content"), list) else []:
        if child.get("element") == kind:
            yield child
        else:
            yield from _descendants(child, kind)
