"""Client addresses in the headers of proxies."""

import pytest
from flask import Flask, request
from flask.testing import FlaskClient

from app.proxies import UNKNOWN_ADDRESS, parse_address, trust_proxies


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:4711", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%eth0]:4711", "fe80::1"),
        *dict.fromkeys(
            ["unknown", "_hidden", "192.0.2", "192.0.2.1:x", "192.0.2.1:123456", "[::1", "::1]", "1" * 60_000, "::g"],
            UNKNOWN_ADDRESS,
        ).items(),
    ],
)
def test_parse_address_without_port_and_zone(forwarded: str, address: str) -> None:
    assert parse_address(forwarded) == address


@pytest.fixture
def client_behind_proxies() -> FlaskClient:
    """Return a client of an app that trusts two proxies and responds with the client address."""
    app = Flask("proxied")
    app.add_url_rule("/", view_func=lambda: str(request.remote_addr))
    app.wsgi_app = trust_proxies(app.wsgi_app, 2)  # type: ignore[method-assign]  # Flask's documented way
    return app.test_client()


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("192.0.2.1:80, 192.0.2.2:81, 192.0.2.3:82", "192.0.2.2"),
        ("192.0.2.1, garbage, 192.0.2.3", UNKNOWN_ADDRESS),
        ("192.0.2.1", "unix"),
        ("", "unix"),
    ],
)
def test_trust_proxies_reads_the_entry_of_the_last_trusted_proxy(
    client_behind_proxies: FlaskClient, forwarded: str, address: str
) -> None:
    answer = client_behind_proxies.get(
        "/", headers={"X-Forwarded-For": forwarded}, environ_base={"REMOTE_ADDR": "unix"}
    )

    assert answer.text == address
