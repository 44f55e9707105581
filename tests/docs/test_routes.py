"""The blueprint and the server name the same routes."""

from collections import Counter

from flask import Flask

from app.routes import list_routes
from tests.docs.blueprint_sources import list_actions, list_examples, list_files, read_blueprint, strip_parameter_names

ROUTES_OUTSIDE_BLUEPRINT = {
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
"""Routes outside the API: pages, descriptions of the API, files (their URLs are in responses), and assets."""

PAGES = "/jobs"
"""Interactive pages, which the blueprint does not describe."""


def test_every_route_is_in_the_blueprint_and_the_reverse(app: Flask) -> None:
    served = {
        (method, strip_parameter_names(route["path"])) for route in list_routes(app) for method in route["methods"]
    }
    documented = {(action.method, action.path) for action in list_actions()}

    assert {path for _method, path in served} >= ROUTES_OUTSIDE_BLUEPRINT
    assert {
        route for route in served if route[1] not in ROUTES_OUTSIDE_BLUEPRINT and not route[1].startswith(PAGES)
    } == documented


def test_every_action_shows_a_request_and_its_answer() -> None:
    shown = {example.action for example in list_examples()}

    assert [action for action in list_actions() if action not in shown] == []


def test_every_example_has_a_title_of_its_own_within_its_action() -> None:
    counted = Counter(map(str, list_examples()))

    assert [title for title, number in counted.items() if number > 1 or title.endswith(": ")] == []


def test_requests_and_answers_come_in_pairs() -> None:
    kinds = [line.split()[1] for line in read_blueprint().splitlines() if line.startswith(("+ Request", "+ Response"))]

    assert kinds == ["Request", "Response"] * (len(kinds) // 2)


def test_every_group_has_a_table_of_its_parameters() -> None:
    groups = read_blueprint().split("\n# Group ")[1:]

    assert len(groups) == len(list_files()) - 1  # each file but the root is a group
    assert all("\n| Parameter | Description | Type | Required |\n" in group for group in groups)
