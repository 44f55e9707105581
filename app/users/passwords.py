"""Passwords: argon2id, never more hashes at once than there are cores, and of one client half of them.

Hash while no database connection is held: `DataLayer.before_transaction` is the place for it in a write of the API.
"""

import base64
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from flask import g, has_request_context, request

from app.slots import SlotPool, caller_holders, take_slot
from app.texts import NFC_SHRINK_FACTOR

MIN_PASSWORD_LENGTH, MAX_PASSWORD_LENGTH = 8, 128

HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)
"""19 MiB, two passes, one lane: OWASP's recommendation for argon2id."""

HASH_SLOT_TIMEOUT_SECONDS = 3.0
"""Seconds a request waits for its turn to hash."""

MAX_WAITING = 64
"""Requests that wait for their turn; more are refused at once, as each holds a thread of the web process."""

MAX_WAITING_PER_HOLDER = 16
"""Of these, how many one client address and one user may have; a network (/48) of IPv6 twice as many."""

log = structlog.get_logger(__name__)


def make_hash_slots(cores: int) -> SlotPool:
    """Return the slots for hashes at once: one a core, half of them for one client address and for one user."""
    return SlotPool(
        cores,
        max(1, cores // 2),
        max_waiting=MAX_WAITING,
        max_waiting_per_holder=MAX_WAITING_PER_HOLDER,
        remembers_holders=True,
    )


_slots = make_hash_slots(len(os.sched_getaffinity(0)))


def check_length(password: str) -> str:
    """Return the password; raise ValueError when it is too short or too long to be one, in its normal form."""
    _validate_length(password)
    return password


def hash_password(password: str) -> str:
    """Return what is stored of a password, in its normal form; raise ValueError when its length is wrong."""
    return _compute_hash(_validate_length(password))


def rehash_password(password: str) -> str:
    """Return a new hash of a password that was verified; old ones may have another length in their normal form."""
    return _compute_hash(_normalize_password(password))


def verify_password(password_hash: str | None, password: str) -> bool:
    """Return whether the password belongs to the hash; without a hash (no such account) False, after as long."""
    return find_verified_spelling(password_hash, password) is not None


def find_verified_spelling(password_hash: str | None, password: str, *, is_known_device: bool = False) -> str | None:
    """Return the spelling of the password that the hash was made of, None when it was made of another password.

    Normalization Form C (NIST SP 800-63B-4, 3.1.1.2), else as typed: hashes of before were made of that. Tries of known
    devices and of signed-in callers are hashed before those of others.
    """
    if len(password) > NFC_SHRINK_FACTOR * MAX_PASSWORD_LENGTH:
        return None
    spellings = dict.fromkeys((_normalize_password(password), password))
    return next(
        (
            each
            for each in spellings
            if len(each) <= MAX_PASSWORD_LENGTH and _matches_hash(password_hash, each, is_known_device)
        ),
        None,
    )


def is_normalized(password: str) -> bool:
    """Return whether this spelling of a password is its normal form."""
    return unicodedata.is_normalized("NFC", password)


def _matches_hash(password_hash: str | None, password: str, is_known_device: bool) -> bool:
    try:
        with _hash_slot(is_known_device=is_known_device):
            return HASHER.verify(password_hash or _dummy_hash(), password)
    except VerifyMismatchError:
        return False
    except (VerificationError, InvalidHashError):
        log.exception("a stored password hash cannot be read")
        return False


def _compute_hash(password: str) -> str:
    with _hash_slot():
        return HASHER.hash(password)


def _validate_length(password: str) -> str:
    normalized = _normalize_password(password) if len(password) <= NFC_SHRINK_FACTOR * MAX_PASSWORD_LENGTH else password
    if not MIN_PASSWORD_LENGTH <= len(normalized) <= MAX_PASSWORD_LENGTH:
        raise ValueError(f"a password has {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters")
    return normalized


def _normalize_password(password: str) -> str:
    return unicodedata.normalize("NFC", password)


def needs_rehash(password_hash: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return HASHER.check_needs_rehash(password_hash)


def _dummy_hash() -> str:
    """A well-formed hash with today's parameters of which nobody knows the password."""
    salt, tag = (base64.b64encode(bytes(size)).decode().rstrip("=") for size in (HASHER.salt_len, HASHER.hash_len))
    return f"$argon2id$v=19$m={HASHER.memory_cost},t={HASHER.time_cost},p={HASHER.parallelism}${salt}${tag}"


@contextmanager
def _hash_slot(*, is_known_device: bool = False) -> Iterator[None]:
    """Hold a slot while hashing; raise 429 where the caller has its share, 503 where none gets free in time."""
    user_id = g.get("user_id", 0) if has_request_context() else 0
    slot = take_slot(
        _slots,
        caller_holders(request.remote_addr, user_id) if has_request_context() else (),
        full="Too many passwords are being checked at this moment.",
        share="Too many passwords of {holder} are being checked at this moment. Send them one after the other.",
        timeout_seconds=HASH_SLOT_TIMEOUT_SECONDS,
        is_preferred=is_known_device or bool(user_id),
    )
    try:
        yield
    finally:
        _slots.release(slot)
