"""/jobs/sign-in: the form, and what it does with the very functions of the API's log-in."""

from http import HTTPStatus

from flask import Response, render_template, request

from app import throttle
from app.database import commit, transaction
from app.errors import TooManyRequests, Unauthenticated
from app.extensions import db
from app.jsonapi.permissions import anyone
from app.pages import cookies, forms
from app.pages.answers import CHALLENGE, SIGN_IN
from app.pages.cookies import SignedIn
from app.pages.forms import go_to, next_page
from app.pages.routing import command, route
from app.users import accounts, sign_ins
from app.users.forms import MAX_FORM_BYTES
from app.users.tokens import read_access_token

TOO_OLD = "This form was too old, or your browser sends no cookies. Please try again."
WRONG = "This address and this password do not belong together."


@route("GET", "/sign-in", may=anyone)
def show_form() -> Response:
    """The form; whoever is signed in already goes where he wanted to."""
    with transaction(is_read=True):
        try:
            cookies.signed_in()
        except Unauthenticated:
            return _form(request.args.get("next"))
    return go_to(next_page(request.args.get("next")))


@route("POST", "/sign-in", may=anyone)
def sign_in() -> Response:
    """An address and a password become a cookie."""
    try:
        throttle.count_address(accounts.LOG_IN)
        if not forms.is_ours(cookies.form_cookie()):
            return _form(request.form.get("next"), TOO_OLD, HTTPStatus.FORBIDDEN)
        tokens = accounts.log_in(forms.text("email"), forms.text("password"), sign_in_id=cookies.earlier_sign_in())
    except TooManyRequests as error:
        refused = _form(request.form.get("next"), str(error), error.http_status)
        refused.headers.update(error.headers)
        return refused
    if tokens is None:
        refused = _form(request.form.get("next"), WRONG, HTTPStatus.UNAUTHORIZED)
        refused.headers.update(CHALLENGE)
        return refused
    db.session.commit()
    response = go_to(next_page(request.form.get("next")))
    cookies.keep(response, read_access_token(tokens.access_token))
    return response


sign_in.largest_body = lambda: MAX_FORM_BYTES  # type: ignore[attr-defined]  # read by app/bodies.py


@command("/sign-out")
def sign_out(caller: SignedIn) -> Response:
    """The sign-in ends, in every tab."""
    if caller.viewer.sign_in_id is not None:
        sign_ins.revoke(caller.viewer.sign_in_id)
    commit()
    response = go_to(SIGN_IN)
    cookies.forget(response)
    return response


def _form(asked: str | None, problem: str = "", status: HTTPStatus = HTTPStatus.OK) -> Response:
    """The form, for this browser alone."""
    cookie = cookies.form_cookie() or cookies.new_form_cookie()
    html = render_template(
        "sign_in.html",
        problem=problem,
        email=request.form.get("email", ""),
        next=next_page(asked),
        token=cookies.token_for(cookie),
    )
    response = Response(html, status, content_type="text/html; charset=utf-8")
    cookies.keep_form(response, cookie)
    return response
