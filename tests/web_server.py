"""A web process on a port, for tests of programs that speak HTTP themselves."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.request import urlopen

import pytest
from flask import Flask

from tests.conftest import Processes
from tests.docs import people


@pytest.fixture(scope="module")
def base_url(
    app: Flask, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., Any]
) -> Iterator[str]:
    """Where a web process listens, one for all clients."""
    running = Processes(environment, tmp_path_factory.mktemp("web"))
    web = running.start("web")
    try:
        wait_until(lambda: is_up(running.base_url), 30, "the server did not come up")
        yield running.base_url
    finally:
        running.stop(web)
        people.remove_world(app)


def is_up(base_url: str) -> bool:
    """Whether the web process answers."""
    try:
        with urlopen(f"{base_url}/livez", timeout=5) as answer:  # noqa: S310  # our own server
            return bool(answer.status == 200)
    except OSError:
        return False
