"""E-mail addresses: what counts as one, and how it is spelled."""

import re
import unicodedata

import idna
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, ValidatedEmail, validate_email

from app.texts import NFC_SHRINK_FACTOR

MAX_EMAIL_LENGTH = 254
"""Characters of an address, from RFC 5321, 4.5.3.1.3."""

# The documented way to allow names that mean something inside a network, and in tests.
SPECIAL_USE_DOMAIN_NAMES[:] = [name for name in SPECIAL_USE_DOMAIN_NAMES if name not in ("local", "test")]


A_LABEL_RE = re.compile("xn--[a-z0-9-]+", re.IGNORECASE)
"""The ASCII form of one label of a domain (RFC 5890)."""

FULL_STOPS = str.maketrans(dict.fromkeys("\u3002\uff0e\uff61", "."))
"""Characters that IDNA treats as the dots of a domain."""


def normalize_email(text: str) -> str:
    """Return the one spelling in which an address is stored; raise ValueError for what is none.

    It is trimmed and in NFC, its domain is lower-case and in Unicode rather than in A-labels, its local part is as
    given. Only what every mail server takes is an address: the local part is ASCII (no SMTPUTF8).
    """
    return _parse_email(text).normalized


def email_key(text: str) -> str:
    """Return what all spellings of one address have in common: what look-ups, filters and limits compare.

    A stored address has it as `lower(email)`: its local part is ASCII and its domain lower-case, so PostgreSQL and
    Python agree. What is no address gets a key that only an old row may have.
    """
    try:
        return normalize_email(text).lower()
    except ValueError:
        trimmed = text.strip()
        return unicodedata.normalize("NFC", trimmed).lower() if len(trimmed) <= MAX_EMAIL_LENGTH else trimmed


def normalize_pattern(pattern: str) -> str:
    """Return a LIKE pattern for stored addresses: A-labels, which are stored in Unicode, and dots are respelled."""
    return A_LABEL_RE.sub(_decode_label, unicodedata.normalize("NFC", pattern).translate(FULL_STOPS))


def _decode_label(match: re.Match[str]) -> str:
    try:
        return idna.decode(match[0])
    except idna.IDNAError:
        return match[0]


def to_ascii_email(address: str) -> str:
    """The address as a mail server takes it: an international domain in its ASCII form."""
    return _parse_email(address).ascii_email or address


def _parse_email(text: str) -> ValidatedEmail:
    trimmed = text.strip()
    if len(trimmed) <= NFC_SHRINK_FACTOR * MAX_EMAIL_LENGTH:
        trimmed = unicodedata.normalize("NFC", trimmed)
    if len(trimmed) > MAX_EMAIL_LENGTH:
        raise ValueError(f"an e-mail address has at most {MAX_EMAIL_LENGTH} characters")
    try:
        return validate_email(trimmed, allow_smtputf8=False, check_deliverability=False, strict=True)
    except EmailNotValidError:
        raise ValueError("this is not an e-mail address") from None
