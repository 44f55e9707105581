"""The blueprint and the server name the same routes."""

from collections import Counter

from flask import Flask

from app.routes import listed
from tests.docs.sources import actions, files, flat, unnamed, written

OTHERS = {
    "",
    "/docs",
    "/docs/openapi",
    "/favicon.ico",
    "/files/{}",
    "/openapi.json",
    "/overview/static/{}",
    "/robots.txt",
    "/static/{}",
    "/.well-known/security.txt",
}
"""No part of the API: pages, its descriptions, files, whose URLs are handed out whole, and what a page is made of."""

PAGES = "/jobs"
"""Where people look on in a browser."""


def test_every_route_is_in_the_blueprint_and_the_reverse(app: Flask) -> None:
    served = {(method, unnamed(route["path"])) for route in listed(app) for method in route["methods"]}
    documented = {(action.method, action.path) for action in actions()}

    assert {path for _method, path in served} >= OTHERS
    assert {route for route in served if route[1] not in OTHERS and not route[1].startswith(PAGES)} == documented


def test_every_action_shows_a_request_and_its_answer() -> None:
    shown = {example.action for example in written()}

    assert [action for action in actions() if action not in shown] == []


def test_every_example_has_a_title_of_its_own_within_its_action() -> None:
    counted = Counter(map(str, written()))

    assert [title for title, number in counted.items() if number > 1 or title.endswith(": ")] == []


def test_requests_and_answers_come_in_pairs() -> None:
    kinds = [line.split()[1] for line in flat().splitlines() if line.startswith(("+ Request", "+ Response"))]

    assert kinds == ["Request", "Response"] * (len(kinds) // 2)


def test_every_group_has_a_table_of_its_parameters() -> None:
    groups = flat().split("\n# Group ")[1:]

    assert len(groups) == len(files()) - 1  # each file but the root is a group
    assert all("\n| Parameter | Description | Type | Required |\n" in group for group in groups)
