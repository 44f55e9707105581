"""The comparison of structures notices what differs, and nothing else."""

from typing import Any

import pytest

from tests.docs.body_comparison import find_differences


@pytest.mark.parametrize(
    ("documented", "answered"),
    [
        ({"a": 1}, {"a": 2.5}),
        ({"a": "x", "b": None}, {"b": None, "a": "y"}),
        ([], []),
        ([{"id": "1"}, {"id": "2"}], [{"id": "8"}, {"id": "9"}]),
    ],
)
def test_the_same_structure(documented: Any, answered: Any) -> None:
    assert list(find_differences(documented, answered)) == []


@pytest.mark.parametrize(
    ("documented", "answered", "pointer"),
    [
        ({"a": 1}, {}, "/a"),
        ({}, {"a": 1}, "/a"),
        ({"a": 1}, {"a": "1"}, "/a"),
        ({"a": 1}, {"a": True}, "/a"),
        ({"a": None}, {"a": "x"}, "/a"),
        ({"a": {}}, {"a": []}, "/a"),
        ([1], [1, 2], ""),
        ([1, 2], [1], ""),
        ({"data": [{"id": "1"}, {"id": "2"}]}, {"data": [{"id": "1"}, {"id": 2}]}, "/data/1/id"),
    ],
)
def test_find_differences_reports_pointer(documented: Any, answered: Any, pointer: str) -> None:
    (line,) = find_differences(documented, answered)

    assert line.startswith(f"{pointer}:")
