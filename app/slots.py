"""Slots: how many of one thing a process, and each holder in it, may have at once."""

import threading
import time
from dataclasses import dataclass
from ipaddress import IPv6Address

FULL_GAP_SECONDS = 1.0
"""A pool that had a free slot for less than this still counts as full."""


class NoFreeSlotError(Exception):
    """No slot is free: none in the process, or none for this `holder`."""

    def __init__(self, holder: str | None = None) -> None:
        super().__init__(holder)
        self.holder = holder


@dataclass(frozen=True, eq=False)
class Slot:
    """One slot of a pool, held by an address, a user, or both."""

    holders: tuple[str, ...]
    taken_at: float

    @property
    def age_seconds(self) -> float:
        """Return for how long the slot has been held."""
        return time.monotonic() - self.taken_at


class SlotPool:
    """A number of slots, of which one holder has no more than its share."""

    def __init__(self, size: int, max_per_holder: int) -> None:
        self.size = size
        self.max_per_holder = max_per_holder
        self._slots: set[Slot] = set()
        self._counts: dict[str, int] = {}
        self._changed = threading.Condition()
        self._full_since = 0.0
        self._freed_at = 0.0

    def __len__(self) -> int:
        """Return how many slots are taken."""
        return len(self._slots)

    def acquire(self, *holders: str, timeout_seconds: float = 0.0) -> Slot:
        """Take a slot for these holders, waiting for it at most this long; raise NoFreeSlotError."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._is_blocked(holders), timeout_seconds):
                raise NoFreeSlotError(self._blocked_holder(holders))
            slot = Slot(holders, time.monotonic())
            self._slots.add(slot)
            for holder in holders:
                self._counts[holder] = self._counts.get(holder, 0) + 1
            if len(self._slots) == self.size and slot.taken_at - self._freed_at > FULL_GAP_SECONDS:
                self._full_since = slot.taken_at
            return slot

    def release(self, slot: Slot) -> None:
        """Give a slot back; a second time does nothing."""
        with self._changed:
            if slot not in self._slots:
                return
            if len(self._slots) == self.size:
                self._freed_at = time.monotonic()
            self._slots.remove(slot)
            for holder in slot.holders:
                self._counts[holder] -= 1
                if not self._counts[holder]:
                    del self._counts[holder]
            self._changed.notify_all()

    def full_seconds(self) -> float:
        """Return for how long all slots have been taken, 0 where one is free."""
        with self._changed:
            now = time.monotonic()
            is_full = len(self._slots) == self.size or now - self._freed_at <= FULL_GAP_SECONDS
            return now - self._full_since if is_full and self._full_since else 0.0

    def _is_blocked(self, holders: tuple[str, ...]) -> bool:
        return len(self._slots) >= self.size or self._blocked_holder(holders) is not None

    def _blocked_holder(self, holders: tuple[str, ...]) -> str | None:
        return next((holder for holder in holders if self._counts.get(holder, 0) >= self.max_per_holder), None)


def address_holder(address: str) -> str:
    """Return the holder that an address counts for: itself, of IPv6 the network (/64) that one client may own."""
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:  # a proxy may forward anything
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
