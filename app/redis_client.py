"""Redis, reached with deadlines; REDIS_URL as each library spells it."""

from redis import ReadOnlyError, Redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def create_client(url: str, *, timeout: float) -> "Redis":
    """A client that gives up after `timeout` seconds, hung server or not, and tries nothing twice."""
    return Redis.from_url(
        client_url(url),
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        # Not retried either, but on a new connection next time: the server became a replica of another.
        retry_on_error=[ReadOnlyError],
        decode_responses=True,
    )


def client_url(url: str) -> str:
    """As redis-py wants it: a socket is unix:///path?db=0."""
    return _rewrite_url(url, "unix", "db")


def broker_url(url: str) -> str:
    """As Celery wants it: a socket is redis+socket:///path?virtual_host=0."""
    return _rewrite_url(url, "redis+socket", "virtual_host")


def limits_url(url: str) -> str:
    """As Flask-Limiter wants it: a socket is redis+unix:///path?db=0."""
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
