"""Indexes: with 100,000 rows per table no statement reads many more rows than the response has (EXPLAIN ANALYZE)."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import md5
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask
from psycopg import sql
from sqlalchemy import Column, Table, Text, Uuid

from app.database import open_transaction
from app.documents.resolver import MAX_DOCUMENTS, TooManyDocuments, resolve_documents
from app.extensions import db
from app.factory import make_blueprint
from app.jsonapi.base_view import View
from app.jsonapi.current_user import CurrentUser
from app.jsonapi.cursors import PROFILE
from app.jsonapi.permissions import AccessContext, VisibilityScope, anyone
from app.jsonapi.relationship_views import RelatedList, RelationshipMany, RelationView
from app.jsonapi.resource_type import TYPES
from app.jsonapi.resources import ResourceList
from app.users import login_sessions
from tests.dataset import JSONAPI, ApiClient, get_data

pytestmark = [pytest.mark.faults, pytest.mark.long]

ROW_COUNT = 100_000
BUSY_ID = ROW_COUNT // 2
"""Id of the user with 100 events, the event with a team of 200, and the FAQ type; the last two have 1,000 FAQs.

Also of the document set of that user with 100 events, FAQs and uploads each; the user has 1,000 sets and uploads.
"""

BUSY_JOB = str(UUID(md5(str(BUSY_ID).encode(), usedforsecurity=False).hexdigest()))
"""Id of the job with 1,000 events and artifacts, of the busy user, who has 1,000 jobs.

