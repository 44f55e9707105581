"""Slot pools: limits of a process and of each holder."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from app import slots
from app.slots import NoFreeSlotError, SlotPool, address_holder, address_holders, group_holder, user_holder


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
    assert pool.get_full_seconds() == 0
    slot = pool.acquire("a")
    wait_until(lambda: pool.get_full_seconds() > 0.1)
    pool.release(slot)
    slot = pool.acquire("b")
    assert pool.get_full_seconds() > 0.1

    pool.release(slot)
    wait_until(lambda: pool.get_full_seconds() == 0)
    pool.acquire("c")
    assert pool.get_full_seconds() < 0.1


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


@pytest.mark.parametrize(
    ("address", "holders"),
    [
        ("192.0.2.1", ("192.0.2.1",)),
        ("2001:db8:1:2:3:4:5:6", ("2001:db8:1:2::/64", "2001:db8:1::/48")),
        ("::ffff:192.0.2.1", ("192.0.2.1",)),
        ("nonsense:1", ("nonsense:1",)),
    ],
)
def test_address_holders_of_ipv6_are_two_networks(address: str, holders: tuple[str, ...]) -> None:
    assert address_holders(address) == holders


def acquire_all(pool: SlotPool, *holders: str) -> int:
    """Take slots until the pool refuses; return their number."""
    for number in range(pool.size + 1):
        try:
            pool.acquire(*holders)
        except NoFreeSlotError:
            return number
    raise AssertionError("the pool refuses nothing")


def test_eight_addresses_with_their_shares_leave_slots_for_others() -> None:
    pool = SlotPool(192, 24)

    taken = [acquire_all(pool, f"attacker {number}") for number in range(8)]

    assert (taken, pool.is_crowded) == ([24] * 6 + [2, 2], True)
    with pytest.raises(NoFreeSlotError) as refused:
        pool.acquire("attacker 7")
    assert refused.value.holder is None
    assert [acquire_all(pool, f"other {number}") for number in range(20)] == [2] * 20


def test_small_pool_keeps_its_last_quarter_for_holders_without_a_slot() -> None:
    pool = SlotPool(8, 3)

    assert [acquire_all(pool, name) for name in "abcde"] == [3, 3, 1, 1, 0]


def test_many_networks_of_one_ipv6_site_have_twice_the_share_of_one() -> None:
    pool = SlotPool(192, 24)

    taken = [acquire_all(pool, *address_holders(f"2001:db8:1:{number}::1")) for number in range(8)]

    assert taken == [24, 24, 0, 0, 0, 0, 0, 0]
    assert acquire_all(pool, *address_holders("2001:db8:2::1")) == 24


def test_user_has_a_share_of_its_own_whatever_the_address() -> None:
    pool = SlotPool(8, 5, max_per_user=3)

    assert acquire_all(pool, "a", user_holder(1)) == 3
    assert acquire_all(pool, "b", user_holder(1)) == 0
    assert acquire_all(pool, "a", user_holder(2)) == 2, "the address has five"


def test_group_has_a_share_of_its_own_and_delays_no_caller(wait_until: Callable[..., Any]) -> None:
    pool = SlotPool(10, 5, max_per_group=2)
    group = group_holder("streams")
    slots = [pool.acquire("a", group), pool.acquire("b", group)]
    served: list[str] = []

    def wait(*holders: str) -> None:
        slots.append(pool.acquire(*holders, timeout_seconds=20))
        served.append(holders[0])

    with pytest.raises(NoFreeSlotError) as refused:
        pool.acquire("c", group)
    waiters = [threading.Thread(target=wait, args=(name, group)) for name in ("a", "c")]
    for number, waiter in enumerate(waiters, 1):
        waiter.start()
        wait_until(lambda number=number: pool._waiting_count == number)
    pool.release(slots[1])
    wait_until(lambda: served)
    pool.release(slots[0])
    for waiter in waiters:
        waiter.join()

    assert refused.value.holder == group
    assert served == ["c", "a"], "callers of a group take turns"
    pool.acquire("c")


def test_is_crowding_names_slots_of_holders_with_many_in_a_crowded_pool() -> None:
    pool = SlotPool(16, 11)
    many = [pool.acquire("a") for _ in range(11)]
    assert not pool.is_crowding(many[0])

    one = pool.acquire("b")

    assert pool.is_crowding(many[0])
    assert not pool.is_crowding(one)


def test_freed_slot_goes_to_the_waiter_that_was_served_longest_ago(wait_until: Callable[..., Any]) -> None:
    pool = SlotPool(1, 1)
    slot = pool.acquire("a")
    order: list[str] = []

    def wait(name: str) -> None:
        own = pool.acquire(name, timeout_seconds=30)
        order.append(name)
        pool.release(own)

    threads = []
    for number, name in enumerate(["a", "a", "b", "c"], 1):
        threads.append(threading.Thread(target=wait, args=[name]))
        threads[-1].start()
        wait_until(lambda number=number: pool._waiting_count == number)
    pool.release(slot)
    for thread in threads:
        thread.join(30)

    assert order == ["b", "c", "a", "a"]


def test_only_so_many_wait_in_all_and_of_one_holder(wait_until: Callable[..., Any]) -> None:
    pool = SlotPool(1, 1, max_waiting=4, max_waiting_per_holder=2)
    slot = pool.acquire("x")

    def wait(name: str) -> None:
        pool.release(pool.acquire(name, timeout_seconds=30))

    threads = [threading.Thread(target=wait, args=[name]) for name in ("a", "a", "b")]
    for thread in threads:
        thread.start()
    wait_until(lambda: pool._waiting_count == 3)
    with pytest.raises(NoFreeSlotError) as of_holder:
        pool.acquire("a", timeout_seconds=30)
    with pytest.raises(NoFreeSlotError) as crowded:
        pool.acquire("b", timeout_seconds=30)
    threads.append(threading.Thread(target=wait, args=["c"]))
    threads[-1].start()
    wait_until(lambda: pool._waiting_count == 4)
    with pytest.raises(NoFreeSlotError) as full:
        pool.acquire("d", timeout_seconds=30)

    assert (of_holder.value.holder, crowded.value.holder, full.value.holder) == ("a", None, None)
    pool.release(slot)
    for thread in threads:
        thread.join(30)
    assert (len(pool), pool._served_at) == (0, {})


def queue_waiters(
    pool: SlotPool, names: list[str], order: list[str], wait_until: Callable[..., Any], preferred: str = ""
) -> list[threading.Thread]:
    """Let a thread of each name wait for a slot, one after the other; each notes when it is served or displaced."""

    def wait(name: str) -> None:
        try:
            slot = pool.acquire(name, timeout_seconds=30, is_preferred=name == preferred)
        except NoFreeSlotError:
            order.append(f"not {name}")
            return
        order.append(name)
        pool.release(slot)

    threads = []
    for number, name in enumerate(names, 1):
        threads.append(threading.Thread(target=wait, args=[name]))
        threads[-1].start()
        wait_until(lambda number=number: pool._waiting_count + len(order) == number)
    return threads


def test_pool_that_remembers_holders_serves_new_ones_before_those_of_a_moment_ago(
    wait_until: Callable[..., Any],
) -> None:
    pool = SlotPool(1, 1, remembers_holders=True)
    for name in ("b", "a"):
        pool.release(pool.acquire(name))
    slot, order = pool.acquire("x"), list[str]()

    threads = queue_waiters(pool, ["a", "b", "new"], order, wait_until)
    pool.release(slot)
    for thread in threads:
        thread.join(30)

    assert order == ["new", "b", "a"]


def test_pool_that_remembers_holders_forgets_the_oldest_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "MAX_REMEMBERED_HOLDERS", 8)
    pool = SlotPool(4, 2, remembers_holders=True)
    pool.acquire("held")

    for number in range(100):
        pool.release(pool.acquire(f"{number}"))

    assert len(pool._served_at) <= 9
    assert {"held", "99"} <= pool._served_at.keys()


def test_preferred_waiter_is_served_first(wait_until: Callable[..., Any]) -> None:
    pool = SlotPool(1, 1)
    slot, order = pool.acquire("known"), list[str]()

    threads = queue_waiters(pool, ["a", "known"], order, wait_until, preferred="known")
    pool.release(slot)
    for thread in threads:
        thread.join(30)

    assert order == ["known", "a"]


@pytest.mark.parametrize(("newcomer", "preferred"), [("new", ""), ("a", "a")])
def test_newcomer_with_an_earlier_turn_takes_the_place_of_the_last_waiter(
    wait_until: Callable[..., Any], newcomer: str, preferred: str
) -> None:
    pool = SlotPool(1, 1, max_waiting=2, remembers_holders=True)
    for name in ("a", "b", "c"):
        pool.release(pool.acquire(name))
    slot, order = pool.acquire("x"), list[str]()

    threads = queue_waiters(pool, ["b", "c", newcomer], order, wait_until, preferred)
    wait_until(lambda: order == ["not c"])
    with pytest.raises(NoFreeSlotError):
        pool.acquire("x", timeout_seconds=30)
    pool.release(slot)
    for thread in threads:
        thread.join(30)

    assert order == ["not c", newcomer, "b"]
    assert (len(pool), pool._queues) == (0, {})


def test_waiter_that_gives_up_leaves_nothing_behind() -> None:
    pool = SlotPool(1, 1)
    slot = pool.acquire("a")

    with pytest.raises(NoFreeSlotError):
        pool.acquire("b", timeout_seconds=0.01)

    pool.release(slot)
    assert (len(pool), pool._queues, pool._counts, pool._served_at) == (0, {}, {}, {})


@pytest.mark.parametrize(("waiting", "is_awaited"), [("a", False), ("b", True)])
def test_is_awaited_does_not_count_those_that_have_their_share(
    wait_until: Callable[..., Any], waiting: str, is_awaited: bool
) -> None:
    pool = SlotPool(2, 1)
    slots = [pool.acquire("a"), pool.acquire("c")]
    assert not pool.is_awaited

    thread = threading.Thread(target=pool.acquire, args=[waiting], kwargs={"timeout_seconds": 30})
    thread.start()
    wait_until(lambda: pool._queues)

    assert pool.is_awaited == is_awaited
    for slot in slots:
        pool.release(slot)
    thread.join(30)
