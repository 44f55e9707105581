"""Servers that the program of /overview may call, whether a request, a job or a hook starts it."""

from flask import current_app


def get_allowed_servers() -> tuple[str, ...] | None:
    """Return OVERVIEW_SERVERS; None, which allows any server, if it is empty and APP_ENV is not production."""
    servers: tuple[str, ...] = current_app.config["OVERVIEW_SERVERS"]
    return servers if servers or current_app.config["APP_ENV"] == "production" else None


def is_server_allowed(server: str) -> bool:
    """Return whether the server is allowed; trailing slashes are ignored."""
    servers = get_allowed_servers()
    return servers is None or server.rstrip("/") in servers
