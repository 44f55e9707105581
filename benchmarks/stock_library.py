"""System `stock`: flask-rest-jsonapi-next with data layer and schemas as in its manual, without authentication.

The schemas have the attributes and relationships of the app, those of users only the public ones. Where there is a
choice, the faster variant is used: no default sorting, and linkage only for included resources.
"""

from typing import Any

import marshmallow
from flask import Flask
from flask_rest_jsonapi_next import Api, ResourceDetail, ResourceList, ResourceRelationship
from flask_sqlalchemy import SQLAlchemy
from marshmallow_jsonapi.flask import Relationship
from marshmallow_jsonapi.flask import Schema as LibrarySchema
from sqlalchemy.orm import relationship

from app.events.models import Event as OurEvent
from app.events.models import EventRole
from app.events.schemas import EventSchema
from app.faqs.models import Faq as OurFaq
from app.faqs.models import FaqType as OurFaqType
from app.faqs.schemas import FaqSchema, FaqTypeSchema
from app.jsonapi.fields import Boolean, DateTime, Integer, Number, ResourceSchema, Text
from app.jsonapi.inflection import dasherize
from app.users.models import User as OurUser
from app.users.permissions import PUBLIC_PROFILE
from app.users.schemas import UserSchema

db = SQLAlchemy()

MARSHMALLOW_FIELDS: dict[type, type] = {
    Text: marshmallow.fields.String,
    Boolean: marshmallow.fields.Boolean,
    Integer: marshmallow.fields.Integer,
    Number: marshmallow.fields.Float,
    DateTime: marshmallow.fields.AwareDateTime,
}
"""Marshmallow field for each field class of the app; others are used unchanged."""


class User(db.Model):  # type: ignore[name-defined,misc]  # created at run time
    """A user."""

    __table__ = OurUser.__table__


class Event(db.Model):  # type: ignore[name-defined,misc]  # same
    """An event."""

    __table__ = OurEvent.__table__
    owner = relationship(User, foreign_keys=[OurEvent.__table__.c.owner_id])
    pending_owner = relationship(User, foreign_keys=[OurEvent.__table__.c.pending_owner_id])
    organizers = relationship(User, secondary=EventRole.__table__, viewonly=True)
    coorganizers = relationship(User, secondary=EventRole.__table__, viewonly=True)
    faqs = relationship("Faq", back_populates="event")
    faq_types = relationship("FaqType")


class FaqType(db.Model):  # type: ignore[name-defined,misc]  # same
    """A FAQ type."""

    __table__ = OurFaqType.__table__


class Faq(db.Model):  # type: ignore[name-defined,misc]  # same
    """A FAQ."""

    __table__ = OurFaq.__table__
    event = relationship(Event, back_populates="faqs")
    faq_type = relationship(FaqType)


def create_app(settings: dict[str, Any]) -> Flask:
    """Return an app with lists and details of events, FAQs and users."""
    app = Flask("stock", static_folder=None)
    app.config["SQLALCHEMY_DATABASE_URI"] = settings["DATABASE_URL"]
    db.init_app(app)
    api = Api(app)
    for model, ours, kept in (
        (User, UserSchema, PUBLIC_PROFILE),
        (FaqType, FaqTypeSchema, None),
        (Faq, FaqSchema, None),
        (Event, EventSchema, None),
    ):
        _register_routes(api, model, _build_schema(model, ours, kept))
    return app


def _register_routes(api: Api, model: type, schema: type[LibrarySchema]) -> None:
    name = schema.Meta.type_
    members = {"schema": schema, "data_layer": {"session": db.session, "model": model}}
    api.route(type("List", (ResourceList,), dict(members)), f"{name}_list", f"/v1/{name}s")
    detail = type("Detail", (ResourceDetail,), {**members, "patch_schema_kwargs": {"partial": True}})
    api.route(detail, f"{name}_detail", f"/v1/{name}s/<int:id>")
    for relation, field in schema._declared_fields.items():
        if isinstance(field, Relationship):
            key = dasherize(relation)
            for suffix, url in (("", f"relationships/{key}"), ("_related", key)):
                view = type("Relation", (ResourceRelationship,), dict(members))
                api.route(view, f"{name}_{relation}{suffix}", f"/v1/{name}s/<int:id>/{url}")


def _build_schema(model: type, ours: type[ResourceSchema], kept: frozenset[str] | None) -> type[LibrarySchema]:
    """Return a schema of the library with the relationships and the attributes (those in `kept`) of our schema."""
    type_ = ours.Meta.type_
    meta = {"type_": type_, "inflect": dasherize, "self_view": f"{type_}_detail", "self_view_kwargs": {"id": "<id>"}}
    members: dict[str, Any] = {
        name: _build_field(type_, name, field)
        for name, field in ours().fields.items()
        if name != "id" and (kept is None or name in kept)
    }
    members["id"] = marshmallow.fields.Integer(as_string=True)
    members["Meta"] = type("Meta", (), {**meta, "self_view_many": f"{type_}_list", "model": model})
    return type(f"Stock{ours.__name__}", (LibrarySchema,), members)


def _build_field(type_: str, name: str, field: Any) -> Any:
    if isinstance(field, marshmallow.fields.Field) and not hasattr(field, "type_"):
        kind = next(
            (plain for our_kind, plain in MARSHMALLOW_FIELDS.items() if isinstance(field, our_kind)),
            marshmallow.fields.Raw,
        )
        return kind(required=field.required, dump_only=field.dump_only, allow_none=True)
    views = {"self_view": f"{type_}_{name}", "related_view": f"{type_}_{name}_related"}
    keys = {"self_view_kwargs": {"id": "<id>"}, "related_view_kwargs": {"id": "<id>"}}
    schema = f"Stock{''.join(part.capitalize() for part in field.type_.split('-'))}Schema"
    return Relationship(**views, **keys, many=field.many, schema=schema, type_=field.type_)
