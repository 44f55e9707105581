"""All settings with their names, defaults and descriptions; `read_config` reads them, nothing happens at import."""

import base64
import binascii
import contextlib
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent

ENVIRONMENTS = ("development", "testing", "production")

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")

_KEY_ADVICE = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"


class ConfigError(Exception):
    """A setting is missing or invalid; the message is one line without secrets."""


@dataclass(frozen=True)
class JwtKey:
    """Signing key: `kid` identifies it in token headers, `secret` has at least 32 bytes (RFC 7518, section 3.2)."""

    kid: str
    secret: bytes


@dataclass(frozen=True)
class Setting:
    """Environment variable of the server, with the function that parses its value or raises ValueError."""

    name: str
    default: str
    meaning: str
    parse: Callable[[str], Any] = str
    required_in_production: bool = False


def _parse_flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("must be 1 or 0")


def _integer_parser(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _choice_parser(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError("must be one of " + ", ".join(words))
        return text

    return parse


def _url_parser(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        try:
            parts = urlsplit(text)
            _ = parts.hostname, parts.port  # parsed here; raises ValueError if invalid
        except ValueError:
            raise ValueError("is not a URL; user and password must be percent-encoded") from None
        if text and parts.scheme not in schemes:
            raise ValueError("must be a URL beginning with " + " or ".join(f"{scheme}:" for scheme in schemes))
        return text

    return parse


def _parse_database_url(text: str) -> str:
    """Return the PostgreSQL URL for the psycopg 3 dialect of SQLAlchemy."""
    _url_parser("postgresql", "postgres", "postgresql+psycopg")(text)
    _scheme, separator, rest = text.partition("://")
    if text and not separator:
        raise ValueError("must look like postgresql://user:password@host/database")
    return f"postgresql+psycopg://{rest}" if text else text


def _parse_base_url(text: str) -> str:
    parts = urlsplit(_url_parser("http", "https")(text))
    if text and (not parts.netloc or parts.query or parts.fragment):
        raise ValueError("must be an http or https URL with a host")
    return text.rstrip("/")


def _parse_processor_url(text: str) -> str:
    if urlsplit(_parse_base_url(text)).username is not None:
        raise ValueError("must not contain a user name or password")
    return _parse_base_url(text)


def _parse_servers(text: str) -> tuple[str, ...]:
    servers = _split_words(text)
    for server in servers:
        if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?", server):
            raise ValueError("must be comma-separated servers such as https://www.overviewdocs.com")
    return servers


def _parse_mail_url(text: str) -> str:
    if text != "file" and not urlsplit(_url_parser("smtp", "smtps")(text)).hostname:
        raise ValueError("must be file or smtp://[user:password@]host:port")
    return text


def _parse_storage_url(text: str) -> str:
    parts = urlsplit(_url_parser("file", "s3")(text))
    if (parts.scheme == "s3" and not parts.netloc) or (parts.scheme == "file" and (parts.netloc or not parts.path)):
        raise ValueError("must be file:///directory or s3://bucket")
    return text


def _parse_internal_path(text: str) -> str:
    if text and not re.fullmatch(r"(/[A-Za-z0-9_-]+)+/?", text):
        raise ValueError("must be a path such as /stored-files")
    return text.rstrip("/")


def _parse_host_and_port(text: str) -> tuple[str, int] | None:
    """Return host and port from host:port, or [host]:port for IPv6; None if the text is empty."""
    if not text:
        return None
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})", text)
    if not match or not 1 <= int(match[3]) <= 65535:
        raise ValueError("must be host:port such as 127.0.0.1:5001")
    return match[1] or match[2], int(match[3])


def _parse_dsn(text: str) -> str:
    parts = urlsplit(_url_parser("http", "https")(text))
    if text and not (parts.username and parts.hostname and parts.path.strip("/")):
        raise ValueError("must look like https://key@host/project")
    return text


def _parse_email_address(text: str) -> str:
    if not re.fullmatch(r"[^\s@<>]+@[^\s@<>]+", text):
        raise ValueError("must be an e-mail address")
    return text


def _parse_contact(text: str) -> str:
    if text and not re.fullmatch(r"mailto:[!-~]+@[!-~]+|https://[A-Za-z0-9][!-~]*", text):
        raise ValueError("must be a mailto: or https: URI such as mailto:security@example.com")
    return text


def _parse_directory(text: str) -> Path | None:
    if not text:
        return None
    path = ROOT / Path(text).expanduser()
    if not path.is_dir():
        raise ValueError("must be an existing directory")
    return path


def _parse_file_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise ValueError("must be a file name of letters, digits, dots, dashes and underscores")
    return text


def _parse_user_name(text: str) -> str:
    if text and not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", text):
        raise ValueError("must be the name of a user of this system")
    return text


def _split_words(text: str) -> tuple[str, ...]:
    return tuple(word.strip().rstrip("/") for word in text.split(",") if word.strip())


def _parse_origins(text: str) -> tuple[str, ...]:
    """Return the origins, also of apps such as capacitor://localhost; reject `null`, which any page can send."""
    origins = _split_words(text)
    for origin in origins:
        if not re.fullmatch(r"\*|[A-Za-z][A-Za-z0-9+.-]*://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", origin):
            raise ValueError("must be * or comma-separated origins such as https://app.example.org, without a path")
    if "*" in origins and len(origins) > 1:
        raise ValueError("must be * alone or origins alone")
    return origins


def _parse_networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(word.strip()) for word in text.split(",") if word.strip())
    except ValueError:
        raise ValueError("must be comma-separated networks such as 10.0.0.0/8") from None