Also of the treatment with 1,000 regions and similarities, of the busy user and the busy document set.
"""

CHILD_COUNT = 1_000
"""Children of a busy parent; a generic plan, made for the average parent with 20 children, may sort all of them."""

MAX_COUNTED_ROWS = 20_000
"""Max rows and blocks that a count may read: it stops at 10,001 visible rows."""

MAX_COUNT_BLOCKS = 200
"""Blocks of 8 KiB that the count of a whole list may touch where no team is looked for."""

FILL = """
    INSERT INTO users (id, email, password_hash, is_admin, is_profile_public, deleted_at, last_accessed_at)
    SELECT n, 'user' || n || '@example.com', '!', n = 1, n % 2 = 0, CASE n % 10 WHEN 9 THEN now() END, now()
    FROM generate_series(1, {rows}) n;

    INSERT INTO events (id, identifier, name, timezone, starts_at, ends_at, state, privacy, owner_id, pending_owner_id,
                        deleted_at)
    SELECT n, 'e' || lpad(to_hex(n), 7, '0'), 'Event ' || n, 'UTC', starts_at, starts_at + interval '1 day',
           CASE n % 10 WHEN 3 THEN 'draft' ELSE 'published' END, CASE n % 10 WHEN 5 THEN 'private' ELSE 'public' END,
           CASE n % 1000 WHEN 0 THEN {busy} ELSE n END, CASE n % 50 WHEN 1 THEN n + 1 END,
           CASE n % 10 WHEN 7 THEN now() END
    FROM generate_series(1, {rows}) n,
         LATERAL (SELECT now() + (n - 0.9 * {rows}) * interval '6 hours' AS starts_at) nine_in_ten_are_over;

    INSERT INTO event_roles (event_id, user_id, role) SELECT id, owner_id, 'owner' FROM events;
    INSERT INTO event_roles (event_id, user_id, role)
    SELECT {busy}, {busy} + n, CASE n % 20 WHEN 0 THEN 'organizer' ELSE 'coorganizer' END
    FROM generate_series(-1000, 1000, 10) n WHERE n <> 0;

    INSERT INTO faq_types (id, name, event_id, deleted_at)
    SELECT n, 'Type ' || n, CASE n % 100 WHEN 0 THEN {busy} ELSE n % 5000 END, CASE n % 10 WHEN 7 THEN now() END
    FROM generate_series(1, {rows}) n;

    INSERT INTO faqs (id, question, answer, position, event_id, faq_type_id, deleted_at)
    SELECT n, 'Question ' || n, repeat('An answer. ', 8), n / 100 % 8,
           CASE n % 100 WHEN 0 THEN {busy} ELSE n % 5000 END,
           CASE n % 100 WHEN 0 THEN {busy} WHEN 1 THEN NULL ELSE n END,
           CASE n % 10 WHEN 7 THEN now() END
    FROM generate_series(1, {rows}) n;

    INSERT INTO event_images (id, event_id, name, storage_key, media_type, width, height, size, sha256, source_sha256,
                              deleted_at)
    SELECT n, CASE n % 100 WHEN 0 THEN {busy} ELSE n % 5000 END, n || '.jpg', 'images/' || md5(n::text) || '.jpg',
           'image/jpeg', 800, 600, 100000, md5(n::text), md5(n::text), CASE n % 10 WHEN 7 THEN now() END
    FROM generate_series(1, {rows}) n;

    INSERT INTO sign_ins (id, user_id) SELECT md5(n::text)::uuid, n FROM generate_series(1, {rows}) n;
    INSERT INTO refresh_tokens (token_hash, sign_in_id, expires_at)
    SELECT sha256(n::text::bytea), md5(n::text)::uuid, now() + interval '30 days' FROM generate_series(1, {rows}) n;
    INSERT INTO idempotency_keys (owner_id, key, fingerprint)
    SELECT n, 'key ' || n, sha256(n::text::bytea) FROM generate_series(1, {rows}) n;

    INSERT INTO jobs (id, kind, parameters, state, trigger, owner_id, event_id, retry_of_id, fingerprint, finished_at)
    SELECT md5(n::text)::uuid, CASE n % 1000 WHEN 1 THEN 'sleep-once' ELSE 'sleep' END, '{{}}',
           CASE n % 10000 WHEN 0 THEN 'queued' WHEN 50 THEN 'failed' ELSE 'succeeded' END, 'api',
           CASE n % 100 WHEN 0 THEN {busy} ELSE n END, CASE n % 100 WHEN 0 THEN {busy} ELSE n END,
           md5(CASE n % 100 WHEN 0 THEN {busy} ELSE n % 2000 + 1 END::text)::uuid, decode(md5(n::text), 'hex'),
           CASE n % 10000 WHEN 0 THEN NULL ELSE now() END
    FROM generate_series(1, {rows}) n;
    INSERT INTO job_attempts (job_id, number, worker) SELECT id, 1, 'w' FROM jobs;
    INSERT INTO job_events (id, job_id, seq, state)
    SELECT md5(n::text)::uuid, md5(CASE n % 100 WHEN 0 THEN {busy} ELSE n END::text)::uuid, n, 'running'
    FROM generate_series(1, {rows}) n;
    INSERT INTO job_artifacts (id, job_id, name, media_type, size, sha256, storage_key)
    SELECT md5(n::text)::uuid, md5(CASE n % 100 WHEN 0 THEN {busy} ELSE n END::text)::uuid, n, 'text/plain', 1, '', ''
    FROM generate_series(1, {rows}) n;

    INSERT INTO hooks (id, kind, parameters, token_hash, owner_id, event_id, deleted_at)
    SELECT n, 'sleep', '{{}}', sha256(n::text::bytea), CASE n % 100 WHEN 0 THEN {busy} ELSE n END,
           CASE n % 100 WHEN 0 THEN {busy} ELSE n END, CASE n % 10 WHEN 7 THEN now() END
    FROM generate_series(1, {rows}) n;

    INSERT INTO uploads (id, storage_key, media_type, width, height, size, owner_id, deleted_at)
    SELECT n, 'uploads/' || md5(n::text) || '.jpg', 'image/jpeg', 800, 600, 100000,
           CASE n % 100 WHEN 0 THEN {busy} ELSE n END, CASE n % 10 WHEN 7 THEN now() END
    FROM generate_series(1, {rows}) n;
    INSERT INTO document_sets (id, title, owner_id, deleted_at)
    SELECT n, 'Set ' || n, CASE n % 100 WHEN 0 THEN {busy} ELSE n END, CASE n % 10 WHEN 7 THEN now() END
    FROM generate_series(1, {rows}) n;
    INSERT INTO document_set_events (document_set_id, event_id)
    SELECT CASE n % 1000 WHEN 0 THEN {busy} ELSE n % 5000 END, n FROM generate_series(1, {rows}) n;
    INSERT INTO document_set_faqs (document_set_id, faq_id)
    SELECT CASE n % 1000 WHEN 0 THEN {busy} ELSE n % 5000 END, n FROM generate_series(1, {rows}) n;
    INSERT INTO document_set_uploads (document_set_id, upload_id)
    SELECT CASE n % 1000 WHEN 0 THEN {busy} ELSE n % 5000 END, n FROM generate_series(1, {rows}) n;

    INSERT INTO treatments (id, task_type, api_parameters, document_set_id, requested_by_id, retry_of_id, deleted_at)
    SELECT md5(n::text)::uuid, 'regions', '{{}}', CASE n % 100 WHEN 0 THEN {busy} ELSE n END,
           CASE n % 100 WHEN 0 THEN {busy} ELSE n END,
           md5(CASE n % 100 WHEN 0 THEN {busy} ELSE n % 2000 + 1 END::text)::uuid, CASE n % 10 WHEN 7 THEN now() END
    FROM generate_series(1, {rows}) n;
    INSERT INTO regions (id, treatment_id, document, source, x, y, width, height)
    SELECT n, md5(CASE n % 100 WHEN 0 THEN {busy} ELSE n END::text)::uuid, 'event-1-image', 'a', 1, 1, 1, 1
    FROM generate_series(1, {rows}) n;
    INSERT INTO similarities (id, treatment_id, document, a, b, score)
    SELECT n, md5(CASE n % 100 WHEN 0 THEN {busy} ELSE n END::text)::uuid, 'event-1-image', n, n, 1
    FROM generate_series(1, {rows}) n;
    INSERT INTO job_documents (job_id, uid, position, type, resource_type, resource_id)
    SELECT md5(n::text)::uuid, 'event-' || n, 1, 'event', 'event', n FROM generate_series(1, {rows}) n;
    INSERT INTO remote_runs (job_id, attempt, task, token_hash)
    SELECT md5(n::text)::uuid, 1, 'regions', sha256(n::text::bytea) FROM generate_series(1, {rows}) n;
    INSERT INTO job_callbacks (id, job_id, attempt, message_id, event, payload, applied_at)
    SELECT n, md5(n::text)::uuid, 1, n, 'PROGRESS', '{{}}', now() FROM generate_series(1, {rows}) n;
    INSERT INTO result_files (id, job_id, attempt, number, doc_id, url)
    SELECT md5(n::text)::uuid, md5(n::text)::uuid, 1, 1, 'event-1', n FROM generate_series(1, {rows}) n;
