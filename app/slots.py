"""Slot pools: limits on things in use at the same time, in a process and for each holder (address or user)."""

import threading
import time
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple

from app.errors import TooManyRequests, Unavailable

FULL_GAP_SECONDS = 1.0
"""Time a pool may have a free slot and still count as full."""

MAX_SLOTS_IN_CROWDED_POOL = 2
"""Slots of a holder that gets one in the last quarter of a pool; one if the pool has fewer than 16."""

NETWORK_FACTOR = 2
"""Share of an IPv6 /48, relative to that of a /64: one client may own a whole /48."""

MAX_REMEMBERED_HOLDERS = 4096
"""Holders that a pool with `remembers_holders` remembers; those that were served longest ago are forgotten first."""

_USER_PREFIX = "user "
_GROUP_PREFIX = "group "
_NETWORK_SUFFIX = "/48"


class NoFreeSlotError(Exception):
    """No slot is free: `holder` has reached its share, or, if it is None, the pool has too few free slots."""

    def __init__(self, holder: str | None = None) -> None:
        super().__init__(holder)
        self.holder = holder


@dataclass(eq=False, slots=True)
class Slot:
    """Slot of a pool, held by an address, a user, or both."""

    holders: tuple[str, ...]
    taken_at: float

    @property
    def age_seconds(self) -> float:
        """Return how many seconds the slot has been held."""
        return time.monotonic() - self.taken_at


class _QueueKey(NamedTuple):
    """Key of a queue: its waiters have the same priority and are served in order of arrival."""

    holders: tuple[str, ...]
    is_preferred: bool


@dataclass(eq=False)
class _Waiter:
    """A thread that waits for a slot."""

    queue: "_QueueKey"
    slot: Slot | None = None
    is_displaced: bool = False
    """True after a waiter with a higher priority has taken its place."""
    wakeup: threading.Event = field(default_factory=threading.Event)


