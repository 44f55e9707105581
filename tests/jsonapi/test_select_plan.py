"""Select plans for features that no resource uses yet: many-to-many and self references, fields computed in Python."""

from collections.abc import Iterator
from typing import Any

import marshmallow
import pytest
from flask import Flask
from sqlalchemy import Column, ForeignKey, Table, Text, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from app.database import open_transaction
from app.extensions import db
from app.jsonapi.current_user import ANONYMOUS_USER, Role
from app.jsonapi.fields import Relationship, ResourceSchema
from app.jsonapi.fields import Text as TextField
from app.jsonapi.inflection import dasherize
from app.jsonapi.permissions import AccessContext, Permissions, VisibilityScope, anyone, every_row
from app.jsonapi.query_params import LIST_FAMILIES, parse_query
from app.jsonapi.reader import CollectionScope, ResourceReader
from app.jsonapi.resource_type import TYPES, ResourceType


class Base(DeclarativeBase):
    """Base of tables without a migration."""


friendships = Table(
    "friendships",
    Base.metadata,
    Column("person_id", ForeignKey("people.id"), primary_key=True),
    Column("friend_id", ForeignKey("people.id"), primary_key=True),
)


class Person(Base):
    """A person with a manager, who is a person too, and friends."""

    __tablename__ = "people"

    id: Mapped[int] = mapped_column(primary_key=True)
    first_name: Mapped[str] = mapped_column(Text)
    last_name: Mapped[str] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(Text)
    manager_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))

    manager: Mapped["Person | None"] = relationship(
        remote_side=lambda: Person.id, lazy="raise", back_populates="reports"
    )
    reports: Mapped[list["Person"]] = relationship(lazy="raise", back_populates="manager")
    friends: Mapped[list["Person"]] = relationship(
        secondary=friendships,
        primaryjoin=lambda: Person.id == friendships.c.person_id,
        secondaryjoin=lambda: Person.id == friendships.c.friend_id,
        lazy="raise",
    )


class PersonSchema(ResourceSchema):
    """A name in parts, in SQL and in Python."""

    class Meta:
        type_ = "person"
        inflect = dasherize

    first_name = TextField()
    last_name = TextField()
    secret = TextField(load_only=True)
    shouted = TextField(dump_only=True)
    full_name = marshmallow.fields.Function(lambda row: f"{row.first_name} {row.last_name}", dump_only=True)

    manager = Relationship("person")
    reports = Relationship("person", many=True, dump_only=True)
    friends = Relationship("person", many=True)


@pytest.fixture(scope="module")
def person() -> Iterator[ResourceType]:
    """Return a resource type for these tests only."""
    yield ResourceType(
        schema=PersonSchema,
        model=Person,  # type: ignore[arg-type]  # a model, though not one of the app's
        plural="people",
        noun="a person",
        description="People who know one another.",
        permissions=Permissions(visible=every_row, list=anyone, read=anyone),
        computed={"shouted": lambda table: func.upper(table.c.first_name)},
    )
    del TYPES["person"]


@pytest.fixture
def people(app: Flask) -> Iterator[None]:
    """Ada manages Bob and Cy; Bob is a friend of both, and Cy of himself."""
    with app.app_context():
        Base.metadata.create_all(db.engine)
        with db.engine.begin() as connection:
            for id_, name, manager in ((1, "Ada", None), (2, "Bob", 1), (3, "Cy", 1)):
                row = {"id": id_, "first_name": name, "last_name": "Ng", "secret": "hidden", "manager_id": manager}
                connection.execute(Person.__table__.insert().values(row))  # type: ignore[attr-defined]  # a Table
            pairs = [{"person_id": one, "friend_id": other} for one, other in ((2, 1), (2, 3), (3, 3))]
            connection.execute(friendships.insert().values(pairs))
        yield
        Base.metadata.drop_all(db.engine)


def get_list(type_: ResourceType, query: str) -> dict[str, Any]:
    """Return the document of the list."""
    access = AccessContext(ANONYMOUS_USER, VisibilityScope(Role.ANONYMOUS))
    with open_transaction(is_read=True):
        reader = ResourceReader(access, parse_query(query.encode(), type_, ANONYMOUS_USER, LIST_FAMILIES))
        return reader.list_document(type_, "/v1/people", CollectionScope())


@pytest.mark.usefixtures("people")
def test_a_field_that_no_column_says_is_made_by_marshmallow(person: ResourceType) -> None:
    ada, *_ = get_list(person, "")["data"]

    assert ada["attributes"] == {"first-name": "Ada", "last-name": "Ng", "shouted": "ADA", "full-name": "Ada Ng"}


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(("fields", "shown"), [("full-name", {"full-name": "Ada Ng"}), ("shouted", {"shouted": "ADA"})])
def test_sparse_fields_choose_among_computed_ones(person: ResourceType, fields: str, shown: dict[str, str]) -> None:
    ada, *_ = get_list(person, f"fields[person]={fields}")["data"]

    assert ada["attributes"] == shown


@pytest.mark.usefixtures("people")
def test_a_type_may_lead_to_itself(person: ResourceType) -> None:
    document = get_list(person, "include=manager,reports.manager&filter[first-name]=Bob")

    (bob,) = document["data"]
    assert bob["relationships"]["manager"]["data"] == {"type": "person", "id": "1"}
    assert bob["relationships"]["reports"]["data"] == []
    assert [each["id"] for each in document["included"]] == ["1"]


@pytest.mark.usefixtures("people")
def test_primary_data_is_not_included_again(person: ResourceType) -> None:
    document = get_list(person, "include=friends,manager,reports")

    assert document["included"] == []
    friends = {each["id"]: each["relationships"]["friends"]["data"] for each in document["data"]}
    assert [item["id"] for item in friends["2"]] == ["1", "3"]
    assert [item["id"] for item in friends["3"]] == ["3"]


@pytest.mark.usefixtures("people")
def test_a_filter_goes_through_a_type_that_leads_to_itself(person: ResourceType) -> None:
    term = '[{"name":"manager","op":"has","val":{"name":"reports","op":"any","val":{"name":"id","op":"eq","val":3}}}]'
    found = get_list(person, f"filter={term.replace(' ', '')}&sort=-manager.first-name,-id")

    assert [each["id"] for each in found["data"]] == ["3", "2"]
    assert [each["id"] for each in get_list(person, "filter[manager]=1")["data"]] == ["2", "3"]
