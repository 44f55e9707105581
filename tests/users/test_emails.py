"""Spelling of e-mail addresses."""

import pytest

from app.users.emails import email_key, normalize_email


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ada@example.com", "ada@example.com"),
        ("  Ada.Lovelace+x@Example.COM\n", "Ada.Lovelace+x@example.com"),
        ("ada@office.local", "ada@office.local"),
        ("ada@example.test", "ada@example.test"),
        ("ada@bücher.example.com", "ada@bücher.example.com"),
        ("ada@\uff45xample.com", "ada@example.com"),
        ("ada@example\u3002com", "ada@example.com"),
        ("ada@\u24d4xample.com\u3000", "ada@example.com"),
        ("ada@\u212aelvin.example", "ada@kelvin.example"),
    ],
)
def test_an_address_is_trimmed_and_its_domain_folded(text: str, address: str) -> None:
    assert normalize_email(text) == address


@pytest.mark.parametrize(
    "text",
    ["", " ", "ada", "@example.com", "ada@", "ada@example", "a da@example.com", "ada@exa mple.com", "ada@@example.com",
     "ada@example.com, eve@example.com", "Ada <ada@example.com>", "ada@example.com\nBcc: eve@example.com",
     "ada@example.com\r\n\r\nbody", "ädä@example.com", "ada@-example.com", "ada@[127.0.0.1]", '"a b"@example.com',
     "v\u0130ctim@example.com", "v\u0131ctim@example.com", "\uff56ictim@example.com", "\ufb01x@example.com",
     "victim@example.com.", "victim.@example.com", ".victim@example.com", "vic\u200btim@example.com",
     "ada\uff20example.com",
     "a" * 65 + "@example.com", "a@" + "b" * 300 + ".com", "x" * 1_000_000, "ada\x00@example.com"],
)  # fmt: skip
def test_normalize_email_refuses_invalid_address(text: str) -> None:
    with pytest.raises(ValueError, match="e-mail address"):
        normalize_email(text)


LETTERS = [chr(code) for code in (*range(0xC0, 0x250), *range(0x1E00, 0x1F00), *range(0xFF21, 0xFF5B))]


def test_email_key_is_that_of_an_account_only_where_the_address_is() -> None:
    """Check that limits count the account that look-ups find, or none, for every letter."""
    emails = [email for letter in LETTERS for email in (f"{letter}@example.com", f"ada@{letter}.example")]

    for email in emails:
        try:
            stored = normalize_email(email)
        except ValueError:
            assert not email_key(email).isascii(), f"{email!a} would have the key of another address"
        else:
            assert email_key(email) == stored.lower() == email_key(stored), ascii(email)
