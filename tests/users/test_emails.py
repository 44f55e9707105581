"""Spelling of e-mail addresses."""

import pytest

from app.users.emails import normalize_email


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ada@example.com", "ada@example.com"),
        ("  Ada.Lovelace+x@Example.COM\n", "Ada.Lovelace+x@example.com"),
        ("ada@office.local", "ada@office.local"),
        ("ada@example.test", "ada@example.test"),
        ("ada@bücher.example.com", "ada@bücher.example.com"),
    ],
)
def test_an_address_is_trimmed_and_its_domain_folded(text: str, address: str) -> None:
    assert normalize_email(text) == address


@pytest.mark.parametrize(
    "text",
    ["", " ", "ada", "@example.com", "ada@", "ada@example", "a da@example.com", "ada@exa mple.com", "ada@@example.com",
     "ada@example.com, eve@example.com", "Ada <ada@example.com>", "ada@example.com\nBcc: eve@example.com",
     "ada@example.com\r\n\r\nbody", "ädä@example.com", "ada@-example.com", "ada@[127.0.0.1]", '"a b"@example.com',
     "a" * 65 + "@example.com", "a@" + "b" * 300 + ".com", "x" * 1_000_000, "ada\x00@example.com"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="e-mail address"):
        normalize_email(text)
