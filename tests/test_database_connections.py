"""The number of connections that PostgreSQL permits: a warning where it is too small, probes where all are taken."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import psycopg
import pytest
from flask import Flask

from tests.conftest import Processes


@pytest.fixture
def exhaust_connections(servers: dict[str, str]) -> Iterator[Callable[[], None]]:
    """Return a function that takes all connections of PostgreSQL until the test ends."""
    with ExitStack() as stack:

        def take_all() -> None:
            for _ in range(1000):
                try:
                    stack.enter_context(psycopg.connect(servers["DATABASE_URL"]))
                except psycopg.OperationalError as error:
                    if "too many clients" not in str(error):
                        raise
                    return

        yield take_all


def test_probes_pass_where_others_have_all_connections(
    app: Flask, make_app: Callable[..., Flask], exhaust_connections: Callable[[], None]
) -> None:
    client = make_app().test_client()
    assert client.get("/readyz").status_code == 200

    exhaust_connections()

    assert client.get("/readyz").status_code == 200
    checks = {each["checker"]: each for each in client.get("/health-check").get_json()["results"]}
    assert checks["health_check_db"]["passed"], checks


@pytest.mark.parametrize(("pool", "is_warned"), [("200", True), ("10", False)])
def test_web_warns_of_few_connections(
    processes: Processes, wait_until: Callable[..., Any], pool: str, is_warned: bool
) -> None:
    processes.start("web", DATABASE_POOL=pool)

    def is_up() -> bool:
        try:
            return httpx.get(f"{processes.base_url}/livez", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(is_up, 30)
    lines = [line for line in processes.log("web").read_text().splitlines() if "too few connections" in line]
    assert len(lines) == is_warned
    if is_warned:
        assert "max_connections=100" in lines[0]
        assert "needed=" in lines[0]