"""


def build_fill_statement(table: Table) -> str:
    """Return the statement that fills the table of a resource that FILL does not contain."""
    values = {
        column.name: _fill_expression(column)
        for column in table.columns
        if column.primary_key
        or column.foreign_keys
        or column.name == "deleted_at"
        or not (column.nullable or column.server_default)
    }
    names, made = ", ".join(values), ", ".join(values.values())
    return f"INSERT INTO {table.name} ({names}) SELECT {made} FROM generate_series(1, {ROW_COUNT}) n"  # noqa: S608  # names from the models


def _fill_expression(column: Column[Any]) -> str:
    if column.name == "deleted_at":
        return "CASE n % 10 WHEN 7 THEN now() END"
    number = f"CASE n % 100 WHEN 0 THEN {BUSY_ID} ELSE n % 5000 END" if column.foreign_keys else "n"
    if isinstance(column.type, Uuid):
        return f"md5(({number})::text)::uuid"
    return "'Text ' || n" if isinstance(column.type, Text) else number


CALLERS = {"anonymous": 0, "organizer": BUSY_ID + 20, "owner": BUSY_ID, "admin": 1}

ROUTES_WITHOUT_PROOF = {
    "/v1/job-artifacts/<id>/file": "a file, selected like its artifact",
    "/v1/job-kinds": "no database",
    "/v1/job-kinds/<id>": "no database",
    "/v1/jobs/<id>/documents/<uid>": "for processors only, by its signature",
    "/v1/jobs/<id>/progress": "a stream, which reads repeatedly",
}


def _find_views() -> dict[str, type[View]]:
    """Return the resource views below /v1 that support GET, by their rules."""
    bare = Flask("routes", static_folder=None)
    bare.register_blueprint(make_blueprint())
    views = {
        rule.rule: bare.view_functions[rule.endpoint]
        for rule in bare.url_map.iter_rules()
        if "GET" in (rule.methods or ())
    }
    return {rule: view.view_class for rule, view in views.items() if rule not in ROUTES_WITHOUT_PROOF}


VIEWS = _find_views()

OTHER_MIDDLES = {
    "/v1/events/upcoming": 95_000,
    "/v1/events/<id>/organizers": BUSY_ID + 20,
    "/v1/events/<id>/relationships/organizers": BUSY_ID + 20,
    "/v1/events/<id>/coorganizers": BUSY_ID + 10,
    "/v1/events/<id>/relationships/coorganizers": BUSY_ID + 10,
}


def _middle_id(rule: str, view: type[View]) -> int | str:
    shown = view.relation.target if issubclass(view, RelationView) else view._data_layer.type
    return OTHER_MIDDLES.get(rule) or (BUSY_JOB if shown.has_uuids else BUSY_ID)


LISTS = {
    rule: _middle_id(rule, view)
    for rule, view in VIEWS.items()
    if issubclass(view, ResourceList | RelatedList | RelationshipMany)
}
"""Paths of all lists, each with the id of a row in its middle."""

SINGLE_RESOURCE_PATHS = (*(rule for rule in VIEWS if rule not in LISTS), "/v1/users/user-details/get-user-id")


def build_related_filter(relation: str) -> str:
    """Return a filter by the id of a related resource."""
    return f'filter=[{{"name":"{relation}","op":"has","val":{{"name":"id","op":"eq","val":{BUSY_ID}}}}}]'


QUERIES = (
    "/v1/events/e000c355",  # a private one
    "/v1/events?include=faqs",
    "/v1/events?include=faq-types.faqs,owner",
    "/v1/events?include=organizers,coorganizers",
    "/v1/events/<id>?include=owner,organizers,coorganizers",
    "/v1/events/<id>/faqs?include=event,faq-type",
    "/v1/events/<id>?include=images",
    "/v1/events?include=images",
    "/v1/event-images?include=event.owner",
    "/v1/faq-types?include=event,faqs",
    "/v1/faqs?include=event.owner,faq-type",
    "/v1/users/<id>?include=events",
    "/v1/users/<id>/events?include=owner",
    "/v1/events?filter[id]=50000,50002",
    "/v1/jobs?filter[state]=failed",
    "/v1/jobs?filter[state]=queued",
    "/v1/jobs?filter[kind]=sleep-once",
    f"/v1/jobs?filter[event]={BUSY_ID}",
    f"/v1/jobs?filter[owner]={BUSY_ID}",
    "/v1/jobs?include=owner,event,retry-of",
    "/v1/jobs?include=events,artifacts&page[size]=1&filter[state]=queued",
    f"/v1/events?{build_related_filter('owner')}",
    f"/v1/events?filter[pending-owner]={BUSY_ID}",
    "/v1/events?include=pending-owner",
    f"/v1/faqs?{build_related_filter('event')}",
    f"/v1/faqs?{build_related_filter('faq-type')}",
    f"/v1/faq-types?{build_related_filter('event')}",
    f"/v1/event-images?{build_related_filter('event')}",
    "/v1/events?get_trashed=true",
    "/v1/events/<id>/faqs?get_trashed=true",
    "/v1/faqs?get_trashed=true",
    "/v1/faq-types?get_trashed=true",
    "/v1/event-images?get_trashed=true",
    "/v1/hooks?get_trashed=true",
    "/v1/hooks?include=owner,event",
    f"/v1/hooks?filter[event]={BUSY_ID}",
    "/v1/users?get_trashed=true",
    "/v1/uploads?get_trashed=true",
    "/v1/uploads?include=owner",
    f"/v1/uploads?filter[owner]={BUSY_ID}",
    "/v1/document-sets?get_trashed=true",
    f"/v1/document-sets?filter[owner]={BUSY_ID}",
    "/v1/document-sets?include=owner,events&page[size]=5",
    "/v1/document-sets/<id>?include=faqs,uploads",
    "/v1/document-sets/<id>?include=events",
    "/v1/treatments?get_trashed=true",
    "/v1/treatments?include=document-set,job,requested-by,retry-of",
    "/v1/treatments/<id>?include=regions",
    "/v1/treatments/<id>?include=similarities",
    f"/v1/treatments?filter[document-set]={BUSY_ID}",
)


OWNER_LIST_PATHS = tuple(type_.path for type_ in TYPES.values() if type_.permissions.list is not anyone)
"""Lists in which only the owner and admins read a resource."""


def list_path_callers(*paths: str) -> list[Any]:
    """Return each path with each caller who can read it."""
    return [_case_id(path, caller) for path in paths for caller in _list_callers(path)]


def _list_callers(path: str) -> tuple[str, ...]:
    is_owned = path.startswith(OWNER_LIST_PATHS)
    if path == "/v1/users" or "get_trashed" in path or (is_owned and "?filter" in path):
        return ("admin",)  # for an owner, a filter of their own rows may read all of them
    if "filter[pending-owner]" in path:
        return tuple(caller for caller in CALLERS if caller != "anonymous")
    return ("owner", "admin") if is_owned else tuple(CALLERS)


def get_busy_id(path: str) -> int | str:
    """Return the id of the busy row for a path."""
    return BUSY_JOB if path.startswith(("/v1/job", "/v1/treatments")) else BUSY_ID


def _case_id(path: str, caller: str) -> Any:
    return pytest.param(path, caller, id=f"{path}-{caller}")


@dataclass(frozen=True)
class Statement:
    """A statement as the driver received it."""

    cursor: type[psycopg.Cursor[Any]]
    text: str
    values: Any

    def literals(self) -> list[sql.Literal]:
        """Return the values in the order of the parameters."""
        if isinstance(self.values, Mapping):
            names = dict.fromkeys(re.findall(r"%\((\w+)\)s", self.text))
            return [sql.Literal(self.values[name]) for name in names]
        return [sql.Literal(value) for value in self.values or ()]


class QueryPlan:
    """Output of EXPLAIN ANALYZE for one execution."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.blocks: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        self.steps = [*_steps(plan, 0)]

    @property
    def max_rows(self) -> float:
        """Return the max rows that one step read or returned."""
        return max(map(_count_rows, self.steps))

    def __str__(self) -> str:
        return "\n".join(map(_format_step, self.steps))


