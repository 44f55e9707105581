"""The Redis transport of Celery, which keeps consuming after an acknowledgement failed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.transport import redis, virtual


class QoS(redis.QoS):
    """Count a message as acknowledged even if Redis did not answer.

    kombu frees the prefetch slot of a message only after Redis has confirmed the acknowledgement, and Celery logs and
    ignores the error when Redis does not answer in time: each such message would occupy a slot until the process ends,
    and a process without free slots consumes nothing. What stays in Redis is delivered again after the visibility
    timeout; the outbox consumer then finds the entry done.
    """

    def ack(self, delivery_tag: Any) -> None:
        """Acknowledge the message in Redis and free its prefetch slot; raise the connection error if there is one."""
        with self._free_slot_on_error(delivery_tag):
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]  # kombu carries no types

    def reject(self, delivery_tag: Any, requeue: bool = False) -> None:
        """Reject the message in Redis and free its prefetch slot; raise the connection error if there is one."""
        with self._free_slot_on_error(delivery_tag):
            super().reject(delivery_tag, requeue=requeue)  # type: ignore[no-untyped-call]  # same

    @contextmanager
    def _free_slot_on_error(self, delivery_tag: Any) -> Iterator[None]:
        try:
            yield
        except self.channel.connection_errors:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]  # same
            raise


def install() -> None:
    """Use `QoS` in every Redis channel of this process: TCP, TLS, Unix socket."""
    redis.Channel.QoS = QoS
