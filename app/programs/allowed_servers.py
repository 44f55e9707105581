"""The servers that the program of /overview may be sent to, by whatever way it is started."""

from flask import current_app


def get_allowed_servers() -> tuple[str, ...] | None:
    """Those of OVERVIEW_SERVERS; None for any, where none is listed and this is not production."""
    listed: tuple[str, ...] = current_app.config["OVERVIEW_SERVERS"]
    return listed if listed or current_app.config["APP_ENV"] == "production" else None


def is_server_allowed(server: str) -> bool:
    """Whether it is one of them; a slash at its end changes nothing."""
    listed = get_allowed_servers()
    return listed is None or server.rstrip("/") in listed
