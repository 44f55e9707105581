"""Settings: defaults, invalid values, requirements of production, and their documentation."""

import base64
import re
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

import config
from config import ConfigError

ROOT = Path(__file__).resolve().parent.parent
RANDOM_KEY = "4yPHVCkQx7n5tWJ2mEoYb0sLzG9dKfRhXq1uNwIaT8c"
PRODUCTION = {
    "APP_ENV": "production",
    "DATABASE_URL": "postgresql://db.example.com/events",
    "REDIS_URL": "redis://redis.example.com",
    "SECRET_KEY": "hB3nq0VxT5mJrW8dZs1yKcUo7eLpFgQa",
    "JWT_KEYS": f"a={RANDOM_KEY}",
    "PUBLIC_URL": "https://api.example.com/",
    "MAIL_URL": "smtp://mail.example.com",
}


def load_config(tmp_path: Path, **settings: str) -> dict[str, object]:
    return config.read_config({"VAR_DIR": str(tmp_path / "var"), **settings})


def test_defaults_are_development_configuration(tmp_path: Path) -> None:
    settings = load_config(tmp_path)

    assert settings["APP_ENV"] == "development"
    assert settings["PUBLIC_URL"] == "http://127.0.0.1:5000"
    assert settings["STORAGE_URL"] == (tmp_path / "var" / "files").as_uri()


def test_generated_secrets_stay_the_same_and_are_private(tmp_path: Path) -> None:
    first, second = load_config(tmp_path), load_config(tmp_path)

    assert first["SECRET_KEY"] == second["SECRET_KEY"]
    assert first["JWT_KEYS"] == second["JWT_KEYS"]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "var").iterdir()} == {0o600}


def test_production_keeps_what_it_is_given(tmp_path: Path) -> None:
    settings = load_config(tmp_path, **PRODUCTION)

    assert settings["PUBLIC_URL"] == "https://api.example.com"
    assert settings["DATABASE_URL"] == "postgresql+psycopg://db.example.com/events"
    assert not (tmp_path / "var").exists()


def test_production_writes_mails_into_files_where_it_is_told_to(tmp_path: Path) -> None:
    assert load_config(tmp_path, **{**PRODUCTION, "MAIL_URL": "file"})["MAIL_URL"] == "file"


