"""Requests that every system is measured with, and the required ratios."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from benchmarks.dataset import CALLER_ID
from benchmarks.load import Request

_counter = itertools.count(1)


@dataclass(frozen=True)
class Case:
    """A request, with limits for its processor time.

    The app may take `max_ratio` times as long as hand-written code; the stock library must take at least
    `min_stock_ratio` times as long as the app.
    """

    letter: str
    name: str
    request: Request
    max_ratio: float
    min_stock_ratio: float | None = None

    def next_request(self, system: str, headers: Mapping[str, str]) -> Request:
        """Return the next request; its written values differ each time, because unchanged values are not written."""
        return self.build_request(next(_counter), system, headers)

    def build_request(self, number: int, system: str, headers: Mapping[str, str]) -> Request:
        """Return the request with this number in its written values."""
        request = self.request
        path = f"/{self.letter}" if system == "constant" else request.path
        body = request.body and request.body.replace(b"NUMBER", b"%d" % number)
        return Request(request.method, path, body, request.status, headers)


_FAQ = {
    "type": "faq",
    "attributes": {"question": "Question NUMBER?", "answer": "<p>An answer of some length. </p>", "position": 1},
    "relationships": {"event": {"data": {"type": "event", "id": str(CALLER_ID)}}},
}
_EVENT = {"type": "event", "id": str(CALLER_ID), "attributes": {"name": "Event NUMBER", "location-name": "Hall NUMBER"}}

CASES = (
    Case("a", "one event", Request("GET", "/v1/events/1"), 1.3, 1.8),
    Case("b", "list 20 events", Request("GET", "/v1/events?page[size]=20"), 1.15, 3.5),
    Case("c", "list 100 events", Request("GET", "/v1/events?page[size]=100"), 1.15, 6),
    Case("d", "list 20 + owner, faqs", Request("GET", "/v1/events?page[size]=20&include=owner,faqs"), 1.15, 8),
    Case("e", "POST faq", Request("POST", "/v1/faqs", orjson.dumps({"data": _FAQ}), 201), 1.8),
    Case("f", "PATCH event", Request("PATCH", f"/v1/events/{CALLER_ID}", orjson.dumps({"data": _EVENT})), 1.8),
)
