"""Validation and normalization of e-mail addresses."""

import re
import unicodedata

import idna
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, ValidatedEmail, validate_email

from app.texts import NFC_SHRINK_FACTOR

MAX_EMAIL_LENGTH = 254
"""Characters of an address, from RFC 5321, 4.5.3.1.3."""

# The documented way to allow domains of local networks and tests.
SPECIAL_USE_DOMAIN_NAMES[:] = [name for name in SPECIAL_USE_DOMAIN_NAMES if name not in ("local", "test")]


A_LABEL_RE = re.compile("xn--[a-z0-9-]+", re.IGNORECASE)
"""The ASCII form of one label of a domain (RFC 5890)."""

FULL_STOPS = str.maketrans(dict.fromkeys("\u3002\uff0e\uff61", "."))
"""Characters that IDNA treats as the dots of a domain."""


def normalize_email(text: str) -> str:
    """Return the form in which an address is stored; raise ValueError when it is not valid.

    It is trimmed and in NFC, the domain is lower-case Unicode without A-labels, the local part is unchanged. The local
    part must be ASCII, because not all mail servers support SMTPUTF8.
    """
    return _parse_email(text).normalized


def email_key(text: str) -> str:
    """Return the key that all spellings of an address share; look-ups, filters and limits compare it.

    For a stored address it is `lower(email)`: the local part is ASCII and the domain lower-case, so PostgreSQL and
    Python agree. The key of a text that is not an address can only match rows of earlier versions.
    """
    try:
        return normalize_email(text).lower()
    except ValueError:
        trimmed = text.strip()
        return unicodedata.normalize("NFC", trimmed).lower() if len(trimmed) <= MAX_EMAIL_LENGTH else trimmed


def normalize_pattern(pattern: str) -> str:
    """Return a LIKE pattern that matches stored addresses: with Unicode instead of A-labels, and ASCII dots."""
    return A_LABEL_RE.sub(_decode_label, unicodedata.normalize("NFC", pattern).translate(FULL_STOPS))


def _decode_label(match: re.Match[str]) -> str:
    try:
        return idna.decode(match[0])
    except idna.IDNAError:
        return match[0]


def to_ascii_email(address: str) -> str:
    """Return the address with its domain in ASCII (A-labels), as SMTP requires."""
    return _parse_email(address).ascii_email or address


def _parse_email(text: str) -> ValidatedEmail:
    trimmed = text.strip()
    if len(trimmed) <= NFC_SHRINK_FACTOR * MAX_EMAIL_LENGTH:
        trimmed = unicodedata.normalize("NFC", trimmed)
    if len(trimmed) > MAX_EMAIL_LENGTH:
        raise ValueError(f"an e-mail address may have at most {MAX_EMAIL_LENGTH} characters")
    try:
        return validate_email(trimmed, allow_smtputf8=False, check_deliverability=False, strict=True)
    except EmailNotValidError:
        raise ValueError("this is not an e-mail address") from None
