"""People who may sign in, and browsers."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser as Chromium

from tests.images.conftest import storage  # noqa: F401  # a fixture
from tests.pages.browser import Browser, give_passwords, signed_in
from tests.pages.window import launched
from tests.world import World


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    """One for all of them; each has a window of its own."""
    with launched() as browser:
        yield browser


@pytest.fixture
def people(world: World) -> World:
    """A world in which everybody has a password."""
    give_passwords(world)
    return world


@pytest.fixture
def browser(people: World) -> Browser:
    """The stranger's browser, signed in."""
    return signed_in(people, "stranger")
