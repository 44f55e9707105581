"""Redis transport of Celery that recovers when Redis stops answering or refuses writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty
from time import monotonic
from typing import Any

import kombu.connection
import structlog
from celery import Celery
from kombu.transport import redis, virtual
from redis import ConnectionError as RedisConnectionError
from redis import ReadOnlyError, ResponseError

REFUSAL_RETRY_DELAY_SECONDS = 1.0
"""Seconds until the next BRPOP after Redis has refused one."""

RECONNECT_INTERVALS = {"interval_start": 1, "interval_step": 1, "interval_max": 3}
"""Seconds between tries to connect; shorter than the time after which a node restarts itself."""

log = structlog.get_logger(__name__)


@dataclass
class ConsumerState:
    """The state of the consumer loop of this process."""

    polled_at: float | None = None
    """Monotonic time of the last answer of Redis to BRPOP, with or without a message; None before the first."""

    turned_at: float | None = None
    """Monotonic time of the last turn of the loop, which also runs while no slot is free."""

    is_ending: bool = False
    """True after SIGTERM or SIGINT, when the loop polls no more."""


consumer_state = ConsumerState()


class QoS(redis.QoS):
    """A QoS that frees prefetch slots even if Redis does not answer or refuses writes.

    kombu frees the prefetch slot of a message only after Redis has confirmed the acknowledgement. If Redis does not
    answer in time, Celery logs and ignores the error: the message would occupy its slot until the process ends, and a
    process without free slots consumes nothing. A message that stays in Redis is delivered again after the visibility
    timeout; the outbox consumer then finds its entry done.
    """

    def can_consume(self) -> bool:
        """Return whether a slot is free; the consumer loop calls this in each turn."""
        consumer_state.turned_at = monotonic()
        return bool(super().can_consume())  # type: ignore[no-untyped-call]  # kombu carries no types

    def append(self, message: Any, delivery_tag: Any) -> None:
        """Record an unacknowledged message; if Redis is full, only in memory, because the outbox publishes it again."""
        try:
            super().append(message, delivery_tag)  # type: ignore[no-untyped-call]  # same
        except ResponseError as error:
            log.warning("unacknowledged message not recorded in Redis", error=type(error).__name__)
            virtual.QoS.append(self, message, delivery_tag)  # type: ignore[no-untyped-call]  # same

    def ack(self, delivery_tag: Any) -> None:
        """Acknowledge the message in Redis and free its prefetch slot; raise the connection error if there is one."""
        with self._free_slot_on_error(delivery_tag):
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]  # same

    def reject(self, delivery_tag: Any, requeue: bool = False) -> None:
        """Reject the message in Redis and free its prefetch slot; raise the connection error if there is one."""
        with self._free_slot_on_error(delivery_tag):
            super().reject(delivery_tag, requeue=requeue)  # type: ignore[no-untyped-call]  # same

    def restore_unacked(self, client: Any = None) -> None:
        """Return messages to their queues; if the connection is lost they stay for the visibility timeout."""
        if self._is_connected:
            super().restore_unacked(client)  # type: ignore[no-untyped-call]  # same
        else:
            self._delivered.clear()

    @property
    def _is_connected(self) -> bool:
        """Return whether the connection that delivered the messages is still open.

        Without a connection kombu raises AttributeError, which would end the worker.
        """
        transport = self.channel.connection
        return transport is not None and transport.client is not None

    @contextmanager
    def _free_slot_on_error(self, delivery_tag: Any) -> Iterator[None]:
        try:
            yield
        except AttributeError as error:
            if self._is_connected:
                raise
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]  # same
            raise RedisConnectionError("The connection that delivered this message is lost.") from error
        except ResponseError as error:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]  # same
            # Celery logs connection errors and continues.
            raise RedisConnectionError(f"Redis refused the command: {error}") from error
        except self.channel.connection_errors:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]  # same
            raise


class Channel(redis.Channel):
    """A channel that records when it polled, and polls again after Redis has refused."""

    QoS = QoS

    _refused_until = 0.0
    _is_refused = False

    def _brpop_start(self, timeout: float | None = None) -> None:
        if monotonic() >= self._refused_until:
            super()._brpop_start(timeout)  # type: ignore[no-untyped-call]  # kombu carries no types

    def _brpop_read(self, **options: Any) -> Any:
        """Read the reply to BRPOP; raise Empty if there is no message."""
        try:
            is_delivered = super()._brpop_read(**options)  # type: ignore[no-untyped-call]  # kombu carries no types
        except Empty:
            self._record_poll()
            raise
        except ReadOnlyError as error:
            # The server has become a replica: a new connection reaches the primary, by its address or a proxy.
            self.client.connection.disconnect()
            raise RedisConnectionError(f"Redis is read-only: {error}") from error
        except ResponseError as error:
            self._refused_until = monotonic() + REFUSAL_RETRY_DELAY_SECONDS
            if not self._is_refused:
                self._is_refused = True
                log.warning("Redis refuses to deliver messages", error=str(error))
            raise Empty from error
        self._record_poll()
        return is_delivered

    def _record_poll(self) -> None:
        consumer_state.polled_at = monotonic()
        if self._is_refused:
            self._is_refused = False
            log.info("Redis delivers messages again")


class BrokerConnection(kombu.connection.Connection):
    """A connection with short pauses between tries; by default they grow by 2 s, up to 30 s."""

    def ensure_connection(self, *arguments: Any, **options: Any) -> Any:
        """Connect, with repeated tries; intervals that the caller passes take precedence."""
        intervals = {**RECONNECT_INTERVALS, **options}
        return super().ensure_connection(*arguments, **intervals)  # type: ignore[no-untyped-call]  # kombu carries no types


def init_app(celery: Celery) -> None:
    """Use these classes for every connection of this app to Redis: TCP, TLS, Unix socket."""
    redis.Transport.Channel = Channel
    celery.amqp.Connection = BrokerConnection
