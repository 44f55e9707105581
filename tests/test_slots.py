"""Slots: how many a process and each holder may have."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.slots import NoFreeSlotError, SlotPool, address_holder


def test_acquire_beyond_the_share_of_a_holder_names_the_holder() -> None:
    pool = SlotPool(10, 2)
    slots = [pool.acquire("a", "user 1") for _ in range(2)]

    with pytest.raises(NoFreeSlotError) as by_address:
        pool.acquire("a")
    with pytest.raises(NoFreeSlotError) as by_user:
        pool.acquire("b", "user 1")

    assert (by_address.value.holder, by_user.value.holder) == ("a", "user 1")
    pool.acquire("b")
    pool.release(slots[0])
    pool.release(slots[0])
    assert len(pool) == 2, "a slot is given back once"
    pool.acquire("a", "user 1")


def test_acquire_in_a_full_pool_names_no_holder() -> None:
    pool = SlotPool(1, 1)
    pool.acquire("a")

    with pytest.raises(NoFreeSlotError) as full:
        pool.acquire("b")

    assert full.value.holder is None


def test_acquire_waits_until_a_slot_is_released() -> None:
    pool = SlotPool(1, 1)
    slot = pool.acquire("a")
    timer = threading.Timer(0.1, pool.release, [slot])
    timer.start()

    pool.acquire("b", timeout_seconds=20)
    timer.join()


def test_full_seconds_grow_while_every_freed_slot_is_taken_at_once(wait_until: Callable[..., Any]) -> None:
    pool = SlotPool(1, 1)
    assert pool.full_seconds() == 0
    slot = pool.acquire("a")
    wait_until(lambda: pool.full_seconds() > 0.1)
    pool.release(slot)
    slot = pool.acquire("b")
    assert pool.full_seconds() > 0.1

    pool.release(slot)
    wait_until(lambda: pool.full_seconds() == 0)
    pool.acquire("c")
    assert pool.full_seconds() < 0.1


@pytest.mark.parametrize(
    ("address", "holder"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("unknown", "unknown"),
        ("nonsense:1", "nonsense:1"),
    ],
)
def test_address_holder_is_the_network_of_one_client(address: str, holder: str) -> None:
    assert address_holder(address) == holder