class SlotPool:
    """Pool of slots in which a holder has at most its share, and fewer when most slots are in use.

    A free slot goes to a preferred waiter first, then to the waiting holder that was served longest ago. With
    `remembers_holders`, holders that neither hold nor wait are remembered for this order. When the queue is full, the
    waiter with the lowest priority gives its place to a new one with a higher priority.
    """

    def __init__(
        self,
        size: int,
        max_per_holder: int,
        *,
        max_per_user: int | None = None,
        max_per_group: int | None = None,
        max_waiting: int = 128,
        max_waiting_per_holder: int = 32,
        remembers_holders: bool = False,
    ) -> None:
        self.size = size
        self.max_per_holder = max_per_holder
        self.max_per_user = max_per_user or max_per_holder
        self.max_per_group = max_per_group or max_per_holder
        self.max_waiting = max_waiting
        self.max_waiting_per_holder = max_waiting_per_holder
        self.remembers_holders = remembers_holders
        self._crowded_size = size - size // 4
        self._crowded_share = max(1, min(MAX_SLOTS_IN_CROWDED_POOL, size // 8))
        self._slots: set[Slot] = set()
        self._counts: dict[str, int] = {}
        self._served_at: dict[str, float] = {}
        """Monotonic time at which a holder that holds, waits or is remembered last got a slot."""
        self._queues: dict[_QueueKey, list[_Waiter]] = {}
        self._waiting_count = 0
        self._waiting_counts: dict[str, int] = {}
        self._lock = threading.Lock()
        self._full_since = 0.0
        self._freed_at = 0.0

    def __len__(self) -> int:
        """Return the number of slots in use."""
        return len(self._slots)

    @property
    def is_crowded(self) -> bool:
        """Return whether three quarters of the slots are in use: then only holders with few slots get another one."""
        return len(self._slots) >= self._crowded_size

    @property
    def is_awaited(self) -> bool:
        """Return whether a holder that has less than its share waits for a slot."""
        with self._lock:
            return any(self._find_blocked_holder(queue.holders) is None for queue in self._queues)

    def acquire(self, *holders: str, timeout_seconds: float = 0.0, is_preferred: bool = False) -> Slot:
        """Take a slot for these holders, waiting at most this long; raise NoFreeSlotError if none becomes free."""
        with self._lock:
            if not self._is_blocked(holders):
                return self._take_slot(holders)
            if timeout_seconds <= 0:
                raise NoFreeSlotError(self._find_blocked_holder(holders))
            waiter = _Waiter(_QueueKey(holders, is_preferred))
            self._enqueue_waiter(waiter)
        waiter.wakeup.wait(timeout_seconds)
        with self._lock:
            if waiter.slot is not None:
                return waiter.slot
            if not waiter.is_displaced:
                self._remove_waiter(waiter)
            self._forget_holders(holders)
            raise NoFreeSlotError(self._find_blocked_holder(holders))

    def release(self, slot: Slot) -> None:
        """Release a slot; a second call does nothing."""
        with self._lock:
            if slot not in self._slots:
                return
            if len(self._slots) == self.size:
                self._freed_at = time.monotonic()
            self._slots.remove(slot)
            counts = self._counts
            is_forgetting = not (self._queues or self.remembers_holders)
            for holder in slot.holders:
                count = counts[holder] - 1
                if count:
                    counts[holder] = count
                    continue
                del counts[holder]
                if is_forgetting:
                    del self._served_at[holder]
            if self._queues:
                self._grant_slots()
            if not is_forgetting:
                self._forget_holders(slot.holders)

    def is_crowding(self, slot: Slot) -> bool:
        """Return whether the pool is crowded and a holder of this slot has more slots than it would get now."""
        with self._lock:
            return self.is_crowded and any(
                self._counts.get(holder, 0) > _widen_share(holder, self._crowded_share) for holder in slot.holders
            )

    def get_full_seconds(self) -> float:
        """Return how many seconds all slots have been in use; 0 if one is free."""
        with self._lock:
            now = time.monotonic()
            is_full = len(self._slots) == self.size or now - self._freed_at <= FULL_GAP_SECONDS
            return now - self._full_since if is_full and self._full_since else 0.0

    def _take_slot(self, holders: tuple[str, ...]) -> Slot:
        slot = Slot(holders, time.monotonic())
        self._slots.add(slot)
        for holder in holders:
            self._counts[holder] = self._counts.get(holder, 0) + 1
            self._served_at[holder] = slot.taken_at
        if len(self._slots) == self.size and slot.taken_at - self._freed_at > FULL_GAP_SECONDS:
            self._full_since = slot.taken_at
        return slot

    def _grant_slots(self) -> None:
        """Give free slots to waiters; the remaining waiters are blocked, so a new request cannot overtake them."""
        while ready := [queue for queue in self._queues if not self._is_blocked(queue.holders)]:
            queue = min(ready, key=self._get_priority)
            waiter = self._queues[queue][0]
            self._remove_waiter(waiter)
            waiter.slot = self._take_slot(queue.holders)
            waiter.wakeup.set()

    def _get_priority(self, queue: _QueueKey) -> tuple[bool, float]:
        """Return the sort key of a queue, lowest first; equal queues are served in order of arrival.

        Groups do not count: one caller of a group would delay the others.
        """
        callers = (holder for holder in queue.holders if not holder.startswith(_GROUP_PREFIX))
        return not queue.is_preferred, max((self._served_at.get(holder, 0.0) for holder in callers), default=0.0)

    def _forget_holders(self, holders: tuple[str, ...]) -> None:
        """Delete the times of holders that neither hold nor wait; with `remembers_holders` only above the limit."""
        if self.remembers_holders:
            if len(self._served_at) <= MAX_REMEMBERED_HOLDERS:
                return
            holders = tuple(sorted(self._served_at, key=self._served_at.__getitem__)[: MAX_REMEMBERED_HOLDERS // 2])
        for holder in holders:
            if holder not in self._counts and holder not in self._waiting_counts:
                self._served_at.pop(holder, None)

    def _is_blocked(self, holders: tuple[str, ...]) -> bool:
        taken = len(self._slots)
        if taken >= self.size:
            return True
        counts = self._counts
        for holder in holders:
            count = counts.get(holder)
            if count is None:
                continue
            if count >= self._get_share(holder, self.max_per_holder, self.size):
                return True
            if taken >= self._crowded_size and count >= _widen_share(holder, self._crowded_share):
                return True
        return False

    def _find_blocked_holder(self, holders: tuple[str, ...]) -> str | None:
        counts = self._counts
        return next(
            (each for each in holders if counts.get(each, 0) >= self._get_share(each, self.max_per_holder, self.size)),
            None,
        )

    def _enqueue_waiter(self, waiter: _Waiter) -> None:
        """Add a waiter; raise NoFreeSlotError if the queue is full and no waiter has a lower priority."""
        for holder in waiter.queue.holders:
            waiting = self._waiting_counts.get(holder, 0)
            if waiting >= self._get_share(holder, self.max_waiting_per_holder, self.max_waiting):
                raise NoFreeSlotError(holder)
            if waiting and self._waiting_count >= self.max_waiting - self.max_waiting // 4:
                raise NoFreeSlotError
        if self._waiting_count >= self.max_waiting:
            last = max(self._queues, key=self._get_priority)
            if self._get_priority(waiter.queue) >= self._get_priority(last):
                raise NoFreeSlotError
            displaced = self._queues[last][-1]
            self._remove_waiter(displaced)
            displaced.is_displaced = True
            displaced.wakeup.set()
        self._queues.setdefault(waiter.queue, []).append(waiter)
        self._waiting_count += 1
        for holder in waiter.queue.holders:
            self._waiting_counts[holder] = self._waiting_counts.get(holder, 0) + 1

    def _remove_waiter(self, waiter: _Waiter) -> None:
        waiters = self._queues[waiter.queue]
        waiters.remove(waiter)
        if not waiters:
            del self._queues[waiter.queue]
        self._waiting_count -= 1
        for holder in waiter.queue.holders:
            self._waiting_counts[holder] -= 1
            if not self._waiting_counts[holder]:
                del self._waiting_counts[holder]

    def _get_share(self, holder: str, max_per_address: int, size: int) -> int:
        if holder.startswith(_USER_PREFIX):
            return max(1, max_per_address * self.max_per_user // self.max_per_holder)
        if holder.startswith(_GROUP_PREFIX):
            return max(1, max_per_address * self.max_per_group // self.max_per_holder)
        if holder.endswith(_NETWORK_SUFFIX):
            return max(max_per_address, min(_widen_share(holder, max_per_address), size - 1))
        return max_per_address


def take_slot(
    pool: SlotPool,
    holders: tuple[str, ...],
    *,
    full: str,
    share: str,
    retry_after: int = 5,
    timeout_seconds: float = 0.0,
    is_preferred: bool = False,
) -> Slot:
    """Take a slot for a request, waiting at most this long.

    Raise 503 with the detail `full` if the pool has too few free slots, 429 with the detail `share` if `{holder}` has
    reached its share.
    """
    try:
        return pool.acquire(*holders, timeout_seconds=timeout_seconds, is_preferred=is_preferred)
    except NoFreeSlotError as error:
        headers = {"Retry-After": str(retry_after)}
        if error.holder is None:
            raise Unavailable(full, headers=headers) from None
        raise TooManyRequests(share.format(holder=error.holder), headers=headers) from None


def _widen_share(holder: str, share: int) -> int:
    return share * NETWORK_FACTOR if holder.endswith(_NETWORK_SUFFIX) else share


def address_holder(address: str) -> str:
    """Return the holder of an IPv4 address, which is the address, or of an IPv6 address, which is its /64 network."""
    return address_holders(address)[0]


@lru_cache(4096)
def address_holders(address: str) -> tuple[str, ...]:
    """Return the holders of an address: an IPv4 address itself, or the /64 and /48 networks of an IPv6 address."""
    if ":" not in address:
        return (address,)
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:  # a proxy may forward any text
        return (address,)
    if parsed.ipv4_mapped is not None:
        return (str(parsed.ipv4_mapped),)
    number = int(parsed)
    return f"{IPv6Address(number >> 64 << 64)}/64", f"{IPv6Address(number >> 80 << 80)}{_NETWORK_SUFFIX}"


def is_user(holder: str) -> bool:
    """Return whether a holder is a user; the others are addresses and networks."""
    return holder.startswith(_USER_PREFIX)


def network_factor(holder: str) -> int:
    """Return the share of a holder relative to that of one address."""
    return NETWORK_FACTOR if holder.endswith(_NETWORK_SUFFIX) else 1


def user_holder(user_id: int) -> str:
    """Return the holder of an authenticated user."""
    return f"{_USER_PREFIX}{user_id}"


def group_holder(name: str) -> str:
    """Return the holder that all work of one kind counts for, beside those of its callers."""
    return f"{_GROUP_PREFIX}{name}"


def caller_holders(address: str | None, user_id: int = 0) -> tuple[str, ...]:
    """Return all holders of a request; user id 0 is the anonymous user."""
    holders = address_holders(address or "")
    return (*holders, user_holder(user_id)) if user_id else holders
