"""Hashes of passwords."""

import threading

import pytest
from argon2 import PasswordHasher

from app.errors import Unavailable
from app.users import passwords
from app.users.passwords import hash_password, needs_rehash, verify_password


def test_a_hash_is_argon2id_with_19_mib_and_verifies_its_password_only() -> None:
    password_hash = hash_password("pässword 1")

    assert password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert verify_password(password_hash, "pässword 1")
    assert not verify_password(password_hash, "password 1")


@pytest.mark.parametrize("length", [8, 128])
def test_the_shortest_and_the_longest_password_are_hashed(length: int) -> None:
    assert verify_password(hash_password("x" * length), "x" * length)


@pytest.mark.parametrize("length", [0, 7, 129, 10_000_000])
def test_other_lengths_are_refused_before_hashing(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PasswordHasher, "hash", None)

    with pytest.raises(ValueError, match="8 to 128"):
        hash_password("x" * length)


def test_a_password_that_is_too_long_is_never_hashed_to_verify_it(monkeypatch: pytest.MonkeyPatch) -> None:
    password_hash = hash_password("x" * 128)
    monkeypatch.setattr(PasswordHasher, "verify", None)

    assert not verify_password(password_hash, "x" * 129)


def test_nobody_has_a_password() -> None:
    assert not verify_password(None, "")
    assert not verify_password(None, "password")


@pytest.mark.parametrize("broken", ["!", "plain text", "$argon2id$v=19$m=8", "$2b$12$abc"])
def test_a_broken_hash_lets_nobody_in(broken: str) -> None:
    assert not verify_password(broken, broken)


def test_only_hashes_with_other_parameters_are_made_again() -> None:
    assert not needs_rehash(hash_password("password"))
    assert needs_rehash(PasswordHasher(1, 8, 1).hash("password"))


def test_whoever_waits_too_long_for_a_turn_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_turns", threading.BoundedSemaphore(1))
    monkeypatch.setattr(passwords, "LONGEST_WAIT", 0.01)

    with passwords._turn(), pytest.raises(Unavailable) as refused:
        hash_password("password")

    assert refused.value.headers["Retry-After"]
    assert hash_password("password")
