"""The routes of the pages, all of them below /jobs, and what each view is given."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Blueprint, Response

from app.database import transaction
from app.jsonapi.permissions import Predicate, signed_in, words
from app.pages import cookies, forms
from app.users.forms import MAX_FORM_BYTES

pages = Blueprint("pages", __name__, url_prefix="/jobs", template_folder="templates")

View = Callable[..., Response]


def route(method: str, path: str, *, may: Predicate = signed_in) -> Callable[[View], View]:
    """Register a view, and name who may call it."""

    def register(view: View) -> View:
        view.permission = words(may)  # type: ignore[attr-defined]  # read by `manage.py routes`
        pages.add_url_rule(path, view_func=view, methods=[method])
        return view

    return register


def page(path: str) -> Callable[[View], View]:
    """A GET by somebody signed in, whom the view is given first; it reads in one transaction."""

    def register(view: View) -> View:
        @wraps(view)
        def answer(**names: Any) -> Response:
            with transaction(is_read=True):
                return view(cookies.signed_in(), **names)

        return route("GET", path)(answer)

    return register


def command(path: str) -> Callable[[View], View]:
    """A POST of a form of ours by somebody signed in; the view commits."""

    def register(view: View) -> View:
        @wraps(view)
        def answer(**names: Any) -> Response:
            with transaction(is_read=False):
                caller = cookies.signed_in()
                forms.require_ours(caller.cookie)
                return view(caller, **names)

        answer.largest_body = lambda: MAX_FORM_BYTES  # type: ignore[attr-defined]  # read by app/bodies.py
        return route("POST", path)(answer)

    return register
