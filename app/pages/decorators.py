"""Decorators that register the views of the pages below /jobs and open their transaction."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Blueprint, Response

from app.database import open_transaction
from app.jsonapi.permissions import Predicate, any_user, describe_predicate
from app.pages import cookies, form_requests
from app.users.request_body import MAX_FORM_BYTES

pages = Blueprint("pages", __name__, url_prefix="/jobs", template_folder="templates")

View = Callable[..., Response]


def route(method: str, path: str, *, may: Predicate = any_user) -> Callable[[View], View]:
    """Register a view with the predicate that `manage.py routes` shows for it."""

    def register(view: View) -> View:
        view.permission = describe_predicate(may)  # type: ignore[attr-defined]  # read by `manage.py routes`
        pages.add_url_rule(path, view_func=view, methods=[method])
        return view

    return register


def page_view(path: str) -> Callable[[View], View]:
    """Register a GET view for signed-in users; it is called with the page session, in one read transaction."""

    def register(view: View) -> View:
        @wraps(view)
        def handle_request(**names: Any) -> Response:
            with open_transaction(is_read=True):
                return view(cookies.require_page_session(), **names)

        return route("GET", path)(handle_request)

    return register


def form_action(path: str) -> Callable[[View], View]:
    """Register a POST view for forms of signed-in users, with a CSRF check; the view commits."""

    def register(view: View) -> View:
        @wraps(view)
        def handle_request(**names: Any) -> Response:
            with open_transaction(is_read=False):
                caller = cookies.require_page_session()
                form_requests.require_csrf(caller.cookie)
                return view(caller, **names)

        handle_request.largest_body = lambda: MAX_FORM_BYTES  # type: ignore[attr-defined]  # read by app/request_bodies.py
        return route("POST", path)(handle_request)

    return register
