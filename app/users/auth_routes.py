"""Routes of accounts: log-in, refresh, log-out, passwords, verification.

Each view is one transaction, committed at its end. Responses are plain JSON and never cached; errors are JSON:API.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, get_type_hints

from flask import Blueprint, Response, jsonify

from app import throttle
from app.database import open_transaction
from app.errors import BadRequest, Unauthenticated
from app.extensions import db
from app.jsonapi.current_user import ANONYMOUS_USER, CurrentUser, require_current_user
from app.jsonapi.permissions import Predicate, any_user, anyone, describe_predicate
from app.users import accounts, login_sessions
from app.users.auth import load_user_ignoring_expiry
from app.users.login_sessions import TokenPair
from app.users.passwords import MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH, check_length
from app.users.request_body import MAX_FORM_BYTES, Form, read_form

routes = Blueprint("accounts", __name__)

View = Callable[[], Response]

TEXT = {"type": "string"}
NEW_PASSWORD = {"type": "string", "minLength": MIN_PASSWORD_LENGTH, "maxLength": MAX_PASSWORD_LENGTH}
TOKENS = get_type_hints(TokenPair)
MESSAGE = {"message": str}


REFRESH_LIMIT = "300/minute"
"""Refreshes from one client address: high, because many users may share it and tokens cannot be guessed."""

DAILY_REFRESH_LIMIT = "50000/day"
"""The same for a day."""

LOG_OUT_LIMIT = REFRESH_LIMIT
"""Log-outs from one address."""


def _auth_route(
    method: str,
    *paths: str,
    may: Predicate,
    gives: Mapping[str, type],
    takes: Mapping[str, Any] | None = None,
    optional: Mapping[str, Any] | None = None,
    action: str | None = None,
    per_address: str = throttle.ADDRESS_LIMIT,
) -> Callable[[View], View]:
    """Register a view, with and without a trailing slash, and its permission, request and response schemas.

    With an `action`, requests are counted for the client address before the body is read.
    """

    def largest_body() -> int:
        if action is not None:
            throttle.count_address(action, per_address)
        return MAX_FORM_BYTES

    def register(view: View) -> View:
        view.largest_body = largest_body  # type: ignore[attr-defined]  # read by app/request_bodies.py
        view.permission = describe_predicate(may)  # type: ignore[attr-defined]  # read by `manage.py routes`
        view.takes, view.optional, view.gives = takes, optional or {}, gives  # type: ignore[attr-defined]  # read by /openapi.json
        for path in paths:
            routes.add_url_rule(path, view_func=view, methods=[method], strict_slashes=False)
        return view

    return register


@_auth_route(
    "POST",
    "/auth/session",
    "/v1/auth/login",
    may=anyone,
    action=accounts.LOG_IN,
    takes={"email": TEXT, "password": TEXT},
    optional={"refresh_token": TEXT},
    gives=TOKENS,
)
def log_in() -> Response:
    """Log in with an e-mail address (also called username) and a password, and return tokens."""
    form = read_form()
    email, password = form.get_text("email", "username"), form.get_text("password")
    tokens = accounts.log_in(email, password, refresh_token=form.get_optional_text("refresh_token"))
    if tokens is None:
        raise Unauthenticated("Invalid Credentials", code="invalid-credentials")
    db.session.commit()
    return jsonify(asdict(tokens))


@_auth_route(
    "POST",
    "/v1/auth/token/refresh",
    may=anyone,
    action="refresh",
    per_address=REFRESH_LIMIT,
    takes={"refresh_token": TEXT},
    gives=TOKENS,
)
def refresh() -> Response:
    """Exchange a refresh token for a new pair of tokens."""
    throttle.count_address("refresh-day", DAILY_REFRESH_LIMIT)
    tokens = login_sessions.rotate_refresh_token(read_form().get_text("refresh_token"))
    db.session.commit()  # also when refused: reuse of a token has revoked its session
    if tokens is None:
        raise Unauthenticated("The refresh token is not valid: log in again.", code="token-invalid")
    return jsonify(asdict(tokens))


@_auth_route("POST", "/v1/auth/logout", may=any_user, gives={"success": bool})
def log_out() -> Response:
    """End the session of the caller, also where its access token has expired."""
    throttle.count_address("log-out", LOG_OUT_LIMIT)  # here, for it has no body
    identity = load_user_ignoring_expiry()
    if identity.sign_in_id is None:
        raise Unauthenticated("This needs an Authorization header: JWT <access token>.")
    login_sessions.revoke_session(identity.sign_in_id)
    db.session.commit()
    return jsonify(success=True)


@_auth_route(
    "POST",
    "/v1/auth/change-password",
    may=any_user,
    action=accounts.LOG_IN,
    takes={"old-password": TEXT, "new-password": NEW_PASSWORD},
    gives={"password-changed": bool},
)
def change_password() -> Response:
    """Change the password of the caller, and end all other sessions."""
    with open_transaction(is_read=True):
        viewer = require_current_user()
    form = read_form()
    old, new = form.get_text("old-password"), _get_new_password(form, "new-password")
    if not accounts.change_password(viewer, old, new):
        raise BadRequest("The old password is wrong.", pointer=form.get_pointer("old-password"), code="wrong-password")
    db.session.commit()
    return jsonify({"password-changed": True})


@_auth_route("POST", "/v1/auth/verify-email", may=anyone, action="verify", takes={"token": TEXT}, gives=MESSAGE)
def verify_email() -> Response:
    """Verify an e-mail address with the token of a verification mail."""
    form = read_form()
    if not accounts.verify_email(form.get_text("token"), _get_optional_caller()):
        raise _build_mail_token_error(form)
    db.session.commit()
    return jsonify(message="Email Verified")


@_auth_route(
    "POST",
    "/v1/auth/resend-verification-email",
    may=anyone,
    action="verification",
    takes={"email": TEXT},
    optional={"refresh_token": TEXT},
    gives=MESSAGE,
)
def resend_verification_email() -> Response:
    """Send another verification mail; the answer is the same for an unknown address."""
    form = read_form()
    token = form.get_optional_text("refresh_token")
    accounts.request_verification(form.get_text("email"), viewer=_get_optional_caller(), refresh_token=token)
    db.session.commit()
    return jsonify(message="If this address waits for verification, a mail is on its way.")


@_auth_route(
    "POST",
    "/v1/auth/reset-password",
    may=anyone,
    action="reset",
    takes={"email": TEXT},
    optional={"refresh_token": TEXT},
    gives=MESSAGE,
)
def order_reset() -> Response:
    """Send a mail with a token that resets the password; the answer is the same for an unknown address."""
    form = read_form()
    token = form.get_optional_text("refresh_token")
    accounts.request_reset(form.get_text("email"), viewer=_get_optional_caller(), refresh_token=token)
    db.session.commit()
    return jsonify(message="If there is an account with this address, a mail is on its way.")


@_auth_route(
    "PATCH",
    "/v1/auth/reset-password",
    may=anyone,
    action="reset",
    takes={"token": TEXT, "password": NEW_PASSWORD},
    gives=MESSAGE,
)
def reset_password() -> Response:
    """Set a new password with the token of a reset mail, and end all sessions."""
    form = read_form()
    token, password = form.get_text("token"), _get_new_password(form, "password")
    if not accounts.reset_password(token, password):
        raise _build_mail_token_error(form)
    db.session.commit()
    return jsonify(message="Password changed. Log in with it.")


@_auth_route(
    "POST", "/v1/users/check_email", may=anyone, action="check-email", takes={"email": TEXT}, gives={"exists": bool}
)
def check_email() -> Response:
    """Check whether an account has this e-mail address."""
    email = read_form().get_text("email")
    return jsonify(exists=accounts.is_email_taken(email))


@_auth_route("GET", "/v1/users/user-details/get-user-id", may=any_user, gives={"user_id": int})
def get_user_id() -> Response:
    """Get the id of the caller."""
    with open_transaction(is_read=True):
        return jsonify(user_id=require_current_user().id)


def _get_optional_caller() -> CurrentUser:
    """Return the current user, anonymous also when the access token is not valid: it is optional here."""
    try:
        return load_user_ignoring_expiry()
    except Unauthenticated:
        return ANONYMOUS_USER


def _get_new_password(form: Form, name: str) -> str:
    try:
        return check_length(form.get_text(name))
    except ValueError as error:
        raise form.build_error(name, error) from None


def _build_mail_token_error(form: Form) -> BadRequest:
    detail = "This token is not valid: it may have expired or been used already."
    return BadRequest(detail, pointer=form.get_pointer("token"), code="token-invalid")