def _parse_jwt_keys(text: str) -> tuple[JwtKey, ...]:
    keys = []
    for number, entry in enumerate(text.split(","), start=1):
        kid, separator, encoded = entry.strip().partition("=")
        if not separator or not kid:
            raise ValueError("must be kid=base64url-secret[,kid=secret...]")
        # Messages contain the number of the key, not its kid: if the kid is missing, the secret may be in its place.
        try:
            secret = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"has a secret that is not base64url (key {number})") from None
        if len(secret) < 32:
            raise ValueError(f"has a secret that is shorter than 32 bytes (key {number})")
        keys.append(JwtKey(kid, secret))
    if len({key.kid for key in keys}) != len(keys):
        raise ValueError("has a kid twice")
    return tuple(keys)


def _parse_secret(text: str) -> str:
    if text and len(text) < 32:
        raise ValueError("must be at least 32 characters")
    return text


SETTINGS = (
    Setting("APP_ENV", "development", "development, testing or production", _choice_parser(*ENVIRONMENTS)),
    Setting("HOST", "127.0.0.1", "address the web process listens on"),
    Setting("PORT", "5000", "port the web process listens on", _integer_parser(1, 65535)),
    Setting(
        "VAR_DIR", "var", "directory, relative to the checkout, for all written data: database, files, mails, logs"
    ),
    Setting(
        "PUBLIC_URL",
        "",
        "base URL of all links; http://HOST:PORT when empty",
        _parse_base_url,
        required_in_production=True,
    ),
    Setting(
        "HEALTH_ADDRESS",
        "",
        "host:port of a second listener for probes, with the health endpoints only; empty: none",
        _parse_host_and_port,
    ),
    Setting(
        "TRUSTED_PROXIES",
        "0",
        "number of proxies in front whose X-Forwarded-* headers are used",
        _integer_parser(0, 10),
    ),
    Setting(
        "CORS_ORIGINS",
        "",
        "comma-separated origins of web pages that may call the API, or *; empty: none",
        _parse_origins,
    ),
    Setting(
        "DATABASE_URL",
        "",
        "postgresql://...; empty: the embedded PostgreSQL",
        _parse_database_url,
        required_in_production=True,
    ),
    Setting(
        "REDIS_URL",
        "",
        "redis://... ; empty: the embedded Redis",
        _url_parser("redis", "rediss", "unix", "redis+socket"),
        required_in_production=True,
    ),
    Setting(
        "SECRET_KEY",
        "",
        "at least 32 characters; generated into VAR_DIR when empty",
        _parse_secret,
        required_in_production=True,
    ),
    Setting(
        "JWT_KEYS",
        "",
        "kid=base64url-secret[,kid=secret...]: the first signs, all verify; generated into VAR_DIR when empty",
        lambda text: _parse_jwt_keys(text) if text else (),
        required_in_production=True,
    ),
    Setting(
        "STORAGE_URL",
        "",
        "file:///directory or s3://bucket with the usual AWS_* variables; VAR_DIR/files when empty",
        _parse_storage_url,
    ),
    Setting(
        "X_ACCEL_REDIRECT",
        "",
        "path of the internal location of nginx that serves the files of STORAGE_URL; empty: this server sends them",
        _parse_internal_path,
    ),
    Setting(
        "MAIL_URL",
        "file",
        "file (one .eml a mail in VAR_DIR/mail) or smtp://[user:password@]host:port",
        _parse_mail_url,
        required_in_production=True,
    ),
    Setting("MAIL_FROM", "no-reply@localhost", "sender address of every mail", _parse_email_address),
    Setting("RATELIMIT_ENABLED", "1", "0: no rate limits for log-in attempts, /overview and so on", _parse_flag),
    Setting(
        "OUTBOUND_ALLOW",
        "",
        "comma-separated networks that outbound requests may reach, besides public addresses",
        _parse_networks,
    ),
    Setting(
        "HEALTH_GRACE_SECONDS",
        "30",
        "seconds that Redis, workers or relay may fail before /health-check is 503",
        _integer_parser(0, 3600),
    ),
    Setting("HEALTH_HOSTNAME", "open-event", "`hostname` in the public responses of /health-check and /readyz"),
    Setting("WORKER_CONCURRENCY", "2", "jobs that a worker runs at the same time", _integer_parser(1, 64)),
    Setting(
        "MAX_RUNNING_JOBS_PER_OWNER",
        "0",
        "jobs of one owner that run at the same time; 0: one less than WORKER_CONCURRENCY, at least 1",
        _integer_parser(0, 1000),
    ),
    Setting("MAX_QUEUED_JOBS_PER_OWNER", "1000", "maximum of queued jobs of one owner", _integer_parser(1, 1_000_000)),
    Setting("MAX_QUEUED_JOBS_PER_HOOK", "100", "maximum of queued jobs of one hook", _integer_parser(1, 1_000_000)),
    Setting("MAX_HOOK_CALLS_PER_MINUTE", "60", "maximum of calls of one hook a minute", _integer_parser(1, 100_000)),
    Setting("WEB_WORKERS", "1", "web processes", _integer_parser(1, 64)),
    Setting("DATABASE_POOL", "10", "maximum of database connections of a process", _integer_parser(2, 200)),
    Setting(
        "JOB_LEASE_SECONDS",
        "60",
        "seconds without a heartbeat after which a job is given to another worker",
        _integer_parser(1, 3600),
    ),
    Setting("MAX_UPLOAD_MB", "20", "maximum MiB of an uploaded image; other request bodies: 1", _integer_parser(1, 20)),
    Setting(
        "MAX_UPLOAD_MB_PER_DAY",
        "500",
        "maximum MiB of images that one user, or one address without log-in, may upload a day",
        _integer_parser(1, 1_000_000),
    ),
    Setting(
        "MAX_JOB_OUTPUT_MB_PER_DAY",
        "1000",
        "maximum MiB of files that the jobs of one user may create a day; further jobs fail",
        _integer_parser(1, 1_000_000),
    ),
    Setting(
        "MAX_WRITE_MB_PER_DAY",
        "200",
        "maximum MiB that one user may write a day besides images, one address ten times as much; 0: no limit",
        _integer_parser(0, 1_000_000),
    ),
    Setting(
        "MAX_STORAGE_MB",
        "0",
        "maximum MiB of all stored files together; 0: no limit",
        _integer_parser(0, 10**9),
    ),
    Setting(
        "MIN_FREE_DISK_MB",
        "512",
        "minimum MiB of free space on the disks of STORAGE_URL and the embedded PostgreSQL for writing; 0: no limit",
        _integer_parser(0, 10**9),
    ),
    Setting(
        "JOB_PROGRAMS_DIR",
        "",
        "directory, relative to the checkout, of programs that run as jobs of the kinds program:NAME; empty: none",
        _parse_directory,
    ),
    Setting(
        "PROGRAM_USER",
        "",
        "user that programs run as if the worker is root; empty: the user of the worker",
        _parse_user_name,
    ),
    Setting("OVERVIEW_PROGRAM", "process-docset", "program that creates the result of /overview", _parse_file_name),
    Setting(
        "OVERVIEW_SERVERS",
        "",
        "comma-separated servers that requests to /overview may name; empty: any, in development only",
        _parse_servers,
    ),
    Setting(
        "PROCESSOR_URL", "", "base URL of the processor that executes treatments; empty: none", _parse_processor_url
    ),
    Setting(
        "PROCESSOR_MAX_RUNS",
        "40",
        "maximum of runs at the processor at once, a quarter for one owner; further treatments are queued",
        _integer_parser(1, 100_000),
    ),
    Setting(
        "PROCESSOR_POLL_SECONDS",
        "60",
        "seconds without a callback after which the status of a run is requested",
        _integer_parser(1, 3600),
    ),
    Setting(
        "PROCESSOR_CANCEL_GRACE_SECONDS",
        "30",
        "seconds that the processor has to confirm a cancel request",
        _integer_parser(1, 3600),
    ),
    Setting("PROCESSOR_REQUIRE_SIGNATURE", "0", "1: callbacks of the processor must be signed", _parse_flag),
    Setting("RESIZE_PUBLIC", "0", "1: the resize API needs no log-in, only rate limits apply", _parse_flag),
    Setting(
        "RETENTION_DAYS", "30", "days that ended jobs, sessions and outbox entries are kept", _integer_parser(1, 3650)
    ),
    Setting(
        "TRASH_RETENTION_DAYS",
        "30",
        "days that deleted rows can be restored, before they are removed; 0: for ever",
        _integer_parser(0, 3650),
    ),
    Setting("REQUIRE_VERIFIED_EMAIL", "0", "1: only users with a verified address may create events", _parse_flag),
    Setting(
        "HSTS_SECONDS",
        "31536000",
        "max-age of Strict-Transport-Security if PUBLIC_URL is https; 0: browsers stop enforcing https",
        _integer_parser(0, 63072000),
    ),
    Setting(
        "SECURITY_CONTACT",
        "",
        "mailto: or https: URI for reports of vulnerabilities, shown in /.well-known/security.txt; empty: no file",
        _parse_contact,
    ),
    Setting(
        "SOURCE_URL",
        "",
        "http or https URL of the source code of this server, linked on its home page; empty: no link",
        _url_parser("http", "https"),
    ),
    Setting("SENTRY_DSN", "", "Sentry DSN to which errors are reported; empty: none", _parse_dsn),
    Setting("LOG_FORMAT", "text", "text or json", _choice_parser("text", "json")),
    Setting(
        "LOG_LEVEL",
        "info",
        "debug, info, warning or error; health checks that pass are logged at debug, other requests at info",
        _choice_parser("debug", "info", "warning", "error"),
    ),
    Setting("DEMO", "1", "0: `run` puts no sample data into an empty development database", _parse_flag),
)


