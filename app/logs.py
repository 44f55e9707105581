"""Logging: one line on stdout for each event, of libraries too; errors go to Sentry if SENTRY_DSN is set."""

import logging
import os
import re
import sys
import threading
import time
from contextlib import suppress
from typing import Any, TextIO
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4

import orjson
import structlog
from flask import Flask, Response, after_this_request, g, request
from structlog.contextvars import bind_contextvars, clear_contextvars, merge_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

from app.console import LOG_LEVELS, TEXT_TIMESTAMP, is_colored

REQUEST_ID_HEADER = "X-Request-ID"
_REQUEST_ID_RE = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
# After /hooks/, anything but a numeric id (and its subresource) may contain the token of a hook.
_HOOK_TOKEN_RE = re.compile(r"(?i:hooks)(?!(?:/+[0-9]{1,19}(?:/[a-z-]{1,20}){0,2})?/*\Z).+", re.DOTALL)
_SECRET_NAME_RE = re.compile(r"password|passwd|secret|token|authorization|cookie|api_?key", re.IGNORECASE)

MAX_QUOTING_DEPTH = 3
"""Number of times a path is percent-decoded to find a token: clients may encode it more than once by mistake."""

MAX_PATH_LENGTH = 200
"""Logged characters of a path or JSON pointer."""

MAX_METHOD_LENGTH = 20
"""Logged characters of a request method; HTTP sets no limit."""

MAX_TEXT_LENGTH = 4_000
"""Characters of each text in a log line, except tracebacks."""

CHATTY_LOGGERS = ("_granian", "celery.worker.strategy", "alembic.runtime.plugins")
"""Loggers of libraries whose info lines are logged only at debug: one for each process, received task or plugin."""


class _StdoutLogger:
    """Logger that writes to stdout directly: the way through `logging` takes as much time as fetching an event."""

    name = __name__
    min_level = logging.INFO

    def info(self, line: str) -> None:
        """Write a line; ignore a full or closed stdout, since the request may already be committed."""
        with suppress(OSError, ValueError):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

    debug = info


_access_processors: list[Processor] = []
"""Processors of access log lines, the same as of other lines; set by `configure_logging`."""

_access_logger = _StdoutLogger()

log = structlog.get_logger(__name__)

access_log = structlog.wrap_logger(
    _access_logger, _access_processors, wrapper_class=structlog.BoundLogger, cache_logger_on_first_use=True
)


def configure_logging(log_format: str, log_level: str = "info") -> None:
    """Log to stdout, as text or JSON, the events of this process from this level on."""
    level = LOG_LEVELS[log_level]
    shared: list[Processor] = [
        merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso" if log_format == "json" else TEXT_TIMESTAMP, utc=True),
        structlog.processors.StackInfoRenderer(),
        _redact_secrets,
        _truncate_texts,
    ]
    render = _build_renderers(log_format, log_level)
    _access_logger.min_level = level
    _access_processors[:] = [*shared, *render]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            _to_log_record,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = _StdoutHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                *render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if not isinstance(other, _StdoutHandler)] + [handler]
    # At debug, libraries may log private data such as headers: only our loggers, Celery and Granian log at debug.
    root.setLevel(max(level, logging.INFO))
    for name in ("app", "celery"):
        logging.getLogger(name).setLevel(level)
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(level if level != logging.INFO else logging.WARNING)
    logging.captureWarnings(capture=True)


def log_uncaught_exceptions() -> None:
    """Log an exception that ends this process or one of its threads as one event, not as a traceback on stderr."""
    log = structlog.get_logger(__name__)

    def report(kind: type[BaseException], error: BaseException | None, *_: Any) -> None:
        if not issubclass(kind, (KeyboardInterrupt, SystemExit)):
            log.error("uncaught exception", exc_info=error)

    sys.excepthook = report
    threading.excepthook = lambda failed: report(failed.exc_type, failed.exc_value)


class _StdoutHandler(logging.StreamHandler[TextIO]):
    """Handler that writes to the current sys.stdout, not to the one at the time of configuration."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # the class sets an attribute; `logging._StderrHandler` does the same as here
        """Return the current sys.stdout."""
        return sys.stdout


def _build_renderers(log_format: str, log_level: str) -> list[Processor]:
    if log_format == "json":
        return [structlog.processors.JSONRenderer(lambda line, **more: orjson.dumps(line, **more).decode())]
    console = structlog.dev.ConsoleRenderer(
        colors=is_colored(sys.stdout, os.environ),
        pad_event_to=0,
        pad_level=False,
        exception_formatter=structlog.dev.plain_traceback,
    )
    return [console] if log_level == "debug" else [_drop_common_fields, console]


def _drop_common_fields(_logger: WrappedLogger, _name: str, event_dict: EventDict) -> EventDict:
    """Remove the logger, and the level `info`, from text lines, which people read."""
    event_dict.pop("logger", None)
    if event_dict.get("level") == "info":
        del event_dict["level"]
    return event_dict


def _to_log_record(logger: WrappedLogger, name: str, event_dict: EventDict) -> tuple[Any, dict[str, Any]]:
    """Return the arguments for the standard library's logger, with `exc_info` for Sentry."""
    arguments, more = structlog.stdlib.ProcessorFormatter.wrap_for_formatter(logger, name, event_dict)
    return arguments, {**more, "exc_info": event_dict.get("exc_info")}


