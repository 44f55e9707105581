"""Login of new sample data, stored in VAR_DIR until `manage.py run` has printed it."""

from pathlib import Path


def save_login(var_dir: Path, email: str, password: str) -> None:
    """Write the login to a file that only its owner can read."""
    file = _get_login_file(var_dir)
    file.touch(mode=0o600)
    file.write_text(f"{email} with the password {password}\n")


def take_login(var_dir: Path) -> str | None:
    """Return the stored login and delete its file; None if there is none."""
    try:
        login = _get_login_file(var_dir).read_text().strip()
        _get_login_file(var_dir).unlink()
    except FileNotFoundError:
        return None
    return login


def _get_login_file(var_dir: Path) -> Path:
    return var_dir / "demo-login"