@pytest.mark.parametrize("name", sorted(set(PRODUCTION) - {"APP_ENV"}))
def test_production_refuses_to_do_without(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"^production needs {name}$"):
        load_config(tmp_path, **{**PRODUCTION, name: ""})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("APP_ENV", "staging"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "\N{ARABIC-INDIC DIGIT FIVE}"),
        ("PUBLIC_URL", "api.example.com"),
        ("PUBLIC_URL", "https://api.example.com/?a=b"),
        ("DATABASE_URL", "mysql://hunter2@localhost/events"),
        ("DATABASE_URL", "postgresql://me:hunter2/x@localhost:port/events"),
        ("REDIS_URL", "hunter2"),
        ("REDIS_URL", "redis://[hunter2"),
        ("SECRET_KEY", "hunter2"),
        ("JWT_KEYS", "hunter2"),
        ("JWT_KEYS", "hunter2="),
        ("JWT_KEYS", "a=hunter2!"),
        ("JWT_KEYS", f"a={RANDOM_KEY},a={RANDOM_KEY}"),
        ("MAIL_URL", "http://hunter2@localhost"),
        ("RATELIMIT_ENABLED", "perhaps"),
        ("DATABASE_POOL", "-1"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_value_nobody_can_work_with_is_one_line_without_the_value(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} [^\n]*$") as refused:
        load_config(tmp_path, **{name: value})

    assert "hunter2" not in str(refused.value)


def test_the_first_jwt_key_signs(tmp_path: Path) -> None:
    keys = load_config(tmp_path, JWT_KEYS=f"new={RANDOM_KEY}, old={RANDOM_KEY}")["JWT_KEYS"]

    assert [key.kid for key in keys] == ["new", "old"]  # type: ignore[attr-defined]  # a tuple of JwtKey


def test_a_var_dir_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")

    with pytest.raises(ConfigError, match=r"^VAR_DIR .* cannot be used: "):
        load_config(tmp_path)


@pytest.mark.parametrize("name", ["secret-key", "jwt-key"])
@pytest.mark.parametrize("content", [b"", b"short", b"\xff"])
def test_a_generated_secret_that_is_damaged_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    load_config(tmp_path)
    (tmp_path / "var" / name).write_bytes(content)

    with pytest.raises(ConfigError, match=r"^VAR_DIR .* contains a damaged secret-key or jwt-key; remove both$"):
        load_config(tmp_path)


def test_the_example_lists_every_setting_with_its_meaning_and_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()

    for setting in config.SETTINGS:
        place = lines.index(f"#{setting.name}={setting.default}")
        assert lines[place - 1].startswith(f"# {setting.meaning}")
    named = [found[1] for line in lines if (found := re.match(r"#([A-Z_]+)=", line))]
    assert named == [setting.name for setting in config.SETTINGS]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql:"),
        ("MAIL_URL", "smtp:"),
        ("MAIL_FROM", "a\nb@example.com"),
        ("STORAGE_URL", "s3:"),
        ("HEALTH_ADDRESS", "5001"),
        ("HEALTH_ADDRESS", "127.0.0.1"),
        ("HEALTH_ADDRESS", "127.0.0.1:0"),
        ("HEALTH_ADDRESS", "127.0.0.1:65536"),
        ("HEALTH_ADDRESS", "::1:5001"),
        ("X_ACCEL_REDIRECT", "stored-files"),
        ("X_ACCEL_REDIRECT", "/"),
        ("X_ACCEL_REDIRECT", "https://a/b"),
        ("STORAGE_URL", "file://relative"),
        ("SENTRY_DSN", "https://x"),
        ("PROCESSOR_URL", "http://u:p@h/"),
        ("PROCESSOR_URL", "processor"),
        ("OVERVIEW_SERVERS", "foo"),
        ("OVERVIEW_SERVERS", "https://a; script-src *"),
        ("JOB_PROGRAMS_DIR", "/nowhere/at/all"),
        ("OVERVIEW_PROGRAM", "../sh"),
        ("CORS_ORIGINS", "app.example.org"),
        ("CORS_ORIGINS", "https://app.example.org/path"),
        ("CORS_ORIGINS", "https://*.example.org"),
        ("CORS_ORIGINS", "https://me@app.example.org"),
        ("CORS_ORIGINS", "https://a.example.org, *"),
        ("CORS_ORIGINS", "null"),
    ],
)
def test_a_url_nobody_can_work_with_is_refused(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(config.ConfigError, match=name):
        config.read_config({"VAR_DIR": str(tmp_path), name: value})


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        ("https://a.example.org/, http://localhost:3000", ("https://a.example.org", "http://localhost:3000")),
        ("http://[::1]:3000,capacitor://localhost", ("http://[::1]:3000", "capacitor://localhost")),
    ],
)
def test_origins_of_web_pages_and_apps_are_read(tmp_path: Path, text: str, origins: tuple[str, ...]) -> None:
    assert config.read_config({"VAR_DIR": str(tmp_path), "CORS_ORIGINS": text})["CORS_ORIGINS"] == origins


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", "x" * 40),
        ("SECRET_KEY", "changeme" * 5),
        ("SECRET_KEY", "1234567890" * 4),
        ("JWT_KEYS", f"good={RANDOM_KEY},zeros={'A' * 43}"),
        ("JWT_KEYS", "words=" + base64.urlsafe_b64encode(b"secret" * 8).decode()),
        ("OUTBOUND_ALLOW", "0.0.0.0/0"),
        ("OUTBOUND_ALLOW", "10.0.0.0/8, ::/0"),
    ],
)
def test_production_refuses_insecure_setting(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} [^\n]*$") as refused:
        load_config(tmp_path, **{**PRODUCTION, name: value})

    assert value not in str(refused.value)
    assert load_config(tmp_path, **{name: value})


@pytest.mark.parametrize(
    "encode",
    [secrets.token_hex, secrets.token_urlsafe, lambda size: "".join(secrets.choice("0123456789") for _ in range(size))],
)
@pytest.mark.parametrize("size", [32, 64])
def test_production_accepts_random_keys(tmp_path: Path, encode: Callable[[int], str], size: int) -> None:
    for _ in range(50):
        load_config(tmp_path, **{**PRODUCTION, "SECRET_KEY": encode(size)})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, []),
        ({"PUBLIC_URL": "http://127.0.0.1:8000"}, []),
        ({"PUBLIC_URL": "http://api.example.com"}, ["PUBLIC_URL"]),
        ({"PUBLIC_URL": "http://api.example.com", "RATELIMIT_ENABLED": "0"}, ["PUBLIC_URL", "RATELIMIT_ENABLED"]),
    ],
)
def test_production_warns_of_setting_without_protection(
    tmp_path: Path, settings: dict[str, str], named: list[str]
) -> None:
    warnings = config.list_warnings(load_config(tmp_path, **{**PRODUCTION, **settings}))

    assert [warning.split()[0] for warning in warnings] == named
    assert config.list_warnings(load_config(tmp_path, **settings)) == []


@pytest.mark.parametrize(
    ("text", "address"), [("127.0.0.1:5001", ("127.0.0.1", 5001)), ("[::1]:5001", ("::1", 5001)), ("", None)]
)
def test_health_address_is_a_host_and_a_port(tmp_path: Path, text: str, address: tuple[str, int] | None) -> None:
    assert config.read_config({"VAR_DIR": str(tmp_path), "HEALTH_ADDRESS": text})["HEALTH_ADDRESS"] == address


def test_files_of_a_bucket_are_not_left_to_the_proxy(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="X_ACCEL_REDIRECT needs a file: URL in STORAGE_URL"):
        config.read_config({"VAR_DIR": str(tmp_path), "STORAGE_URL": "s3://files", "X_ACCEL_REDIRECT": "/stored-files"})
