"""Rate limits by client address and by account: counted in Redis, in memory while Redis is away.

An account is counted together with the place it is tried from, so that tries from elsewhere do not lock its owner out;
a higher limit counts it over all places, except for a device that is known.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from math import ceil

import structlog
from flask import Flask, current_app, g, request
from flask_limiter import RateLimitExceeded, RequestLimit
from redis import ReadOnlyError, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.errors import TooManyRequests
from app.extensions import limiter
from app.logs import describe_request
from app.redis_client import limits_url
from app.slots import address_holder, address_holders

ADDRESS_LIMIT = "20/minute"
ACCOUNT_LIMIT = "5/minute"
"""Tries of one account from one address, or by one known device."""

GLOBAL_ACCOUNT_LIMIT = "30/minute;300/hour"
"""Tries of one account from all addresses together; known devices together have as many besides."""

MAIL_ORDER_LIMIT = "500/day"
"""Actions of one address that send mails to mailboxes of others.

They are sign-ups, changes of e-mail addresses, and orders of mails by devices that the account does not know.
"""

NETWORK_FACTOR = 4
"""How many times the limit of one client address a network (/48) of IPv6 has, which one client may own as well."""

FORWARDING_HEADERS = frozenset({"HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED"})
"""As they stand in a WSGI environment."""

REDIS_TIMEOUT_SECONDS = 0.1
"""Seconds Redis has for an answer before this process counts on its own."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Hit:
    """One count: for which limit, and under which key."""

    limit: str
    scope: str
    key: str
    cost: int


def init_app(app: Flask) -> None:
    """Bind the limiter; there are no limits but those that `count` names."""
    app.config.update(
        RATELIMIT_STORAGE_URI=limits_url(app.config["REDIS_URL"]),
        RATELIMIT_STORAGE_OPTIONS={
            "socket_timeout": REDIS_TIMEOUT_SECONDS,
            "socket_connect_timeout": REDIS_TIMEOUT_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [ReadOnlyError],  # not retried either: it closes the connection to a former primary
        },
        RATELIMIT_KEY_PREFIX="open-event",
        RATELIMIT_IN_MEMORY_FALLBACK_ENABLED=True,
    )
    limiter.init_app(app)
    if not app.config["TRUSTED_PROXIES"]:
        app.before_request(_warn_of_untrusted_proxy)


def check_rate_limit(
    action: str,
    account: str | None = None,
    *,
    per_address: str = ADDRESS_LIMIT,
    per_account: str = ACCOUNT_LIMIT,
    anywhere: str = GLOBAL_ACCOUNT_LIMIT,
) -> None:
    """Count one try of this action for the caller's address and, where one is named, for the account; maybe 429."""
    count_address(action, per_address)
    if account is not None:
        count_account(action, account, per_account=per_account, anywhere=anywhere)


def count_address(action: str, per_address: str = ADDRESS_LIMIT, *, cost: int = 1) -> None:
    """Count one try of this action for the caller's address; with a cost of 0 only raise 429 if the limit was exceeded.

    It needs no body: views call it before they read one.
    """
    bucket, *networks = address_holders(_client_address())
    _count_hit(_Hit(per_address, action, bucket, cost))
    for network in networks:
        _count_hit(_Hit(_multiply_limit(per_address, NETWORK_FACTOR), action, network, cost))


def count_mail_order() -> None:
    """Count one action that may send a mail to a mailbox of another person for the caller's address; maybe 429."""
    count_address("mail-order", MAIL_ORDER_LIMIT)


def count_account(
    action: str,
    account: str,
    *,
    per_account: str = ACCOUNT_LIMIT,
    anywhere: str = GLOBAL_ACCOUNT_LIMIT,
    device: str | None = None,
    is_known_address: Callable[[], bool] = lambda: False,
) -> None:
    """Count one try of an account at the caller's address and over all addresses; maybe 429.

    `account` is in its normal form: an address by its `email_key`. `device` names a known device, which is counted
    instead of the address; its tries are counted together with those of other known devices alone, which unknown ones
    do not lock out. `is_known_address` is asked once too many tries came from all addresses together.
    """
    digest = sha256(account.encode()).hexdigest()
    _count_hit(_Hit(per_account, action, f"{digest}@{device or client_bucket()}", 1))
    if device is not None:
        _count_hit(_Hit(anywhere, action, f"{digest}@known-devices", 1))
        return
    try:
        _count_hit(_Hit(anywhere, action, digest, 1))
    except TooManyRequests:
        if not is_known_address():
            raise


def count_subject(action: str, subject: str, limit: str) -> None:
    """Count one call of this action for a subject, whichever address it comes from; 429 above the limit."""
    _count_hit(
        _Hit(limit, action, subject, 1), f"At most {limit.replace('/', ' calls a ')} are accepted here. Wait a little."
    )


def is_exceeded(action: str, subject: str, limit: str) -> bool:
    """Count one occurrence of this action for a subject, and return whether they are more than the limit now."""
    try:
        _count_hit(_Hit(limit, action, subject, 1))
    except TooManyRequests:
        return True
    return False


def client_bucket() -> str:
    """Return what the caller's address is counted as: an IPv4 address, or the network (/64) of an IPv6 address."""
    return address_holder(_client_address())


def _client_address() -> str:
    return request.remote_addr or "unknown"  # a Unix socket has none


def _multiply_limit(limit: str, factor: int) -> str:
    """Return a limit of this factor times as many in the same time."""
    amount, _, window = limit.partition("/")
    return f"{int(amount) * factor}/{window}"


def _count_hit(hit: _Hit, detail: str = "Too many tries. Wait a little.") -> None:
    g.throttle_hit = hit
    try:
        _count_with_fallback()
    except RateLimitExceeded:
        log.warning("rate limit exceeded", action=hit.scope, limit=hit.limit, **describe_request())
        raise TooManyRequests(detail, headers={"Retry-After": str(g.retry_after)}) from None
    finally:
        del g.throttle_hit


def _count_with_fallback() -> None:
    """Count; where Redis has failed for several requests at once, count again in memory.

    The extension falls back for the request that notices first, and raises for the others.
    """
    try:
        _apply_limit()
    except RedisError:
        _apply_limit()


@limiter.request_filter
def _is_exempt() -> bool:
    # The extension looks at every request, and while Redis is away asks whether it is back: for counted ones only.
    return "throttle_hit" not in g or not current_app.config["RATELIMIT_ENABLED"]


def _store_retry_after(limit: RequestLimit) -> None:
    # Asked here, where a Redis that fails meanwhile is provided for.
    g.retry_after = max(1, ceil(limit.window.reset_time - time.time()))


@limiter.shared_limit(
    lambda: str(g.throttle_hit.limit),
    scope=lambda _endpoint: str(g.throttle_hit.scope),
    key_func=lambda: str(g.throttle_hit.key),
    cost=lambda: int(g.throttle_hit.cost),
    on_breach=_store_retry_after,
)
def _apply_limit() -> None:
    """Nothing: the decorator counts."""


def _warn_of_untrusted_proxy() -> None:
    """Warn once that all clients behind a proxy are counted as one client."""
    if FORWARDING_HEADERS.isdisjoint(request.environ) or "untrusted_proxy" in current_app.extensions:
        return
    current_app.extensions["untrusted_proxy"] = True
    log.warning(
        "requests have forwarding headers but TRUSTED_PROXIES is 0: behind a proxy all clients count as one address",
        address=request.remote_addr,
    )
