"""Passwords: argon2id, never more hashes at once than there are cores."""

import base64
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from app.errors import Unavailable

SHORTEST, LONGEST = 8, 128

HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)
"""19 MiB, two passes, one lane: OWASP's recommendation for argon2id."""

LONGEST_WAIT = 3.0
"""Seconds a request waits for its turn to hash."""

log = structlog.get_logger(__name__)

_turns = threading.BoundedSemaphore(len(os.sched_getaffinity(0)))


def check_length(password: str) -> str:
    """The password itself; ValueError when it is too short or too long to be one."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ValueError(f"a password has {SHORTEST} to {LONGEST} characters")
    return password


def hash_password(password: str) -> str:
    """What is stored of a password; ValueError when its length is wrong."""
    check_length(password)
    with _turn():
        return HASHER.hash(password)


def verify_password(password_hash: str | None, password: str) -> bool:
    """Whether the password belongs to the hash; without a hash (nobody has this name) it takes as long and is False."""
    if len(password) > LONGEST:
        return False
    try:
        with _turn():
            return HASHER.verify(password_hash or _dummy_hash(), password)
    except VerifyMismatchError:
        return False
    except (VerificationError, InvalidHashError):
        log.exception("a stored password hash cannot be read")
        return False


def needs_rehash(password_hash: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return HASHER.check_needs_rehash(password_hash)


def _dummy_hash() -> str:
    """A well-formed hash with today's parameters of which nobody knows the password."""
    salt, tag = (base64.b64encode(bytes(size)).decode().rstrip("=") for size in (HASHER.salt_len, HASHER.hash_len))
    return f"$argon2id$v=19$m={HASHER.memory_cost},t={HASHER.time_cost},p={HASHER.parallelism}${salt}${tag}"


@contextmanager
def _turn() -> Iterator[None]:
    if not _turns.acquire(timeout=LONGEST_WAIT):
        raise Unavailable("Too many people sign in at this moment.", headers={"Retry-After": "5"})
    try:
        yield
    finally:
        _turns.release()
