"""Password hashes (argon2id), at most one at a time per core and half of them for one client.

Hash while no database connection is held: in writes of the API, in `DataLayer.before_transaction`.
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
"""19 MiB, two passes, one lane: the OWASP recommendation for argon2id."""

HASH_SLOT_TIMEOUT_SECONDS = 3.0
"""Seconds that a request waits for a slot to hash."""

MAX_WAITING = 64
"""Requests that wait for a slot; further ones are refused at once, because each occupies a thread."""

MAX_WAITING_PER_HOLDER = 16
"""Waiting requests of one client address or user; an IPv6 network (/48) may have twice as many."""

log = structlog.get_logger(__name__)


def make_hash_slots(cores: int) -> SlotPool:
    """Return a pool with one slot per core, of which one client address or user can use half."""
    return SlotPool(
        cores,
        max(1, cores // 2),
        max_waiting=MAX_WAITING,
        max_waiting_per_holder=MAX_WAITING_PER_HOLDER,
        remembers_holders=True,
    )


_slots = make_hash_slots(len(os.sched_getaffinity(0)))


def check_length(password: str) -> str:
    """Return the password; raise ValueError when its length in NFC is not allowed."""
    _validate_length(password)
    return password


def hash_password(password: str) -> str:
    """Return the hash of a password in NFC; raise ValueError when its length is not allowed."""
    return _compute_hash(_validate_length(password))


def rehash_password(password: str) -> str:
    """Return a new hash of a verified password without a check of its length, which old passwords may violate."""
    return _compute_hash(_normalize_password(password))


def verify_password(password_hash: str | None, password: str) -> bool:
    """Return whether the password matches the hash; without a hash return False after the same time."""
    return find_verified_spelling(password_hash, password) is not None


def find_verified_spelling(password_hash: str | None, password: str, *, is_known_device: bool = False) -> str | None:
    """Return the spelling of the password that matches the hash, None when no spelling matches.

    Try NFC (NIST SP 800-63B-4, 3.1.1.2), then the password as sent, which earlier versions hashed. Attempts of known
    devices and of authenticated users are hashed before others.
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
    """Return whether a password is in NFC."""
    return unicodedata.is_normalized("NFC", password)


def _matches_hash(password_hash: str | None, password: str, is_known_device: bool) -> bool:
    try:
        with _hash_slot(is_known_device=is_known_device):
            return HASHER.verify(password_hash or _dummy_hash(), password)
    except VerifyMismatchError:
        return False
    except (VerificationError, InvalidHashError):
        log.exception("password hash invalid")
        return False


def _compute_hash(password: str) -> str:
    with _hash_slot():
        return HASHER.hash(password)


def _validate_length(password: str) -> str:
    normalized = _normalize_password(password) if len(password) <= NFC_SHRINK_FACTOR * MAX_PASSWORD_LENGTH else password
    if not MIN_PASSWORD_LENGTH <= len(normalized) <= MAX_PASSWORD_LENGTH:
        raise ValueError(f"a password must have {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters")
    return normalized


def _normalize_password(password: str) -> str:
    return unicodedata.normalize("NFC", password)


def needs_rehash(password_hash: str) -> bool:
    """Return whether the hash has other parameters than HASHER."""
    return HASHER.check_needs_rehash(password_hash)


def _dummy_hash() -> str:
    """Return a valid hash with the parameters of HASHER that no known password matches."""
    salt, tag = (base64.b64encode(bytes(size)).decode().rstrip("=") for size in (HASHER.salt_len, HASHER.hash_len))
    return f"$argon2id$v=19$m={HASHER.memory_cost},t={HASHER.time_cost},p={HASHER.parallelism}${salt}${tag}"


@contextmanager
def _hash_slot(*, is_known_device: bool = False) -> Iterator[None]:
    """Hold a slot while hashing; raise TooManyRequests at the limit of the caller, Unavailable after the timeout."""
    user_id = g.get("user_id", 0) if has_request_context() else 0
    slot = take_slot(
        _slots,
        caller_holders(request.remote_addr, user_id) if has_request_context() else (),
        full="The server is checking too many passwords.",
        share="The server is checking too many passwords of {holder}. Send them one after the other.",
        timeout_seconds=HASH_SLOT_TIMEOUT_SECONDS,
        is_preferred=is_known_device or bool(user_id),
    )
    try:
        yield
    finally:
        _slots.release(slot)
