"""Storage fixture for the tests of document sets."""

from tests.images.conftest import storage  # noqa: F401  # a fixture
