"""Redis client with time limits, and REDIS_URL in the form that each library needs."""

from redis import ReadOnlyError, Redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def create_client(url: str, *, timeout: float) -> "Redis":
    """Return a client whose connects and commands fail after `timeout` seconds and are not retried."""
    return Redis.from_url(
        client_url(url),
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        # Not retried either, but it closes the connection: the server has become a replica.
        retry_on_error=[ReadOnlyError],
        decode_responses=True,
    )


def client_url(url: str) -> str:
    """Return the URL for redis-py: a socket is unix:///path?db=0."""
    return _rewrite_url(url, "unix", "db")


def broker_url(url: str) -> str:
    """Return the URL for Celery: a socket is redis+socket:///path?virtual_host=0."""
    return _rewrite_url(url, "redis+socket", "virtual_host")


def limits_url(url: str) -> str:
    """Return the URL for Flask-Limiter: a socket is redis+unix:///path?db=0."""
    return _rewrite_url(url, "redis+unix", "db")


def _rewrite_url(url: str, socket_scheme: str, database_key: str) -> str:
    scheme, _, rest = url.partition("://")
    if scheme not in ("unix", "redis+socket", "redis+unix"):
        return url
    address, question_mark, query = rest.partition("?")
    parts = [part.partition("=") for part in query.split("&")]
    renamed = (
        database_key + sep + value if key in ("db", "virtual_host") else key + sep + value for key, sep, value in parts
    )
    return f"{socket_scheme}://{address}{question_mark}{'&'.join(renamed)}"
