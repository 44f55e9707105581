"""Fixtures of the tests of pages: users with passwords, and browsers."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser as Chromium

from tests.dataset import Dataset
from tests.images.conftest import storage  # noqa: F401  # a fixture
from tests.pages.browser import Browser, give_passwords, sign_in_as
from tests.pages.chromium_helpers import launch_browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    """Start one browser for all tests; each test opens its own context."""
    with launch_browser() as browser:
        yield browser


@pytest.fixture
def people(dataset: Dataset) -> Dataset:
    """Return a dataset in which all users have a password."""
    give_passwords(dataset)
    return dataset


@pytest.fixture
def browser(people: Dataset) -> Browser:
    """Return a browser in which the stranger is signed in."""
    return sign_in_as(people, "stranger")