def read_config(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the parsed settings, with generated values for empty ones; raise ConfigError if one is invalid."""
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        try:
            values[setting.name] = setting.parse(environ.get(setting.name, "").strip() or setting.default)
        except ValueError as error:
            raise ConfigError(f"{setting.name} {error}") from None
    if values["X_ACCEL_REDIRECT"] and values["STORAGE_URL"].startswith("s3:"):
        raise ConfigError("X_ACCEL_REDIRECT needs a file: URL in STORAGE_URL, from which nginx reads the files")
    if values["APP_ENV"] == "production":
        required = [setting.name for setting in SETTINGS if setting.required_in_production]
        missing = [name for name in required if not environ.get(name, "").strip()]
        if missing:
            raise ConfigError("production needs " + ", ".join(missing))
        _reject_insecure_settings(values)
    return _with_generated_defaults(values)


def _reject_insecure_settings(values: Mapping[str, Any]) -> None:
    """Raise ConfigError for a setting that disables a protection in production."""
    if _is_guessable(values["SECRET_KEY"].encode()):
        raise ConfigError(f"SECRET_KEY repeats itself, so it can be guessed; {_KEY_ADVICE}")
    for number, key in enumerate(values["JWT_KEYS"], start=1):
        if _is_guessable(key.secret):
            raise ConfigError(f"JWT_KEYS has a secret that repeats itself (key {number}); {_KEY_ADVICE}")
    if any(network.prefixlen == 0 for network in values["OUTBOUND_ALLOW"]):
        raise ConfigError("OUTBOUND_ALLOW must not contain all addresses (prefix length 0) in production")


def _is_guessable(secret: bytes) -> bool:
    """Return whether the first bytes repeat pairs of bytes, unlike random keys: `aaaa...`, `changemechangeme...`."""
    start = secret[:64]
    pairs = {start[i : i + 2] for i in range(len(start) - 1)}
    return len(pairs) < len(start) / 2


def list_warnings(values: Mapping[str, Any]) -> list[str]:
    """Return one line for each setting that is allowed in production but does not protect clients."""
    if values["APP_ENV"] != "production":
        return []
    warnings = []
    public = urlsplit(values["PUBLIC_URL"])
    if public.scheme == "http" and public.hostname not in LOOPBACK_HOSTS:
        warnings.append("PUBLIC_URL is not https: passwords and tokens cross the network unencrypted")
    if not values["RATELIMIT_ENABLED"]:
        warnings.append("RATELIMIT_ENABLED is 0: passwords can be guessed without limit")
    return warnings


def _with_generated_defaults(values: dict[str, Any]) -> dict[str, Any]:
    var_dir = ROOT / values["VAR_DIR"]
    values["VAR_DIR"] = var_dir
    host = f"[{values['HOST']}]" if ":" in values["HOST"] else values["HOST"]
    values["PUBLIC_URL"] = values["PUBLIC_URL"] or f"http://{host}:{values['PORT']}"
    values["STORAGE_URL"] = values["STORAGE_URL"] or (var_dir / "files").as_uri()
    try:
        values["SECRET_KEY"] = values["SECRET_KEY"] or _read_or_create_secret(var_dir / "secret-key")
        values["JWT_KEYS"] = values["JWT_KEYS"] or _parse_jwt_keys(f"dev={_read_or_create_secret(var_dir / 'jwt-key')}")
    except ValueError:
        raise ConfigError(f"VAR_DIR {var_dir} contains a damaged secret-key or jwt-key; remove both") from None
    except OSError as error:
        raise ConfigError(f"VAR_DIR {var_dir} cannot be used: {error.strerror}") from None
    return values


def _read_or_create_secret(path: Path) -> str:
    """Return the secret in this file, created at first use; processes that start at the same time get the same one."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        draft.touch(mode=0o600)
        try:
            draft.write_text(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("="))
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(draft)
        finally:  # on a full disk the draft is empty
            draft.unlink()
    secret = path.read_text().strip()
    if len(secret) < 32:
        raise ValueError(f"{path} is damaged")
    return secret
