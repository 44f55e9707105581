"""Base class of all JSON:API views: negotiation, authentication, transactions and responses."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar, cast

import orjson
from flask import Response, g, request
from xxhash import xxh3_128_hexdigest

from app import large_responses, memory
from app.database import commit, open_transaction
from app.errors import MEDIA_TYPE, NotFound
from app.jsonapi.current_user import CurrentUser, get_current_user
from app.jsonapi.cursors import PROFILE, PROFILE_SPELLINGS
from app.jsonapi.data_layer import DataLayer, SentResource
from app.jsonapi.json_parsing import parse_request_body
from app.jsonapi.long_writes import is_long_write, long_write
from app.jsonapi.negotiation import check_accept, check_content_type, find_requested_profile
from app.jsonapi.permissions import AccessContext, Predicate, VisibilityScope, describe_predicate
from app.jsonapi.query_params import parse_query
from app.jsonapi.reader import ResourceReader
from app.jsonapi.resource_type import ResourceType, parse_integer_id
from app.jsonapi.select_plan import Item
from app.jsonapi.size_limits import LARGE_ANSWER_BYTES, MAX_ANSWER_BYTES, AnswerTooLarge, make_size_error
from app.preconditions import apply_preconditions, require_preconditions


class View:
    """Base of all views; subclasses declare `data_layer` as the library requires: `{"class": ..., "type": ...}`."""

    _data_layer: ClassVar[DataLayer]
    decorators: ClassVar[tuple[Any, ...]] = ()
    families: ClassVar[Mapping[str, frozenset[str]]]
    """Families of query parameters that each method accepts."""
    body_methods: ClassVar[frozenset[str]] = frozenset({"POST", "PATCH"})
    """Methods whose requests have a document."""
    keyed_methods: ClassVar[frozenset[str]] = frozenset()
    """Methods that accept an Idempotency-Key."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.decorators = ()  # the library's header check rejects `profile` and `q`; dispatch_request has its own

    largest_body: ClassVar[Callable[[], int] | None] = None
    """Function that returns the max bytes of a body for app/request_bodies.py; None for the default limit."""

    @classmethod
    def as_view(cls, name: str, *arguments: Any, **more: Any) -> Callable[..., Response]:
        """Return the view function, with `largest_body` as an attribute."""
        view: Callable[..., Response] = super().as_view(name, *arguments, **more)  # type: ignore[misc]  # of Flask's MethodView, below the library's classes
        if cls.largest_body is not None:
            view.largest_body = cls.largest_body  # type: ignore[attr-defined]  # read by app/request_bodies.py
        return view

    @property
    def layer(self) -> DataLayer:
        """Return the data layer of the resource."""
        return self._data_layer

    @property
    def type(self) -> ResourceType:
        """Return the type of the resource, or of its parent if the URL names a relationship."""
        return self._data_layer.type

    @classmethod
    def permissions_by_method(cls) -> dict[str, str]:
        """Return the permission that each method requires, in words."""
        return {method: describe_predicate(predicate) for method, predicate in cls.predicates_by_method().items()}

    @classmethod
    def predicates_by_method(cls) -> Mapping[str, Predicate]:
        """Return the predicate of each method of this view."""
        raise NotImplementedError

    def dispatch_request(self, **names: str) -> Response:
        """Check the headers and run the handler in a transaction, which a failure rolls back."""
        check_accept(request.headers)
        if request.method in self.body_methods or request.content_length or request.mimetype == MEDIA_TYPE:
            check_content_type(request.headers)
        handler = getattr(self, "get" if request.method == "HEAD" else request.method.lower())
        is_write = request.method in self.body_methods
        if not is_write or not (self._data_layer.has_slow_work or is_long_write()):
            with open_transaction(is_read=request.method in ("GET", "HEAD")):
                return cast("Response", handler(**names))
        with open_transaction(is_read=True):
            viewer = get_current_user()
            replayed = self.find_stored_response(viewer)
        if replayed is not None:
            return replayed
        with self._slow_work(viewer), open_transaction(is_read=False):
            return cast("Response", handler(**names))

    @contextmanager
    def _slow_work(self, viewer: CurrentUser) -> Iterator[None]:
        """Run the slow work of a write while no database connection is held, then its transaction."""
        has_slow_work = self._data_layer.has_slow_work
        resources = []
        if not viewer.is_anonymous or (has_slow_work and request.method == "POST"):
            document = parse_request_body()  # the handler rejects other requests without reading their body
            data = document.get("data") if isinstance(document, dict) else None
            resources = [SentResource(data, "/data")] if isinstance(data, dict) else []
        if resources and has_slow_work:
            self._data_layer.before_transaction(resources, viewer)
        g.pop("viewer")  # the session may have ended meanwhile: the transaction authenticates again
        is_long = is_long_write() and not viewer.is_anonymous
        with long_write(viewer, [(self.type, each) for each in resources]) if is_long else nullcontext():
            yield

    def find_stored_response(self, _viewer: CurrentUser) -> Response | None:
        """Return the response stored under the Idempotency-Key of this request, or None; called before slow work."""
        return None

    def is_list(self) -> bool:
        """Return whether the response to this request is a list, which may have pages."""
        return False

    def make_reader(self, of: ResourceType | None = None, name: str | None = None) -> ResourceReader:
        """Return the reader for the query of this request; `name` is the URL segment that may name a private event."""
        allowed = self.families["GET" if request.method == "HEAD" else request.method]
        viewer = get_current_user()
        query = parse_query(request.query_string, of or self.type, viewer, allowed, is_list=self.is_list())
        with_cursors = find_requested_profile(request.headers, PROFILE_SPELLINGS) is not None
        return ResourceReader(AccessContext(viewer, query.scope, _get_capability(name)), query, with_cursors)

    def authorize(self, predicate: Predicate) -> None:
        """Raise Unauthenticated or Forbidden unless the predicate permits the request, before the query is parsed."""
        viewer = get_current_user()
        AccessContext(viewer, VisibilityScope(viewer.role)).require_permission(predicate, None)

    def commit_and_return(self, response: Response) -> Response:
        """Commit and return the response: it is complete, so that no 500 can follow a committed write."""
        commit()
        return response

    def respond_with_list(self, reader: ResourceReader, read: Callable[[ResourceReader], Item]) -> Response:
        """Return the response for the list that `read` returns, with fewer items if it would be too large.

        Its media type names the applied profile by the URI that the client sent.
        """
        profile = (
            (find_requested_profile(request.headers, PROFILE_SPELLINGS) or PROFILE) if reader.uses_cursors else None
        )
        while True:
            document = read(reader)
            try:
                return json_response(document, profile=profile)
            except AnswerTooLarge:
                if reader.max_items == 0:
                    raise
                reader = replace(reader, max_items=len(document["data"]) // 2)

    def check_precondition(self, current: Callable[[], Item | None]) -> None:
        """Raise PreconditionFailed unless If-Match and If-None-Match hold for the `current` document of the row."""
        if "If-Match" in request.headers or "If-None-Match" in request.headers:
            document = current()
            require_preconditions(None if document is None else compute_etag(orjson.dumps(document)))

    def lock_row(self, name: str, access: AccessContext) -> Any:
        """Lock and return the row that a URL segment names; raise NotFound if the current user cannot see it."""
        row = self.layer.get_object(self.type.lookup(name), access)
        if row is None:
            raise NotFound(f"There is no {self.type.name} {name[:80]!r} here.")
        return row

    def read_back(self, row: Any, reader: ResourceReader) -> Item | None:
        """Return the document of a row just written, as the current user sees it; None if they no longer see it."""
        access = self.layer.get_answer_access(row, reader.access)
        return ResourceReader(access, reader.query).get_document(self.type, row.id)


def json_response(
    document: Item, status: int = 200, *, profile: str | None = None, extension: str | None = None
) -> Response:
    """Return a document as a response; its ETag is a hash of its bytes. Raise AnswerTooLarge above MAX_ANSWER_BYTES."""
    body = orjson.dumps(document)
    if len(body) > MAX_ANSWER_BYTES:
        detail = f"The response would have more than {MAX_ANSWER_BYTES} bytes: include less, or choose fewer fields."
        raise make_size_error(detail, "include" if "include" in request.args else None)
    if len(body) > large_responses.LARGE_RESPONSE_BYTES and request.method not in ("GET", "HEAD"):
        large_responses.reserve_slot()
    if len(body) > LARGE_ANSWER_BYTES:
        memory.schedule_memory_release()
    parameters = {"ext": extension, "profile": profile}
    content_type = MEDIA_TYPE + "".join(f'; {name}="{uri}"' for name, uri in parameters.items() if uri is not None)
    response = Response(body, status=status, content_type=content_type)
    response.headers["Vary"] = "Accept, Authorization"
    response.set_etag(compute_etag(body))
    if request.method in ("GET", "HEAD"):
        apply_preconditions(response)
    return response


def compute_etag(body: bytes) -> str:
    """Return the entity tag of a document (XXH3: 3 µs for 250 kB, where SHA-256 takes 126 µs)."""
    return xxh3_128_hexdigest(body)


def _get_capability(name: str | None) -> str | None:
    return name if name is not None and parse_integer_id(name) is None else None


def request_path() -> str:
    """Return the path of this request, without a trailing slash."""
    return request.path.rstrip("/")


def self_link() -> str:
    """Return the path of this request with its query string."""
    query = request.query_string.decode("ascii", "replace")
    return f"{request_path()}?{query}" if query else request_path()
