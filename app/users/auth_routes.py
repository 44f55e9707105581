"""The routes of accounts: log in, refresh, log out, passwords, verification.

Each view is one transaction, committed at its end. Answers are plain JSON and never cached; errors are JSON:API's.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, get_type_hints

from flask import Blueprint, Response, jsonify

from app import throttle
from app.errors import BadRequest, Unauthenticated
from app.extensions import db
from app.jsonapi.permissions import Predicate, anyone, signed_in, words
from app.jsonapi.viewer import signed_in_viewer
from app.users import accounts, sign_ins
from app.users.auth import get_identity
from app.users.emails import email_key
from app.users.forms import Form, read_form
from app.users.passwords import LONGEST, SHORTEST, check_length
from app.users.sign_ins import Tokens

routes = Blueprint("accounts", __name__)

View = Callable[[], Response]

TEXT = {"type": "string"}
NEW_PASSWORD = {"type": "string", "minLength": SHORTEST, "maxLength": LONGEST}
TOKENS = get_type_hints(Tokens)
MESSAGE = {"message": str}


def _route(
    method: str, *paths: str, may: Predicate, gives: Mapping[str, type], takes: Mapping[str, Any] | None = None
) -> Callable[[View], View]:
    """Register a view, with and without a trailing slash; name who may call it, its form and its answer."""

    def register(view: View) -> View:
        view.permission = words(may)  # type: ignore[attr-defined]  # read by `manage.py routes`
        view.takes, view.gives = takes, gives  # type: ignore[attr-defined]  # read by /openapi.json
        for path in paths:
            routes.add_url_rule(path, view_func=view, methods=[method], strict_slashes=False)
        return view

    return register


@_route("POST", "/auth/session", "/v1/auth/login", may=anyone, takes={"email": TEXT, "password": TEXT}, gives=TOKENS)
def log_in() -> Response:
    """Log in with an e-mail address (also called username) and a password, and return tokens."""
    form = read_form()
    email, password = form.text("email", "username"), form.text("password")
    throttle.count("log-in", account=email_key(email))
    tokens = accounts.log_in(email, password)
    if tokens is None:
        raise Unauthenticated("Invalid Credentials", code="invalid-credentials")
    db.session.commit()
    return jsonify(asdict(tokens))


@_route("POST", "/v1/auth/token/refresh", may=anyone, takes={"refresh_token": TEXT}, gives=TOKENS)
def refresh() -> Response:
    """Exchange a refresh token for a new pair of tokens."""
    tokens = sign_ins.rotate(read_form().text("refresh_token"))
    db.session.commit()  # also when refused: the sign-in of a stolen token has ended
    if tokens is None:
        raise Unauthenticated("The refresh token is not valid: log in again.", code="token-invalid")
    return jsonify(asdict(tokens))


@_route("POST", "/v1/auth/logout", may=signed_in, gives={"success": bool})
def log_out() -> Response:
    """End the session of the caller, also where its access token has expired."""
    identity = get_identity()
    if identity.sign_in_id is None:
        raise Unauthenticated("This needs an Authorization header: JWT <access token>.")
    sign_ins.revoke(identity.sign_in_id)
    db.session.commit()
    return jsonify(success=True)


@_route(
    "POST",
    "/v1/auth/change-password",
    may=signed_in,
    takes={"old-password": TEXT, "new-password": NEW_PASSWORD},
    gives={"password-changed": bool},
)
def change_password() -> Response:
    """Change the password of the caller, and end all other sessions."""
    viewer = signed_in_viewer()
    form = read_form()
    old, new = form.text("old-password"), _new_password(form, "new-password")
    if not accounts.change_password(viewer, old, new):
        raise BadRequest("The old password is wrong.", pointer=form.pointer_to("old-password"), code="wrong-password")
    db.session.commit()
    return jsonify({"password-changed": True})


@_route("POST", "/v1/auth/verify-email", may=anyone, takes={"token": TEXT}, gives=MESSAGE)
def verify_email() -> Response:
    """Verify an e-mail address with the token of a verification mail."""
    form = read_form()
    if not accounts.verify_email(form.text("token")):
        raise _bad_mail_token(form)
    db.session.commit()
    return jsonify(message="Email Verified")


@_route("POST", "/v1/auth/resend-verification-email", may=anyone, takes={"email": TEXT}, gives=MESSAGE)
def resend_verification_email() -> Response:
    """Send another verification mail; the answer is the same for an unknown address."""
    email = read_form().text("email")
    throttle.count("verification", account=email_key(email))
    accounts.order_verification(email)
    db.session.commit()
    return jsonify(message="If this address waits for verification, a mail is on its way.")


@_route("POST", "/v1/auth/reset-password", may=anyone, takes={"email": TEXT}, gives=MESSAGE)
def order_reset() -> Response:
    """Send a mail with a token that resets the password; the answer is the same for an unknown address."""
    email = read_form().text("email")
    throttle.count("reset", account=email_key(email))
    accounts.order_reset(email)
    db.session.commit()
    return jsonify(message="If there is an account with this address, a mail is on its way.")


@_route("PATCH", "/v1/auth/reset-password", may=anyone, takes={"token": TEXT, "password": NEW_PASSWORD}, gives=MESSAGE)
def reset_password() -> Response:
    """Set a new password with the token of a reset mail, and end all sessions."""
    form = read_form()
    token, password = form.text("token"), _new_password(form, "password")
    throttle.count("reset")
    if not accounts.reset_password(token, password):
        raise _bad_mail_token(form)
    db.session.commit()
    return jsonify(message="Password changed. Log in with it.")


@_route("POST", "/v1/users/check_email", may=anyone, takes={"email": TEXT}, gives={"exists": bool})
def check_email() -> Response:
    """Check whether an account has this e-mail address."""
    email = read_form().text("email")
    throttle.count("check-email")
    return jsonify(exists=accounts.is_taken(email))


@_route("GET", "/v1/users/user-details/get-user-id", may=signed_in, gives={"user_id": int})
def get_user_id() -> Response:
    """Get the id of the caller."""
    return jsonify(user_id=signed_in_viewer().id)


def _new_password(form: Form, name: str) -> str:
    try:
        return check_length(form.text(name))
    except ValueError as error:
        raise form.invalid(name, error) from None


def _bad_mail_token(form: Form) -> BadRequest:
    detail = "This token is not valid: it may be too old, or used already."
    return BadRequest(detail, pointer=form.pointer_to("token"), code="token-invalid")
