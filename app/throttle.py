"""How often one address, or one account, may knock: counted in Redis, in memory while Redis is away."""

import time
from hashlib import sha256
from math import ceil

from flask import Flask, current_app, g
from flask_limiter import RateLimitExceeded, RequestLimit
from redis import ReadOnlyError, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.errors import TooManyRequests
from app.extensions import limiter
from app.redis_client import limits_url

PER_ADDRESS = "20/minute"
PER_ACCOUNT = "5/minute"

PATIENCE = 0.1
"""Seconds Redis has for an answer before this process counts on its own."""


def install(app: Flask) -> None:
    """Bind the limiter; there are no limits but those that `count` names."""
    app.config.update(
        RATELIMIT_STORAGE_URI=limits_url(app.config["REDIS_URL"]),
        RATELIMIT_STORAGE_OPTIONS={
            "socket_timeout": PATIENCE,
            "socket_connect_timeout": PATIENCE,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [ReadOnlyError],  # not retried either: it closes the connection to a former primary
        },
        RATELIMIT_KEY_PREFIX="open-event",
        RATELIMIT_IN_MEMORY_FALLBACK_ENABLED=True,
    )
    limiter.init_app(app)


def count(action: str, account: str | None = None, *, per_address: str = PER_ADDRESS) -> None:
    """Count one try of this action for the caller's address and for the account, where one is named; maybe 429.

    `account` is in its normal form: an address by its `email_key`.
    """
    g.throttled_action, g.throttled_per_address = action, per_address
    g.throttled_account = account and sha256(account.encode()).hexdigest()
    try:
        _count_with_fallback()
    except RateLimitExceeded:
        raise TooManyRequests("Too many tries. Wait a little.", headers={"Retry-After": str(g.retry_after)}) from None


def _count_with_fallback() -> None:
    """Count; where Redis has failed for several requests at once, count again in memory.

    The extension falls back for the request that notices first, and raises for the others.
    """
    try:
        _counted()
    except RedisError:
        _counted()


@limiter.request_filter
def _is_not_counted() -> bool:
    # The extension looks at every request, and while Redis is away asks whether it is back: for counted ones only.
    return "throttled_action" not in g or not current_app.config["RATELIMIT_ENABLED"]


def _note_wait(limit: RequestLimit) -> None:
    # Asked here, where a Redis that fails meanwhile is provided for.
    g.retry_after = max(1, ceil(limit.window.reset_time - time.time()))


def _action(_endpoint: str) -> str:
    return str(g.throttled_action)


@limiter.shared_limit(lambda: str(g.throttled_per_address), scope=_action, on_breach=_note_wait)
@limiter.shared_limit(
    PER_ACCOUNT,
    scope=_action,
    key_func=lambda: str(g.throttled_account),
    exempt_when=lambda: g.throttled_account is None,
    on_breach=_note_wait,
)
def _counted() -> None:
    """Nothing: the decorators count."""
