"""Rate limits by client address and by account, counted in Redis, or in memory while Redis is down.

An account is counted together with the client address, so that attempts from other addresses do not lock out its
owner. A higher limit counts it over all addresses, except for known devices.
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
"""Attempts for one account from one address, or from one known device."""

GLOBAL_ACCOUNT_LIMIT = "30/minute;300/hour"
"""Attempts for one account from all addresses together; all known devices together have the same limit in addition."""

MAIL_ORDER_LIMIT = "500/day"
"""Actions of one address that send mails to mailboxes of others.

They are sign-ups, changes of e-mail addresses, and orders of mails by devices that the account does not know.
"""

NETWORK_FACTOR = 4
"""Limit of an IPv6 /48, relative to that of a client address: one client may own a whole /48."""

FORWARDING_HEADERS = frozenset({"HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED"})
"""Their keys in a WSGI environment."""

REDIS_TIMEOUT_SECONDS = 0.1
"""Time limit for a response of Redis; then this process counts in memory."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Hit:
    """One attempt to be counted: its limit, action and key."""

    limit: str
    scope: str
    key: str
    cost: int


def init_app(app: Flask) -> None:
    """Initialize the limiter; only the functions of this module count against limits."""
    app.config.update(
        RATELIMIT_STORAGE_URI=limits_url(app.config["REDIS_URL"]),
        RATELIMIT_STORAGE_OPTIONS={
            "socket_timeout": REDIS_TIMEOUT_SECONDS,
            "socket_connect_timeout": REDIS_TIMEOUT_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [ReadOnlyError],  # not retried either, but closes the connection to a former primary
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
    """Count an attempt for the caller's address and for the account, if there is one; raise 429 above a limit."""
    count_address(action, per_address)
    if account is not None:
        count_account(action, account, per_account=per_account, anywhere=anywhere)


def count_address(action: str, per_address: str = ADDRESS_LIMIT, *, cost: int = 1) -> None:
    """Count an attempt for the caller's address; raise 429 above the limit. A cost of 0 only checks the limit.

    It does not need the body: views call it before they read one.
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
    """Count an attempt for an account, at the caller's address and over all addresses; raise 429 above a limit.

    `account` is normalized: an e-mail address as its `email_key`. `device` is the id of a known device, which is
    counted instead of the address; the global limit of known devices is separate, so that unknown ones cannot lock them
    out. `is_known_address` is called when the global limit is exceeded; a known address is still accepted.
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
    """Count a call for a subject over all addresses; raise 429 above the limit."""
    _count_hit(
        _Hit(limit, action, subject, 1), f"At most {limit.replace('/', ' calls a ')} are accepted. Try again later."
    )


def is_exceeded(action: str, subject: str, limit: str) -> bool:
    """Count an occurrence for a subject, and return whether the limit is exceeded."""
    try:
        _count_hit(_Hit(limit, action, subject, 1))
    except TooManyRequests:
        return True
    return False


def client_bucket() -> str:
    """Return the key by which the caller's address is counted: an IPv4 address, or the /64 network of an IPv6 one."""
    return address_holder(_client_address())


def _client_address() -> str:
    return request.remote_addr or "unknown"  # a Unix socket has none


def _multiply_limit(limit: str, factor: int) -> str:
    """Return the limit with its amount multiplied by `factor`."""
    amount, _, window = limit.partition("/")
    return f"{int(amount) * factor}/{window}"


def _count_hit(hit: _Hit, detail: str = "Too many attempts. Try again later.") -> None:
    g.throttle_hit = hit
    try:
        _count_with_fallback()
    except RateLimitExceeded:
        log.warning("rate limit exceeded", action=hit.scope, limit=hit.limit, **describe_request())
        raise TooManyRequests(detail, headers={"Retry-After": str(g.retry_after)}) from None
    finally:
        del g.throttle_hit


def _count_with_fallback() -> None:
    """Count; if Redis fails, count in memory.

    If several requests fail at the same time, Flask-Limiter falls back for the first and raises for the others.
    """
    try:
        _apply_limit()
    except RedisError:
        _apply_limit()


@limiter.request_filter
def _is_exempt() -> bool:
    # Flask-Limiter checks every request, and while Redis is down also if it is up again: only needed for counted ones.
    return "throttle_hit" not in g or not current_app.config["RATELIMIT_ENABLED"]


def _store_retry_after(limit: RequestLimit) -> None:
    # Read here, where Flask-Limiter handles a failure of Redis.
    g.retry_after = max(1, ceil(limit.window.reset_time - time.time()))


@limiter.shared_limit(
    lambda: str(g.throttle_hit.limit),
    scope=lambda _endpoint: str(g.throttle_hit.scope),
    key_func=lambda: str(g.throttle_hit.key),
    cost=lambda: int(g.throttle_hit.cost),
    on_breach=_store_retry_after,
)
def _apply_limit() -> None:
    """Do nothing: the decorator counts."""


def _warn_of_untrusted_proxy() -> None:
    """Log once that all clients behind a proxy are counted as one client."""
    if FORWARDING_HEADERS.isdisjoint(request.environ) or "untrusted_proxy" in current_app.extensions:
        return
    current_app.extensions["untrusted_proxy"] = True
    log.warning(
        "forwarding headers ignored because TRUSTED_PROXIES is 0: behind a proxy all clients count as one address",
        address=request.remote_addr,
    )
