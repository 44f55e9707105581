"""The Redis transport of Celery, made for a Redis that stops answering or refuses writes."""

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
"""Pause before Redis is asked for messages again after it has refused to hand them out."""

RECONNECT_INTERVALS = {"interval_start": 1, "interval_step": 1, "interval_max": 3}
"""Seconds between tries to connect: less than what a node gets before it restarts itself."""

log = structlog.get_logger(__name__)


@dataclass
class ConsumerState:
    """The state of the consumer loop of this process."""

    polled_at: float | None = None
    """When Redis last answered it, with a message or without, by the monotonic clock; None before the first time."""

    turned_at: float | None = None
    """When it last came round and asked whether a slot is free, which it does while all are taken too."""

    is_ending: bool = False
    """Whether it was told to end, and polls no more."""


consumer_state = ConsumerState()


class QoS(redis.QoS):
    """Keep the prefetch slots right when Redis does not answer or refuses writes.

    kombu frees the prefetch slot of a message only after Redis has confirmed the acknowledgement, and Celery logs and
    ignores the error when Redis does not answer in time: each such message would occupy a slot until the process ends,
    and a process without free slots consumes nothing. What stays in Redis is delivered again after the visibility
    timeout; the outbox consumer then finds the entry done.
    """

    def can_consume(self) -> bool:
        """Return whether a slot is free; the consumer loop asks each time that it comes round."""
        consumer_state.turned_at = monotonic()
        return bool(super().can_consume())  # type: ignore[no-untyped-call]  # kombu carries no types

    def append(self, message: Any, delivery_tag: Any) -> None:
        """Take a message in; where Redis is full, without its note for a redelivery: the outbox publishes again."""
        try:
            super().append(message, delivery_tag)  # type: ignore[no-untyped-call]  # same
        except ResponseError as error:
            log.warning("message is not noted as unacknowledged", error=type(error).__name__)
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
        """Hand messages back to their queues; where the connection is lost they stay for the visibility timeout."""
        if self._is_connected:
            super().restore_unacked(client)  # type: ignore[no-untyped-call]  # same
        else:
            self._delivered.clear()

    @property
    def _is_connected(self) -> bool:
        """Whether the connection that brought the messages is still used.

        kombu raises AttributeError where it is not, and that would end the worker.
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
            raise RedisConnectionError("The connection that brought this message is lost.") from error
        except ResponseError as error:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]  # same
            # Celery logs connection errors and goes on.
            raise RedisConnectionError(f"Redis refuses: {error}") from error
        except self.channel.connection_errors:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]  # same
            raise


class Channel(redis.Channel):
    """Note when messages were asked for, and go on asking when Redis refuses."""

    QoS = QoS

    _refused_until = 0.0
    _is_refused = False

    def _brpop_start(self, timeout: float | None = None) -> None:
        if monotonic() >= self._refused_until:
            super()._brpop_start(timeout)  # type: ignore[no-untyped-call]  # kombu carries no types

    def _brpop_read(self, **options: Any) -> Any:
        """Read the answer to BRPOP; raise Empty where there is no message."""
        try:
            is_delivered = super()._brpop_read(**options)  # type: ignore[no-untyped-call]  # kombu carries no types
        except Empty:
            self._record_poll()
            raise
        except ReadOnlyError as error:
            # The server became a replica: a new connection reaches the primary, by its address or a proxy.
            self.client.connection.disconnect()
            raise RedisConnectionError(f"Redis is read-only: {error}") from error
        except ResponseError as error:
            self._refused_until = monotonic() + REFUSAL_RETRY_DELAY_SECONDS
            if not self._is_refused:
                self._is_refused = True
                log.warning("Redis refuses to hand out messages", error=str(error))
            raise Empty from error
        self._record_poll()
        return is_delivered

    def _record_poll(self) -> None:
        consumer_state.polled_at = monotonic()
        if self._is_refused:
            self._is_refused = False
            log.info("Redis hands out messages again")


class BrokerConnection(kombu.connection.Connection):
    """Try again soon while Redis is away: by default each pause is 2 s longer than the one before, up to 30 s."""

    def ensure_connection(self, *arguments: Any, **options: Any) -> Any:
        """Connect, as often as it takes; what the caller says about pauses counts."""
        intervals = {**RECONNECT_INTERVALS, **options}
        return super().ensure_connection(*arguments, **intervals)  # type: ignore[no-untyped-call]  # kombu carries no types


def init_app(celery: Celery) -> None:
    """Use these classes for every connection of this app to Redis: TCP, TLS, Unix socket."""
    redis.Transport.Channel = Channel
    celery.amqp.Connection = BrokerConnection
