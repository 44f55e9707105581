"""What every view of the API does: negotiate, authenticate, open a transaction, answer."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import orjson
from flask import Response, g, request
from xxhash import xxh3_128_hexdigest

from app import large_answers, memory
from app.database import commit, transaction
from app.errors import MEDIA_TYPE, NotFound
from app.jsonapi.body import read_document
from app.jsonapi.cursors import PROFILE, PROFILE_SPELLINGS
from app.jsonapi.negotiation import check_accept, check_content_type, find_accepted_profile
from app.jsonapi.permissions import Access, Predicate, Scope, words
from app.jsonapi.plan import Item
from app.jsonapi.query import read_query
from app.jsonapi.reading import Reader
from app.jsonapi.resource_type import ResourceType, parse_number
from app.jsonapi.sizes import LARGE_ANSWER_BYTES, MAX_ANSWER_BYTES, AnswerTooLarge, refuse_answer
from app.jsonapi.viewer import Viewer, current_viewer
from app.jsonapi.writing import DataLayer, SentResource
from app.preconditions import apply_preconditions, require_preconditions


class View:
    """What all views share; `data_layer` is declared as the library wants it: `{"class": ..., "type": ...}`."""

    _data_layer: ClassVar[DataLayer]
    decorators: ClassVar[tuple[Any, ...]] = ()
    families: ClassVar[Mapping[str, frozenset[str]]]
    """The families of query parameters that each method takes."""
    body_methods: ClassVar[frozenset[str]] = frozenset({"POST", "PATCH"})
    """Those that come with a document."""
    keyed_methods: ClassVar[frozenset[str]] = frozenset()
    """Those that take an Idempotency-Key."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.decorators = ()  # the library's header check refuses `profile` and `q`; ours is in dispatch_request

    largest_body: ClassVar[Callable[[], int] | None] = None
    """What app/bodies.py asks before it reads a body, where it is not the usual limit."""

    @classmethod
    def as_view(cls, name: str, *arguments: Any, **more: Any) -> Callable[..., Response]:
        """Make the view function; it names its limit."""
        view: Callable[..., Response] = super().as_view(name, *arguments, **more)  # type: ignore[misc]  # of Flask's MethodView, below the library's classes
        if cls.largest_body is not None:
            view.largest_body = cls.largest_body  # type: ignore[attr-defined]  # read by app/bodies.py
        return view

    @property
    def layer(self) -> DataLayer:
        """The data layer of the resource."""
        return self._data_layer

    @property
    def type(self) -> ResourceType:
        """The type of the resource, or of the parent where the URL names a relationship."""
        return self._data_layer.type

    @classmethod
    def permissions_by_method(cls) -> dict[str, str]:
        """The rule of every method, in words."""
        return {method: words(predicate) for method, predicate in cls.rules().items()}

    @classmethod
    def rules(cls) -> Mapping[str, Predicate]:
        """The predicate behind every method of this view."""
        raise NotImplementedError

    def dispatch_request(self, **names: str) -> Response:
        """Negotiate, open the right kind of transaction, answer; what fails leaves nothing behind."""
        check_accept(request.headers)
        if request.method in self.body_methods or request.content_length or request.mimetype == MEDIA_TYPE:
            check_content_type(request.headers)
        handler = getattr(self, "get" if request.method == "HEAD" else request.method.lower())
        if self._data_layer.has_slow_work and request.method in self.body_methods:
            with transaction(is_read=True):
                viewer = current_viewer()
                replayed = self.find_answer(viewer)
            if replayed is not None:
                return replayed
            self._slow_work(viewer)
            g.pop("viewer")  # the transaction that follows looks again
        with transaction(is_read=request.method in ("GET", "HEAD")):
            answer: Response = handler(**names)
        return answer

    def _slow_work(self, viewer: Viewer) -> None:
        """Let the data layer do its slow work while no database connection is held."""
        if request.method != "POST" and viewer.is_anonymous:
            return  # the handler refuses it unread
        document = read_document()
        data = document.get("data") if isinstance(document, dict) else None
        if isinstance(data, dict):
            self._data_layer.before_transaction([SentResource(data, "/data")], viewer)

    def find_answer(self, _viewer: Viewer) -> Response | None:
        """Return the answer that is stored for the Idempotency-Key of this request, before any slow work; or None."""
        return None

    def is_list(self) -> bool:
        """Return whether the answer to this request is a list, which may have pages."""
        return False

    def reader(self, of: ResourceType | None = None, name: str | None = None) -> Reader:
        """Reads what this request asks of a type; `name` is the URL segment that may name a private event."""
        allowed = self.families["GET" if request.method == "HEAD" else request.method]
        viewer = current_viewer()
        query = read_query(request.query_string, of or self.type, viewer, allowed, is_list=self.is_list())
        with_cursors = find_accepted_profile(request.headers, PROFILE_SPELLINGS) is not None
        return Reader(Access(viewer, query.scope, _capability(name)), query, with_cursors)

    def allow(self, predicate: Predicate) -> None:
        """401 or 403 unless the caller may, before a word of the query is read."""
        viewer = current_viewer()
        Access(viewer, Scope(viewer.role)).require(predicate, None)

    def committed(self, response: Response) -> Response:
        """Commit once the answer is printed, so that no 500 can follow a stored row."""
        commit()
        return response

    def collection(self, reader: Reader, read: Callable[[Reader], Item]) -> Response:
        """Make the response of a list that `read` returns, of fewer items where it would be too large.

        It names the profile that shaped it, by the URI that the client sent.
        """
        profile = (find_accepted_profile(request.headers, PROFILE_SPELLINGS) or PROFILE) if reader.by_cursor else None
        while True:
            document = read(reader)
            try:
                return answer(document, profile=profile)
            except AnswerTooLarge:
                if reader.max_items == 0:
                    raise
                reader = replace(reader, max_items=len(document["data"]) // 2)

    def check_precondition(self, current: Callable[[], Item | None]) -> None:
        """Raise 412 unless If-Match and If-None-Match hold for the current document; the row is locked."""
        if "If-Match" in request.headers or "If-None-Match" in request.headers:
            document = current()
            require_preconditions(None if document is None else tag(orjson.dumps(document)))

    def row(self, name: str, access: Access) -> Any:
        """The row a URL segment names, locked; 404 where there is none for this caller."""
        row = self.layer.get_object(self.type.lookup(name), access)
        if row is None:
            raise NotFound(f"There is no {self.type.name} {name[:80]!r} here.")
        return row

    def stored(self, row: Any, reader: Reader) -> Item | None:
        """The document of a row just written, as its author sees it; None when he no longer does."""
        access = self.layer.answer_access(row, reader.access)
        return Reader(access, reader.query).resource(self.type, row.id)


def answer(document: Item, status: int = 200, *, profile: str | None = None, extension: str | None = None) -> Response:
    """A JSON:API document as a response; its ETag is a hash of the bytes, which differ by URL and caller."""
    body = orjson.dumps(document)
    if len(body) > MAX_ANSWER_BYTES:
        detail = f"The answer would have more than {MAX_ANSWER_BYTES} bytes: include less, or choose fewer fields."
        raise refuse_answer(detail, "include" if "include" in request.args else None)
    if len(body) > large_answers.LARGE_ANSWER_BYTES and request.method not in ("GET", "HEAD"):
        large_answers.reserve_slot()
    if len(body) > LARGE_ANSWER_BYTES:
        memory.release_after_request()
    parameters = {"ext": extension, "profile": profile}
    content_type = MEDIA_TYPE + "".join(f'; {name}="{uri}"' for name, uri in parameters.items() if uri is not None)
    response = Response(body, status=status, content_type=content_type)
    response.headers["Vary"] = "Accept, Authorization"
    response.set_etag(tag(body))
    if request.method in ("GET", "HEAD"):
        apply_preconditions(response)
    return response


def tag(body: bytes) -> str:
    """The entity tag of a document: of a list of 250 kB in 3 µs, which SHA-256 takes 126 for."""
    return xxh3_128_hexdigest(body)


def _capability(name: str | None) -> str | None:
    return name if name is not None and parse_number(name) is None else None


def path() -> str:
    """The URL of this request, without a trailing slash."""
    return request.path.rstrip("/")


def self_link() -> str:
    """The URL of this request with its query string."""
    query = request.query_string.decode("ascii", "replace")
    return f"{path()}?{query}" if query else path()
