"""Fixtures of the tests of uploads."""

from tests.images.conftest import storage  # noqa: F401  # a fixture
