"""Storage of a test's own."""

from tests.images.conftest import storage  # noqa: F401  # a fixture
