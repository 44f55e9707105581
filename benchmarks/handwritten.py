"""System `limit`: every endpoint written by hand, with Flask, SQLAlchemy Core and orjson.

Authentication and documents are those of the app. Everything that a generic layer computes is constant here:
statements are built once, links are f-strings, visibility of included rows follows from the event, and bodies are not
validated.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from flask import Flask, Response, request
from sqlalchemy import Connection, create_engine

from app.database import SESSION_OPTIONS
from app.errors import MEDIA_TYPE
from app.users.tokens import read_access_token
from benchmarks import handwritten_statements as sql
from benchmarks.handwritten_documents import (
    JSONAPI,
    OWN_EVENT_KEYS,
    build_event_item,
    build_faq_item,
    build_owner_item,
    build_pagination,
)

MAX_PAGE_SIZE = 100


def create_app(settings: dict[str, Any]) -> Flask:
    """Return an app with one detail, one list, one list with includes, one POST and one PATCH."""
    app = Flask("limit", static_folder=None)
    app.config.update(settings)
    connecting: dict[str, Any] = {"connect_args": {"options": SESSION_OPTIONS}, "json_deserializer": orjson.loads}
    reads = create_engine(settings["DATABASE_URL"], isolation_level="AUTOCOMMIT", **connecting)
    writes = create_engine(settings["DATABASE_URL"], **connecting)

    @app.get("/v1/events/<int:id>")
    def one_event(id: int) -> Response:
        with reads.connect() as connection:
            row = connection.execute(sql.ONE_EVENT, {"viewer_id": _get_current_user_id(connection), "id": id}).one()
        return _build_response(
            {"data": build_event_item(row), "jsonapi": JSONAPI, "links": {"self": f"/v1/events/{id}"}}
        )

    @app.get("/v1/events")
    def list_events() -> Response:
        with reads.connect() as connection:
            return _build_response(_list_events(connection, _get_current_user_id(connection), request.args))

    @app.post("/v1/faqs")
    def create_faq() -> Response:
        data = orjson.loads(request.get_data())["data"]
        values = {**data["attributes"], "event_id": int(data["relationships"]["event"]["data"]["id"])}
        with writes.begin() as connection:
            _get_current_user_id(connection)
            item = build_faq_item(connection.execute(sql.CREATE_FAQ, values).one())
        response = _build_response({"data": item, "jsonapi": JSONAPI, "links": item["links"]}, 201)
        response.headers["Location"] = settings["PUBLIC_URL"] + item["links"]["self"]
        return response

    @app.patch("/v1/events/<int:id>")
    def update_event(id: int) -> Response:
        sent = orjson.loads(request.get_data())["data"]["attributes"]
        values = {"key": id, "name": sent["name"], "location_name": sent["location-name"]}
        with writes.begin() as connection:
            _get_current_user_id(connection)
            item = build_event_item(connection.execute(sql.UPDATE_EVENT, values).one(), OWN_EVENT_KEYS)
        return _build_response({"data": item, "jsonapi": JSONAPI, "links": item["links"]})

    return app


def _get_current_user_id(connection: Connection) -> int:
    """Return the id of the user who authenticated the request, like `app.users.auth`."""
    access = read_access_token(request.headers["Authorization"].partition(" ")[2])
    found = connection.execute(
        sql.SELECT_CURRENT_USER, {"user_id": access.user_id, "sign_in_id": access.sign_in_id}
    ).one()
    return int(found[0])


def _list_events(connection: Connection, viewer_id: int, arguments: Mapping[str, str]) -> dict[str, Any]:
    size, number = int(arguments.get("page[size]", 20)), int(arguments.get("page[number]", 1))
    page = {"viewer_id": viewer_id, "size": min(size, MAX_PAGE_SIZE), "offset": (number - 1) * size}
    ((count,),) = connection.execute(sql.COUNT_EVENTS, page)
    rows = connection.execute(sql.EVENTS, page).all()
    items = [build_event_item(row) for row in rows]
    document = {"data": items, **build_pagination(arguments, count, number, size), "jsonapi": JSONAPI}
    if "include" in arguments:
        document["included"] = _fetch_included(connection, viewer_id, rows, items)
    return document


def _fetch_included(
    connection: Connection, viewer_id: int, rows: Any, items: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    owners = connection.execute(sql.OWNERS, {"viewer_id": viewer_id, "ids": list({row.owner_id for row in rows})})
    included = [build_owner_item(owner) for owner in owners]
    linkage: dict[int, list[dict[str, str]]] = {row.id: [] for row in rows}
    for faq in connection.execute(sql.FAQS, {"ids": list(linkage)}):
        included.append(item := build_faq_item(faq))
        linkage[faq.event_id].append({"type": "faq", "id": item["id"]})
    for item, linked in zip(items, linkage.values(), strict=True):
        item["relationships"]["faqs"]["data"] = linked
    return included


def _build_response(document: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(document), status=status, content_type=MEDIA_TYPE)
