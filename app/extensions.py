"""Flask extensions and the declarative base, independent of the app: the factory initializes them."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flask_cors import CORS
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import BigInteger, DateTime, MetaData, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry


class Base(DeclarativeBase):
    """Base of all models: constraints have names, so that migrations can drop them; timestamps have a time zone."""

    # A registry, not the two class attributes: Flask-SQLAlchemy copies this class, and SQLAlchemy rejects a second
    # type_annotation_map.
    registry = registry(
        metadata=MetaData(
            naming_convention={
                "ix": "ix_%(table_name)s_%(column_0_N_name)s",
                "uq": "uq_%(table_name)s_%(column_0_N_name)s",
                "ck": "ck_%(table_name)s_%(constraint_name)s",
                "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
                "pk": "pk_%(table_name)s",
            }
        ),
        type_annotation_map={datetime: DateTime(timezone=True), str: Text(), int: BigInteger()},
    )


db = SQLAlchemy(model_class=Base)
if TYPE_CHECKING:
    Model = Base  # db.Model is created at run time, so a type checker cannot use it
else:
    Model = db.Model


def false_column() -> Mapped[bool]:
    """Return a boolean column with the default false."""
    return mapped_column(default=False, server_default=text("false"))


migrate = Migrate(directory=str(Path(__file__).resolve().parent.parent / "migrations"))
cors = CORS()
limiter = Limiter(key_func=get_remote_address)
