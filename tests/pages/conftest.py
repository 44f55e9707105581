"""A browser for a module of tests."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.pages.window import launched


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One for all of them; each has a window of its own."""
    with launched() as browser:
        yield browser