def _steps(plan: dict[str, Any], depth: int) -> Iterator[dict[str, Any]]:
    yield {**plan, "depth": depth}
    for below in plan.get("Plans", ()):
        yield from _steps(below, depth + 1)


def _count_rows(step: dict[str, Any]) -> float:
    removed: float = sum(rows for name, rows in step.items() if name.startswith("Rows Removed by"))
    return float((step["Actual Rows"] + removed) * step["Actual Loops"])


def _format_step(step: dict[str, Any]) -> str:
    shown = ("Node Type", "Relation Name", "Index Name", "Index Cond", "Filter", "Sort Key")
    facts = " ".join(str(step[name]) for name in shown if name in step)
    return f"{'  ' * step['depth']}{_count_rows(step):.0f} rows: {facts}"


class StatementExplainer:
    """Explains statements on a connection of the app."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def check(self, statement: Statement, rows: int, blocks: int, *, after: str = "") -> None:
        """Check that no step reads more than `rows`, and that all together read at most `blocks` of 8 KiB."""
        for more, explained in zip((0, CHILD_COUNT), self.explain(statement, after), strict=True):
            problem = f"{explained.max_rows:.0f} rows, {explained.blocks} blocks\n{statement.text}\n\n{explained}"
            assert explained.max_rows <= rows + more, problem
            assert explained.blocks <= blocks + more, problem

    def explain(self, statement: Statement, after: str) -> tuple[QueryPlan, QueryPlan]:
        """Return the custom plan for these values, and the plan that PostgreSQL uses after five executions."""
        with self.connection.transaction(force_rollback=True):
            self._run(f"DEALLOCATE ALL; {after}")
            statement.cursor(self.connection).execute(statement.text, statement.values, prepare=True)
            ((name,),) = self._run("SELECT name FROM pg_prepared_statements")
            call = sql.SQL("EXECUTE {}").format(sql.Identifier(name))
            if literals := statement.literals():
                call += sql.SQL("({})").format(sql.SQL(", ").join(literals))
            made = self._run_explain(call)
            for _ in range(5):
                self._run(sql.SQL("EXPLAIN ") + call)
            return made, self._run_explain(call)

    def _run_explain(self, call: sql.Composed) -> QueryPlan:
        (((found,),),) = self._run(sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ") + call)
        return QueryPlan(found["Plan"])

    def _run(self, query: Any) -> list[Any]:
        cursor = self.connection.execute(query, prepare=False)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(autouse=True)
def _clean() -> None:
    """Override the cleanup: the tests only read, and `full_database` truncates the tables after the last one."""


@pytest.fixture(scope="module")
def full_database(app: Flask, servers: dict[str, str]) -> Iterator[psycopg.Connection[Any]]:
    """Fill each table with 100,000 rows, and yield a connection to the database."""
    tables = sql.SQL(", ").join(sql.Identifier(name) for name in db.metadata.tables)
    with psycopg.connect(servers["DATABASE_URL"], autocommit=True, options="-c lock_timeout=10s") as connection:
        connection.execute(
            "SET session_replication_role = replica"
        )  # skips the foreign key checks, which take two seconds
        connection.execute(FILL.format(rows=ROW_COUNT, busy=BUSY_ID))
        for type_ in TYPES.values():
            if f"INTO {type_.table.name} " not in FILL:
                connection.execute(build_fill_statement(type_.table))
        connection.execute("SET default_statistics_target = 1000")  # samples every row, so that plans do not vary
        connection.execute("VACUUM ANALYZE")
        yield connection
        connection.execute(sql.SQL("TRUNCATE {}").format(tables))


@pytest.fixture(scope="module")
def database(app: Flask, full_database: psycopg.Connection[Any]) -> Iterator[StatementExplainer]:
    """Yield an explainer on a connection of the app, with its settings."""
    with app.app_context():
        pooled = db.engine.raw_connection()
    assert isinstance(pooled.driver_connection, psycopg.Connection)
    yield StatementExplainer(pooled.driver_connection)
    pooled.invalidate()


@pytest.fixture(scope="module")
def callers(app: Flask, full_database: psycopg.Connection[Any]) -> dict[str, ApiClient]:
    """Return clients of an anonymous user, a member of the team of the busy event, its owner, and an admin."""
    with app.app_context():
        tokens = {
            name: login_sessions.create_session(id_).access_token if id_ else None for name, id_ in CALLERS.items()
        }
        db.session.commit()
    return {name: ApiClient(app.test_client(), token) for name, token in tokens.items()}


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[Statement]:
    """Record the SELECT statements that the driver executes."""
    asked: list[Statement] = []
    execute = psycopg.Cursor.execute

    def note(cursor: Any, query: Any, params: Any = None, **more: Any) -> Any:
        if isinstance(query, str) and query.startswith("SELECT"):
            asked.append(Statement(type(cursor), query, params))
        return execute(cursor, query, params, **more)

    monkeypatch.setattr(psycopg.Cursor, "execute", note)
    return asked


Prove = Callable[[str, str], None]


@pytest.fixture
def check_statements(statements: list[Statement], database: StatementExplainer, callers: dict[str, ApiClient]) -> Prove:
    """Return a function that requests a path as a caller and checks all its statements."""

    def check_statements(path: str, caller: str) -> None:
        statements.clear()
        answer = callers[caller].get(path.replace("<id>", str(get_busy_id(path))))
        asked = [*statements]
        assert answer.status_code == 200, answer.text
        assert asked
        shown = count_resources(answer.get_json(force=True))
        for statement in asked:
            is_count = statement.text.startswith("SELECT count(")
            rows, blocks = (MAX_COUNTED_ROWS, MAX_COUNTED_ROWS) if is_count else (100 + 10 * shown, 400 + 20 * shown)
            database.check(statement, rows, blocks)

    return check_statements


def count_resources(document: dict[str, Any]) -> int:
    """Return the number of resources in a document."""
    primary = document.get("data", {})
    return (len(primary) if isinstance(primary, list) else 1) + len(document.get("included", ()))


@pytest.mark.parametrize(("path", "caller"), list_path_callers(*LISTS, *SINGLE_RESOURCE_PATHS, *QUERIES))
def test_an_answer_reads_little_more_than_it_shows(check_statements: Prove, path: str, caller: str) -> None:
    check_statements(path, caller)


@pytest.mark.parametrize("caller", ["anonymous", "admin"])
@pytest.mark.parametrize("path", ["/v1/events", "/v1/faqs", "/v1/faq-types", "/v1/event-images"])
def test_count_of_a_list_reads_indexes_only(
    statements: list[Statement], database: StatementExplainer, callers: dict[str, ApiClient], path: str, caller: str
) -> None:
    assert callers[caller].get(path).status_code == 200
    (count,) = [each for each in statements if each.text.startswith("SELECT count(")]

    for plan in database.explain(count, after=""):
        assert {step["Node Type"] for step in plan.steps if "Scan" in step["Node Type"]} == {"Index Only Scan"}, str(
            plan
        )
        assert plan.blocks <= MAX_COUNT_BLOCKS, str(plan)


@pytest.mark.parametrize(("path", "caller"), list_path_callers(*LISTS))
def test_a_page_in_the_middle_reads_no_more_than_the_first(
    check_statements: Prove, callers: dict[str, ApiClient], path: str, caller: str
) -> None:
    # The same rows in the same order.
    items = path.replace("/relationships", "").replace("<id>", str(get_busy_id(path)))
    profile = f'{JSONAPI}; profile="{PROFILE}"'
    (item,) = get_data(callers[caller].get(f"{items}?filter[id]={LISTS[path]}", Accept=profile))

    for direction in ("after", "before"):
        check_statements(f"{path}?page[{direction}]={item['meta']['page']['cursor']}", caller)


SORT_PATHS = (
    "/v1/events?sort=-name",
    *(
        f"{type_.path}?sort={attribute.key}"
        for type_ in TYPES.values()
        for attribute in type_.attributes.values()
        if attribute.has_sort_index
    ),
)


def list_sort_callers() -> list[Any]:
    """Return each path with each caller who sees many of its rows."""
    return [
        _case_id(path, caller)
        for path in SORT_PATHS
        for caller in (["admin"] if path.startswith(OWNER_LIST_PATHS) else ["anonymous", "admin"])
    ]


@pytest.mark.parametrize(("path", "caller"), list_sort_callers())
def test_texts_are_sorted_by_an_index(
    check_statements: Prove, callers: dict[str, ApiClient], path: str, caller: str
) -> None:
    profile = f'{JSONAPI}; profile="{PROFILE}"'
    (item,) = get_data(callers[caller].get(f"{path}&filter[id]={BUSY_ID}", Accept=profile))

    check_statements(path, caller)
    check_statements(f"{path}&page[after]={item['meta']['page']['cursor']}", caller)


@pytest.mark.parametrize("caller", ["owner", "admin"])
def test_the_documents_of_a_set_are_not_read_far_beyond_the_limit(
    app: Flask, statements: list[Statement], database: StatementExplainer, caller: str
) -> None:
    viewer = CurrentUser(CALLERS[caller], is_admin=caller == "admin")
    with app.app_context(), open_transaction(is_read=True), pytest.raises(TooManyDocuments):
        resolve_documents(BUSY_ID, AccessContext(viewer, VisibilityScope(viewer.role)))

    assert len(statements) == 5
    for statement in [*statements]:
        database.check(statement, 2 * MAX_DOCUMENTS, 10 * MAX_DOCUMENTS)


def test_every_get_below_v1_is_proven(app: Flask) -> None:
    rules = {rule.rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())}

    assert {rule for rule in rules if rule.startswith("/v1/")} == {
        *LISTS,
        *SINGLE_RESOURCE_PATHS,
        *ROUTES_WITHOUT_PROOF,
    }


def test_a_missing_index_is_noticed(
    statements: list[Statement], database: StatementExplainer, callers: dict[str, ApiClient]
) -> None:
    assert callers["anonymous"].get("/v1/faqs").status_code == 200
    page = next(each for each in [*statements] if "ORDER BY" in each.text)

    database.check(page, 300, 800)
    with pytest.raises(AssertionError, match="rows: Sort"):
        database.check(page, 300, 800, after="DROP INDEX ix_faqs_position_id")


FOREIGN_KEYS = [
    (table.name, column.name) for table in db.metadata.sorted_tables for column in table.columns if column.foreign_keys
]


@pytest.mark.parametrize(("table", "column"), FOREIGN_KEYS)
def test_a_foreign_key_leads_an_index(full_database: psycopg.Connection[Any], table: str, column: str) -> None:
    whole_indexes = full_database.execute(
        "SELECT 1 FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]"
        " WHERE indrelid = %s::regclass AND attname = %s AND indisvalid AND indpred IS NULL",
        (table, column),
    )

    assert whole_indexes.fetchone()


@pytest.mark.parametrize(("table", "column"), FOREIGN_KEYS)
def test_rows_are_found_by_their_foreign_key(
    database: StatementExplainer, full_database: psycopg.Connection[Any], table: str, column: str
) -> None:
    names = {"table": sql.Identifier(table), "column": sql.Identifier(column)}
    query = sql.SQL("SELECT count(*), percentile_disc(0.3) WITHIN GROUP (ORDER BY {column}) FROM {table}")
    ((rows, value),) = full_database.execute(query.format(**names)).fetchall()
    assert rows >= ROW_COUNT, "FILL must fill this table too"
    found = sql.SQL("SELECT * FROM {table} WHERE {column} = $1").format(**names).as_string()

    made, _ = database.explain(Statement(psycopg.RawCursor, found, [value]), after="")

    assert any("Index Name" in step for step in made.steps), str(made)
    assert made.max_rows <= 100, str(made)
    assert made.blocks <= 100, str(made)
