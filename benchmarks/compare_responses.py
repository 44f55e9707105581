"""Comparison of the responses of all systems: times are comparable only if the responses are equal."""

import re
from collections.abc import Sequence
from http.client import HTTPConnection
from typing import Any

import orjson

from benchmarks.cases import Case
from benchmarks.handwritten_documents import PAYMENT_KEYS
from benchmarks.load import send_request
from benchmarks.processes import BenchmarkSite, WebProcess

IDENTICAL_SYSTEMS = frozenset({"limit", "constant"})
"""Systems with the same documents as the app; those of the stock library have other names, but as many resources."""


class ResponseMismatch(Exception):
    """The response of a system differs; the message contains the JSON pointer of the difference."""


def check_responses(site: BenchmarkSite, web: WebProcess, cases: Sequence[Case]) -> None:
    """Store the responses of the app as files; compare those of other systems with them, or raise ResponseMismatch."""
    connection = HTTPConnection("127.0.0.1", web.port, timeout=60)
    for case in cases:
        answer = send_request(connection, case.build_request(0, web.system, site.build_headers()))
        kept = site.directory / f"{case.letter}.json"
        if web.system == "ours":
            kept.write_bytes(answer)
        elif web.system in IDENTICAL_SYSTEMS:
            _check_same(
                _normalize_response(kept.read_bytes()), _normalize_response(answer), f"{web.system}, {case.name}: "
            )
        elif _count_members(kept.read_bytes()) != _count_members(answer):
            raise ResponseMismatch(f"{web.system}, {case.name}: {_count_members(answer)} resources and attributes")
    connection.close()


def _normalize_response(answer: bytes) -> Any:
    """Return the document without values that differ between rows: id and creation time of a new FAQ."""
    new = re.search(rb'"type":"faq","id":"(\d+)"', answer) if b'"Question 0?"' in answer else None
    if new is not None:
        answer = re.sub(rb'(?<=[/"])%s(?=[/"])' % new[1], b"ID", answer)
        answer = re.sub(rb'"created-at":"[^"]+"', b'"created-at":"NOW"', answer)
    return orjson.loads(answer)


def _check_same(expected: Any, found: Any, at: str) -> None:
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        for name, member in expected.items():
            _check_same(member, found[name], f"{at}/{name}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, member in enumerate(expected):
            _check_same(member, found[index], f"{at}/{index}")
    elif expected != found:
        raise ResponseMismatch(f"{at}: {str(found)[:200]} instead of {str(expected)[:200]}")


def _count_members(answer: bytes) -> tuple[int, int, int]:
    """Return the number of primary resources, of included resources, and of the public attributes in all of them.

    The stock library returns payment details to all users, so they are not counted.
    """
    document = orjson.loads(answer)
    data = document["data"] if isinstance(document["data"], list) else [document["data"]]
    included = document.get("included", [])
    return (
        len(data),
        len(included),
        sum(len(item["attributes"].keys() - {*PAYMENT_KEYS}) for item in (*data, *included)),
    )