def _redact_secrets(_logger: WrappedLogger, _name: str, event_dict: EventDict) -> EventDict:
    for key in event_dict:
        if _SECRET_NAME_RE.search(key):
            event_dict[key] = "[hidden]"
    return event_dict


def _truncate_texts(_logger: WrappedLogger, _name: str, event_dict: EventDict) -> EventDict:
    for key, value in event_dict.items():
        if isinstance(value, str):
            event_dict[key] = truncate_text(value, MAX_TEXT_LENGTH)
        elif isinstance(value, dict):  # the source of an error
            event_dict[key] = {name: truncate_text(str(text), MAX_PATH_LENGTH) for name, text in value.items()}
    return event_dict


def truncate_text(text: str, length: int) -> str:
    """Return the text; cut after `length` characters, followed by three dots, if it is longer."""
    return text if len(text) <= length else f"{text[:length]}..."


def log_requests(app: Flask) -> None:
    """Log one line for each request, and add a request id to it, to all other lines and to the response."""
    app.before_request(_begin_request)
    app.after_request(_log_request)


def _begin_request() -> None:
    client_id = request.headers.get(REQUEST_ID_HEADER, "")
    g.request_id = client_id if _REQUEST_ID_RE.fullmatch(client_id) else uuid4().hex
    g.started = time.perf_counter()
    clear_contextvars()
    bind_contextvars(request_id=g.request_id)


def _log_request(response: Response) -> Response:
    response.headers[REQUEST_ID_HEADER] = g.request_id
    is_passed_check = request.blueprint == "health" and response.status_code < 400
    if _access_logger.min_level > (logging.DEBUG if is_passed_check else logging.INFO):
        return response
    milliseconds = round((time.perf_counter() - g.started) * 1000, 1)
    # Without the query string, which may contain search terms; quoted, because it may contain line breaks.
    path = redact_token(quote(truncate_text(request.path, MAX_PATH_LENGTH)))
    write = access_log.debug if is_passed_check else access_log.info
    write(
        "request",
        method=truncate_text(request.method, MAX_METHOD_LENGTH),
        path=path,
        status=response.status_code,
        ms=milliseconds,
    )
    return response


def describe_request() -> dict[str, str | None]:
    """Return the fields `address` and `route` of this request, for log lines about log-ins and permissions."""
    return {
        "address": request.remote_addr,
        "route": f"{truncate_text(request.method, MAX_METHOD_LENGTH)} {request.url_rule}",
    }


def log_success(event: str, **fields: Any) -> None:
    """Log an event at info after this request if its status is below 400: a failed request changes nothing."""

    @after_this_request
    def write(response: Response) -> Response:
        if response.status_code < 400:
            log.info(event, **fields, **describe_request())
        return response


def redact_token(path: str) -> str:
    """Return a quoted path with the token of a hook replaced: anyone can call the hook with it."""
    plain = path
    for _ in range(MAX_QUOTING_DEPTH):
        plain = unquote(plain)
    found = _HOOK_TOKEN_RE.search(plain)
    return f"{quote(plain[: found.start()])}hooks/[hidden]" if found else path


def init_sentry(app: Flask) -> None:
    """Send errors to Sentry if SENTRY_DSN is set, without bodies, local variables and client addresses."""
    if not app.config["SENTRY_DSN"]:
        return
    import sentry_sdk  # noqa: PLC0415  # the import takes a tenth of the start time

    sentry_sdk.init(
        dsn=app.config["SENTRY_DSN"],
        environment=app.config["APP_ENV"],
        send_default_pii=False,
        max_request_body_size="never",
        include_local_variables=False,
        before_send=_scrub_sentry_event,
    )


def _scrub_sentry_event(event: Any, hint: dict[str, Any]) -> Any:
    """Return the event without query string, cookies and tokens, and with the log event as its message.

    Sentry groups events by message, so the fields of a log line must not be part of it.
    """
    request_data = event.get("request", {})
    for part in ("query_string", "cookies", "env"):
        request_data.pop(part, None)
    if "url" in request_data:
        parts = urlsplit(request_data["url"])
        request_data["url"] = parts._replace(path=redact_token(parts.path), query="").geturl()
    record = hint.get("log_record")
    if record is not None and isinstance(record.msg, dict):
        event["logentry"] = {"message": record.msg["event"]}
        event["extra"] = {name: str(value) for name, value in record.msg.items() if name != "exc_info"}
    return event
