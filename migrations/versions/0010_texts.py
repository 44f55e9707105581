"""Texts in Normalization Form C, addresses in one spelling, and an order of texts that people expect.

On a live system: rows are changed in batches and indexes built concurrently, each in a transaction of its own. What was
done stays done when it fails half-way; running it again goes on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError
from sqlalchemy.exc import IntegrityError

from app.users.emails import normalize_email

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

BATCH = 500

UNICODE_COLLATIONS = ("pg_c_utf8", "und-x-icu")
"""Those by which lower() knows more than ASCII: of PostgreSQL 17 and later, and of earlier ones built with ICU."""

MAX_KEY_PART = 200
"""Characters of each part of a sort key: the whole key must fit into an index, which takes 2,700 bytes."""

SEPARATOR, SYMBOL = "\x01", "."

PUNCTUATION = {
    **{" ": "\t\n\v\f\r\x85\u2028\u2029\u3000", "!": "_", '"': "-\u2010\u2011\u2012\u2013\u2014\u2015"},
    **{"#": ",", "$": ";:", "%": "!\u00a1?\u00bf", "&": "."},
    "'": "'\"\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a\u00ab\u00bb",
    **{"(": "([{", ")": ")]}", "*": "@*\u00b7\u2022\u2027", "+": "/\\", ",": "&#%", "-": "`^+<=>|~"},
    **{SYMBOL: "", "/": "$\u20ac\u00a3\u00a5\u00a2"},
}
"""The root collation (UTS #35) sorts spaces, punctuation and symbols, in this order, before digits: what stands for them
are the ASCII characters from space to slash. A space is a space, so that plain texts need no replacement."""

LIKE_LETTER = {"o": "\u00f8", "d": "\u0111\u00f0", "h": "\u0127", "l": "\u0142"}
EXPANSIONS = {"\u00e6": "ae", "\u0153": "oe", "\u00df": "ss"}
OWN_LETTERS = {
    **{"\u0131": "i\ufffd", "\u014b": "n\ufffd", "\u0167": "t\ufffd", "\u0259": "e\ufffd"},
    **{"\u0438\u0306": "\u0438\ufffd", "\u0456\u0308": "\u0438\ufffc", "\u0456": "\u0438\ufffb"},
    **{"\u0443\u0306": "\u0443\ufffd", "\u0454": "\u0435\ufffd", "\u0491": "\u0433"},
}
"""Letters of their own: they follow all words that begin with the letter they resemble."""

IGNORED = (
    r"[\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    r"\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f"
    r"\ufeff\x01-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]"
)
"""Marks, and characters that show nothing."""

SYMBOLS = (
    r"[\xa4\xa6-\xa9\xac\xae\xb0\xb1\xb4\xb6\xb8\xd7\xf7\u2016-\u205f\u20a0-\u20cf\u2100-\u2bff\u3001-\u303f"
    r"\U0001f000-\U0001faff]"
)

NOT_PLAIN = "[^A-Za-z0-9 ]"
NOT_LETTERS = (
    r"[\t-\r!-/:-@\[-`{-~\x80-\xbf\xd0\xd7\xd8\xf0\xf7\xf8\u0110\u0111\u0126\u0127\u0141\u0142\u2010-\u2bff\u3000-\u303f"
    r"\ufe10-\ufe6f\uff00-\uffef\U0001f000-\U0001faff]"
)
"""Punctuation, symbols, and letters that no accent is taken from."""

TEXTS = {
    "users": (
        *("first_name", "last_name", "public_name", "details", "contact", "company", "billing_contact_name"),
        *("billing_phone", "billing_state", "billing_country", "billing_tax_info", "billing_address", "billing_city"),
        *("billing_zip_code", "billing_additional_info", "language_prefrence"),
    ),
    "events": (
        *("name", "owner_name", "location_name", "searchable_location_name", "public_stream_link", "payment_country"),
        *("payment_currency", "cheque_details", "bank_details", "onsite_details", "invoice_details", "refund_policy"),
        *("chat_room_name", "description", "owner_description", "after_order_message", "code_of_conduct"),
    ),
    "faq_types": ("name",),
    "faqs": ("question", "answer"),
    "document_sets": ("title",),
    "hooks": ("name",),
    "event_images": ("name",),
}

EMAILS = {"users": "email", "events": "paypal_email"}

INDEXES = {
    "ix_events_name": ("events", "name"),
    "ix_faq_types_name": ("faq_types", "name"),
    "ix_event_images_name": ("event_images", "name"),
    "ix_users_email": ("users", "email"),
}


def upgrade() -> None:
    op.execute(_function(_unicode_collation()))
    with _autocommit():
        if context.is_offline_mode():
            context.get_context().impl.static_output("-- Rows are changed by `manage.py db upgrade` alone.")
        else:
            for table, columns in TEXTS.items():
                _normalize_texts(table, columns)
            for table, column in EMAILS.items():
                _normalize_emails(table, column)
        for name, (table, column) in INDEXES.items():
            # One that failed half-way is there, and not valid.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f'CREATE INDEX CONCURRENTLY {name} ON {table} ((text_sort_key({column}) COLLATE "C"), id)')


def downgrade() -> None:
    """Texts stay as they are: nothing knows how they were."""
    with _autocommit():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute("DROP FUNCTION IF EXISTS text_sort_key(text)")


@contextmanager
def _autocommit() -> Iterator[None]:
    """Each statement is a transaction; an index waits for older transactions without being in anybody's way."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        yield
        op.execute("SET lock_timeout = '10s'")


def _unicode_collation() -> str:
    if context.is_offline_mode():
        return UNICODE_COLLATIONS[0]
    found = set(op.get_bind().scalars(sa.text("SELECT collname FROM pg_collation WHERE collencoding IN (-1, 6)")))
    for name in UNICODE_COLLATIONS:
        if name in found:
            return name
    raise CommandError("this database has no Unicode collation: PostgreSQL 17 or later is needed, or 15 or 16 with ICU")


def _function(collation: str) -> str:
    """The SQL of text_sort_key: compared by bytes, its values sort as the root collation of ICU does.

    First by letters, without regard to accents and case, then by accents, then by case; it needs no ICU, which not
    every PostgreSQL is built with, and does not change when a library is upgraded. What costs time, translate() above
    all, is done for texts that need it.
    """
    start = f"left(value, {MAX_KEY_PART})"
    lower = f'lower({start} COLLATE "{collation}")'
    folded = f'lower(normalize({start}, NFKD) COLLATE "{collation}")'
    for letter, place in OWN_LETTERS.items():
        folded = f"replace({folded}, {_literal(letter)}, {_literal(place)})"
    folded = f"regexp_replace({folded}, {_literal(IGNORED)}, '', 'g')"
    for letter, letters in EXPANSIONS.items():
        folded = f"replace({folded}, {_literal(letter)}, {_literal(letters)})"
    replaced = {letter: base for base, letters in (*PUNCTUATION.items(), *LIKE_LETTER.items()) for letter in letters}
    translated = f"translate({folded}, {_literal(''.join(replaced))}, {_literal(''.join(replaced.values()))})"
    translated = f"regexp_replace({translated}, {_literal(SYMBOLS)}, {_literal(SYMBOL)}, 'g')"
    separator = _literal(SEPARATOR)
    return f"""
        CREATE OR REPLACE FUNCTION text_sort_key(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN CASE
            WHEN value !~ {_literal(NOT_PLAIN)} THEN {lower}
            WHEN value ~ {_literal(NOT_LETTERS)} THEN left({translated}, {MAX_KEY_PART})
            ELSE left({folded}, {MAX_KEY_PART})
        END || {separator} || {lower} || {separator} || CASE WHEN {start} = {lower} THEN '' ELSE {start} END
    """


def _literal(text: str) -> str:
    """A text as SQL, of letters, digits and escapes alone: SQLAlchemy means something by ":" and "%"."""
    escaped = "".join(
        character if character.isascii() and character.isalnum() else f"\\U{ord(character):08x}" for character in text
    )
    return f"E'{escaped}'"


def _normalize_texts(table: str, columns: tuple[str, ...]) -> None:
    # In HTML, a ">" and this character after it would become one: the tag would have no end.
    keeps = {name: f"position(E'\\u0338' in {name}) > 0" for name in columns}
    differs = {name: f"({name} IS NOT NFC NORMALIZED AND NOT {keeps[name]})" for name in columns}
    changes = ", ".join(
        f"{name} = CASE WHEN {differs[name]} THEN normalize({name}, NFC) ELSE {name} END" for name in columns
    )
    listing = sa.text(
        f"SELECT id FROM {table} WHERE id > :after AND ({' OR '.join(differs.values())}) ORDER BY id LIMIT {BATCH}"
    )
    changing = sa.text(f"UPDATE {table} SET {changes} WHERE id = ANY(:ids)")
    kept: list[int] = []
    for rows in _batches(listing):
        ids = [row.id for row in rows]
        if not _changed(changing, ids=ids):
            kept += [id_ for id_ in ids if not _changed(changing, ids=[id_])]
    _report(kept, table, "another row has the same name in Normalization Form C")


def _normalize_emails(table: str, column: str) -> None:
    listing = sa.text(
        f"SELECT id, {column} AS email FROM {table} WHERE id > :after AND {column} IS NOT NULL ORDER BY id LIMIT {BATCH}"
    )
    changing = sa.text(f"UPDATE {table} SET {column} = :new WHERE id = :id AND {column} = :old")
    kept: list[int] = []
    for rows in _batches(listing):
        for row in rows:
            new = _normal_email(row.email)
            if new != row.email and not _changed(changing, id=row.id, old=row.email, new=new):
                kept.append(row.id)
    _report(kept, table, "another user has this e-mail address in its one spelling")


def _normal_email(email: str) -> str:
    try:
        return normalize_email(email)
    except ValueError:
        return email


def _batches(listing: sa.TextClause) -> Iterator[Any]:
    after = 0
    while rows := op.get_bind().execute(listing, {"after": after}).all():
        yield rows
        after = rows[-1].id


def _changed(statement: sa.TextClause, **values: Any) -> bool:
    try:
        op.get_bind().execute(statement, values)
    except IntegrityError:
        return False
    return True


def _report(kept: list[int], table: str, why: str) -> None:
    """One line for the rows that stay as they are, without what people wrote."""
    if kept:
        context.config.print_stdout(f"warning: {table} {', '.join(map(str, kept))} unchanged: {why}")
