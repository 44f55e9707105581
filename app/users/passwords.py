"""Passwords: argon2id, never more hashes at once than there are cores.

Hash while no database connection is held: `DataLayer.before_transaction` is the place for it in a write of the API.
"""

import base64
import os
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from app.errors import Unavailable
from app.texts import NFC_SHRINK_FACTOR

SHORTEST, LONGEST = 8, 128

HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)
"""19 MiB, two passes, one lane: OWASP's recommendation for argon2id."""

LONGEST_WAIT = 3.0
"""Seconds a request waits for its turn to hash."""

MAX_WAITING = 64
"""Requests that wait for their turn; more are refused at once, as each holds a thread of the web process."""

log = structlog.get_logger(__name__)

_turns = threading.BoundedSemaphore(len(os.sched_getaffinity(0)))
_places = threading.BoundedSemaphore(MAX_WAITING)


def check_length(password: str) -> str:
    """Return the password; raise ValueError when it is too short or too long to be one, in its normal form."""
    _checked(password)
    return password


def hash_password(password: str) -> str:
    """Return what is stored of a password, in its normal form; raise ValueError when its length is wrong."""
    return _hash(_checked(password))


def rehash_password(password: str) -> str:
    """Return a new hash of a password that was verified; old ones may have another length in their normal form."""
    return _hash(_normalize(password))


def verify_password(password_hash: str | None, password: str) -> bool:
    """Return whether the password belongs to the hash; without a hash (no such account) False, after as long."""
    return find_verified_spelling(password_hash, password) is not None


def find_verified_spelling(password_hash: str | None, password: str) -> str | None:
    """Return the spelling of the password that the hash was made of, None when it was made of another password.

    Normalization Form C (NIST SP 800-63B-4, 3.1.1.2), else as typed: hashes of before were made of that.
    """
    if len(password) > NFC_SHRINK_FACTOR * LONGEST:
        return None
    spellings = dict.fromkeys((_normalize(password), password))
    return next((each for each in spellings if len(each) <= LONGEST and _matches(password_hash, each)), None)


def is_normal(password: str) -> bool:
    """Return whether this spelling of a password is its normal form."""
    return unicodedata.is_normalized("NFC", password)


def _matches(password_hash: str | None, password: str) -> bool:
    try:
        with _turn():
            return HASHER.verify(password_hash or _dummy_hash(), password)
    except VerifyMismatchError:
        return False
    except (VerificationError, InvalidHashError):
        log.exception("a stored password hash cannot be read")
        return False


def _hash(password: str) -> str:
    with _turn():
        return HASHER.hash(password)


def _checked(password: str) -> str:
    normalized = _normalize(password) if len(password) <= NFC_SHRINK_FACTOR * LONGEST else password
    if not SHORTEST <= len(normalized) <= LONGEST:
        raise ValueError(f"a password has {SHORTEST} to {LONGEST} characters")
    return normalized


def _normalize(password: str) -> str:
    return unicodedata.normalize("NFC", password)


def needs_rehash(password_hash: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return HASHER.check_needs_rehash(password_hash)


def _dummy_hash() -> str:
    """A well-formed hash with today's parameters of which nobody knows the password."""
    salt, tag = (base64.b64encode(bytes(size)).decode().rstrip("=") for size in (HASHER.salt_len, HASHER.hash_len))
    return f"$argon2id$v=19$m={HASHER.memory_cost},t={HASHER.time_cost},p={HASHER.parallelism}${salt}${tag}"


@contextmanager
def _turn() -> Iterator[None]:
    if not _has_turn():
        raise Unavailable("Too many passwords are being checked at this moment.", headers={"Retry-After": "5"})
    try:
        yield
    finally:
        _turns.release()


def _has_turn() -> bool:
    """Wait for one of the turns, if few others do; False when it was not given."""
    if not _places.acquire(blocking=False):
        return False
    try:
        return _turns.acquire(timeout=LONGEST_WAIT)
    finally:
        _places.release()
