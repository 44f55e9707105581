"""/jobs/sign-in: the log-in form, which uses the same functions as the log-in of the API."""

from http import HTTPStatus

from flask import Response, render_template, request

from app import throttle
from app.database import commit, open_transaction
from app.errors import TooManyRequests, Unauthenticated
from app.extensions import db
from app.jsonapi.permissions import anyone
from app.pages import cookies, form_requests
from app.pages.cookies import PageSession
from app.pages.decorators import form_action, route
from app.pages.form_requests import get_next_path, redirect_to
from app.pages.responses import CHALLENGE_HEADERS, LOGIN_URL
from app.users import accounts, login_sessions
from app.users.request_body import MAX_FORM_BYTES
from app.users.tokens import read_access_token

EXPIRED_FORM_ERROR = "This form has expired, or your browser does not send cookies. Please try again."
WRONG_CREDENTIALS_ERROR = "Wrong e-mail address or password."


@route("GET", "/sign-in", may=anyone)
def show_login_form() -> Response:
    """Show the form; redirect users who are signed in already to the requested page."""
    with open_transaction(is_read=True):
        try:
            cookies.require_page_session()
        except Unauthenticated:
            return _render_form(request.args.get("next"))
    return redirect_to(get_next_path(request.args.get("next")))


@route("POST", "/sign-in", may=anyone)
def log_in() -> Response:
    """Check the e-mail address and the password, set the session cookies and redirect."""
    try:
        throttle.count_address(accounts.LOG_IN)
        if not form_requests.is_csrf_valid(cookies.get_form_cookie()):
            return _render_form(request.form.get("next"), EXPIRED_FORM_ERROR, HTTPStatus.FORBIDDEN)
        tokens = accounts.log_in(
            form_requests.get_text("email"),
            form_requests.get_text("password"),
            sign_in_id=cookies.get_previous_session_id(),
        )
    except TooManyRequests as error:
        response = _render_form(request.form.get("next"), str(error), error.http_status)
        response.headers.update(error.headers)
        return response
    if tokens is None:
        response = _render_form(request.form.get("next"), WRONG_CREDENTIALS_ERROR, HTTPStatus.UNAUTHORIZED)
        response.headers.update(CHALLENGE_HEADERS)
        return response
    db.session.commit()
    response = redirect_to(get_next_path(request.form.get("next")))
    cookies.set_session_cookies(response, read_access_token(tokens.access_token))
    return response


log_in.largest_body = lambda: MAX_FORM_BYTES  # type: ignore[attr-defined]  # read by app/request_bodies.py


@form_action("/sign-out")
def log_out(caller: PageSession) -> Response:
    """Revoke the session and delete its cookie."""
    if caller.viewer.sign_in_id is not None:
        login_sessions.revoke_session(caller.viewer.sign_in_id)
    commit()
    response = redirect_to(LOGIN_URL)
    cookies.delete_session_cookie(response)
    return response


def _render_form(next_path: str | None, problem: str = "", status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Render the form with a CSRF token bound to the form cookie of this browser."""
    cookie = cookies.get_form_cookie() or cookies.generate_form_cookie()
    html = render_template(
        "sign_in.html",
        problem=problem,
        email=request.form.get("email", ""),
        next=get_next_path(next_path),
        token=cookies.derive_csrf_token(cookie),
    )
    response = Response(html, status, content_type="text/html; charset=utf-8")
    cookies.set_form_cookie(response, cookie)
    return response
