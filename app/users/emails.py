"""E-mail addresses: what counts as one, and how it is spelled."""

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, ValidatedEmail, validate_email

LONGEST = 254
"""Characters of an address, from RFC 5321, 4.5.3.1.3."""

# The documented way to allow names that mean something inside a network, and in tests.
SPECIAL_USE_DOMAIN_NAMES[:] = [name for name in SPECIAL_USE_DOMAIN_NAMES if name not in ("local", "test")]


def normalise_email(text: str) -> str:
    """The address trimmed and with a lower-case domain, its local part as given; ValueError when it is none.

    Two addresses are the same when they are equal without regard to case: the unique index and every look-up
    compare `lower(email)`. Only what every mail server takes is an address (no SMTPUTF8).
    """
    return _checked(text).normalized


def ascii_email(address: str) -> str:
    """The address as a mail server takes it: an international domain in its ASCII form."""
    return _checked(address).ascii_email or address


def _checked(text: str) -> ValidatedEmail:
    trimmed = text.strip()
    if len(trimmed) > LONGEST:
        raise ValueError(f"an e-mail address has at most {LONGEST} characters")
    try:
        return validate_email(trimmed, allow_smtputf8=False, check_deliverability=False, strict=True)
    except EmailNotValidError:
        raise ValueError("this is not an e-mail address") from None
