"""/openapi.json is valid, and describes all routes and their responses."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator
from werkzeug.test import TestResponse

from app.jobs import executor
from app.jsonapi.atomic_operations import EXTENSION
from app.jsonapi.resource_type import TYPES
from app.openapi.document import build_document, is_documented
from app.openapi.json_schema import check_component_names
from app.routes import list_routes
from tests.dataset import EVENTS, JSONAPI, Dataset, build_linkage, build_resource, get_data
from tests.docs.blueprint_sources import list_actions, strip_parameter_names
from tests.hooks.requests import call_hook, create_hook, post_hook
from tests.images.sample_images import encode_image, make_flag_image
from tests.images.test_uploads import send_as_form
from tests.jobs import kinds as _kinds  # noqa: F401  # declares them

Json = dict[str, Any]

ATOMIC = f'{JSONAPI};ext="{EXTENSION}"'


@pytest.fixture(scope="module")
def description(app: Flask) -> Json:
    """Return the OpenAPI document."""
    document: Json = app.test_client().get("/openapi.json").get_json()
    return document


class StrictDescription:
    """The OpenAPI document with all objects closed, so that unknown members are faults."""

    def __init__(self, app: Flask, description: Json) -> None:
        self.app = app
        self.document = forbid_additional_members(description)

    def find_faults(self, response: TestResponse) -> list[str]:
        """Return the differences between a response and its operation."""
        responses = self._get_operation(response)["responses"]
        described = responses.get(str(response.status_code))
        if described is None:
            return [f"{response.status_code} is not described"]
        described = resolve_reference(self.document, described)
        missing = [name for name in response.headers if name in self._list_header_names() - described["headers"].keys()]
        if "*/*" in described.get("content", {}):
            return missing
        if "content" not in described:
            return [*missing, *(["a body"] if response.data else [])]
        schema = next(
            (body["schema"] for kind, body in described["content"].items() if is_same_type(kind, response)), None
        )
        if schema is None:
            return [f"{response.content_type} is not described"]
        return [*missing, *self._find_differences(schema, response.get_json(force=True))]

    def _get_operation(self, response: TestResponse) -> Json:
        adapter = self.app.url_map.bind("localhost")
        rule, _values = adapter.match(response.request.path, response.request.method, return_rule=True)
        path = re.sub(r"<(\w+)>", r"{\1}", rule.rule.rstrip("/"))
        operation: Json = self.document["paths"][path][response.request.method.lower()]
        return operation

    def _list_header_names(self) -> set[str]:
        return set(self.document["components"]["headers"]) - {"Vary"}  # flask-cors sends Vary in all responses

    def _find_differences(self, schema: Json, answer: Any) -> list[str]:
        whole = {**schema, "components": self.document["components"]}
        found = Draft202012Validator(whole, format_checker=FormatChecker()).iter_errors(answer)
        return [f"{error.json_path}: {error.message[:300]}" for error in found]


def resolve_reference(document: Json, described: Json) -> Json:
    """Return the component of a reference, or any other value unchanged."""
    while "$ref" in described:
        _, _, section, name = described["$ref"].split("/")
        described = document["components"][section][name]
    return described


def forbid_additional_members(schema: Any) -> Any:
    """Return the schema with all objects limited to their described members."""
    if isinstance(schema, list):
        return [forbid_additional_members(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: forbid_additional_members(value) for name, value in schema.items()}
    is_object = schema.get("type") == "object" and "properties" in schema
    return {"additionalProperties": False, **made} if is_object else made


def is_same_type(strict_description: str, response: TestResponse) -> bool:
    """Return whether a response has this media type; `profile` may differ, `ext` must not."""
    sent = re.sub(r'; profile="[^"]*"', "", response.content_type)
    return strict_description == sent


@pytest.fixture(scope="module")
def strict_description(app: Flask, description: Json) -> StrictDescription:
    """Return the document with all objects closed."""
    return StrictDescription(app, description)


def test_document_is_valid_openapi(description: Json) -> None:
    OpenAPIV31SpecValidator(description).validate()


def test_document_matches_routes_and_methods(app: Flask, description: Json) -> None:
    served = {
        (method, strip_parameter_names(route["path"]))
        for route in list_routes(app)
        for method in route["methods"]
        if is_documented(route["path"])
    }

    assert list_method_paths(description) == served


def test_document_matches_blueprint_actions(description: Json) -> None:
    documented = {(action.method, action.path) for action in list_actions() if is_documented(action.path)}

    assert list_method_paths(description) - {("GET", "/openapi.json")} == documented - {("GET", "/openapi.json")}


def list_method_paths(description: Json) -> set[tuple[str, str]]:
    """Return methods and paths, with the variables unnamed."""
    return {
        (method.upper(), strip_parameter_names(path))
        for path, item in description["paths"].items()
        for method in item
        if method != "parameters"
    }


def test_every_operation_has_an_id_of_its_own(description: Json) -> None:
    items = [item[method] for item in description["paths"].values() for method in item if method != "parameters"]
    ids = {operation["operationId"] for operation in items}

    assert len(ids) == len(items)


def test_every_component_is_used(description: Json) -> None:
    used = set(list_references(description))
    made = {
        f"#/components/{section}/{name}"
        for section, components in description["components"].items()
        if section != "securitySchemes"
        for name in components
    }

    assert made == used


def list_references(value: Any) -> Iterator[str]:
    """Yield every $ref."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from list_references(each)
    elif isinstance(value, list):
        for each in value:
            yield from list_references(each)


def list_schemas(value: Any) -> Iterator[Json]:
    """Yield every schema: objects with a type, a constant or an enum."""
    if isinstance(value, dict):
        if {"type", "const", "enum"} & value.keys() and not isinstance(value.get("type"), dict):
            yield value
        for each in value.values():
            yield from list_schemas(each)
    elif isinstance(value, list):
        for each in value:
            yield from list_schemas(each)


def list_operations(description: Json) -> Iterator[tuple[str, Json]]:
    """Yield every operation with its method and path."""
    for path, item in description["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield f"{method.upper()} {path}", operation


def test_constants_are_texts_with_their_type(description: Json) -> None:
    constants = [schema for schema in list_schemas(description) if "const" in schema]

    assert constants
    assert [schema for schema in constants if schema.get("type") != "string"] == []
    assert [schema for schema in constants if not isinstance(schema["const"], str)] == []


def test_enums_have_the_type_of_their_values(description: Json) -> None:
    names = {str: "string", bool: "boolean", type(None): "null"}
    enums = [schema for schema in list_schemas(description) if "enum" in schema]
    untyped = [schema for schema in enums if not {names[type(each)] for each in schema["enum"]} <= list_types(schema)]

    assert enums
    assert untyped == []


def list_types(schema: Json) -> set[str]:
    """Return the types of a schema."""
    named = schema.get("type", [])
    return {named} if isinstance(named, str) else set(named)


def test_a_schema_has_one_type_beside_null(description: Json) -> None:
    def is_unreadable(schema: Json) -> bool:
        return len(list_types(schema) - {"null"}) > 1

    assert [schema for schema in list_schemas(description) if is_unreadable(schema)] == []


def test_null_alone_stands_in_unions_only(description: Json) -> None:
    def properties(value: Any) -> Iterator[Json]:
        if isinstance(value, dict):
            yield from value["properties"].values() if isinstance(value.get("properties"), dict) else ()
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from properties(each)

    assert [schema for schema in properties(description) if list_types(schema) == {"null"}] == []


def test_arrays_say_what_is_in_them(description: Json) -> None:
    arrays = [schema for schema in list_schemas(description) if "array" in list_types(schema)]

    assert arrays
    assert [schema for schema in arrays if "items" not in schema] == []


def test_parameters_have_a_schema_that_generators_can_write(description: Json) -> None:
    parameters = list(description["components"]["parameters"].values())
    for _, operation in list_operations(description):
        parameters += [each for each in operation.get("parameters", []) if "$ref" not in each]
    for each in parameters:
        schema = resolve_reference(description, each["schema"])
        assert "style" not in each
        assert "object" not in list_types(schema)
        assert each["in"] != "query" or "array" not in list_types(schema) or each["explode"] is False


def test_the_content_of_filter_is_described(description: Json) -> None:
    schema = description["components"]["parameters"]["EventFilter"]["schema"]
    validator = Draft202012Validator({**schema["contentSchema"], "components": description["components"]})
    good: list[Json] = [
        {"name": "name", "op": "eq", "val": "x"},
        {"name": "owner", "op": "eq", "val": "1"},
        {"or": [{"not": {"name": "id", "op": "in", "val": ["1"]}}, {"name": "name", "op": "is-null", "val": True}]},
        {"name": "faqs", "op": "any", "val": {"name": "faq-type", "op": "has", "val": {"and": []}}},
    ]
    bad: list[Any] = [
        {},
        {"name": "name"},
        {"op": "eq", "val": "x"},
        {"name": "nothing", "op": "eq", "val": "x"},
        {"name": "name", "op": "has", "val": {"and": []}},
        {"name": "faqs", "op": "any"},
        {"name": "faqs", "op": "any", "val": {"name": "timezone", "op": "eq", "val": "UTC"}},
        {"and": [], "or": []},
        {"not": []},
    ]

    assert schema["contentMediaType"] == "application/json"
    assert [term for term in good if not validator.is_valid([term])] == []
    assert [term for term in bad if validator.is_valid([term])] == []


def test_an_operation_with_a_target_and_an_address_is_not_valid(description: Json) -> None:
    schema = {"$ref": "#/components/schemas/Operation", "components": description["components"]}
    validator = Draft202012Validator(schema)
    target, new = {"type": "faq", "id": "1"}, {"type": "faq"}

    assert validator.is_valid({"op": "add", "data": new})
    assert validator.is_valid({"op": "remove", "ref": target})
    assert validator.is_valid({"op": "remove", "href": "/v1/faqs/1"})
    assert not validator.is_valid({"op": "remove", "ref": target, "href": "/v1/faqs/1"})
    assert not validator.is_valid({"op": "add"})


def test_schemas_of_bodies_have_names(description: Json) -> None:
    bodies = []
    for _, operation in list_operations(description):
        for part in (operation.get("requestBody", {}), *operation["responses"].values()):
            content = part.get("content", {})
            bodies += [body.get("schema", {}) for type_, body in content.items() if type_ != "multipart/form-data"]
    members = [
        value
        for schema in description["components"]["schemas"].values()
        for value in schema.get("properties", {}).values()
        if isinstance(value, dict)
    ]

    assert [schema for schema in (*bodies, *members) if "properties" in schema] == []


def test_names_of_components_differ_in_letters_and_digits(description: Json) -> None:
    names = [name for section in description["components"].values() for name in section]

    check_component_names(names)
    assert len(names) > 100


@pytest.mark.parametrize("pair", [("FilterJob-event", "FilterJobEvent"), ("faqType", "FaqType"), ("a_b", "A.B")])
def test_names_that_generators_take_for_the_same_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="must differ in letters and digits"):
        check_component_names(pair)


def test_every_tag_is_declared_with_a_description(description: Json) -> None:
    declared = [tag["name"] for tag in description["tags"]]
    used = {tag for _, operation in list_operations(description) for tag in operation["tags"]}

    assert set(declared) == used
    assert declared == sorted(set(declared))
    assert [tag for tag in description["tags"] if not tag["description"].endswith(".")] == []


def test_operation_ids_are_different_method_names(description: Json) -> None:
    ids = {operation["operationId"]: label for label, operation in list_operations(description)}

    check_component_names(ids)
    assert [id_ for id_ in ids if not re.fullmatch("[a-z][a-zA-Z0-9]+", id_)] == []
    assert ids["listEvents"] == "GET /v1/events"
    assert ids["createEvent"] == "POST /v1/events"
    assert ids["getFaqTypeOfFaq"] == "GET /v1/faqs/{id}/faq-type"


def test_every_operation_has_a_summary_of_its_own_in_the_imperative(description: Json) -> None:
    verbs = "Accept|Add|Cancel|Call|Change|Check|Create|Decline|Delete|Download|End|Exchange|Get|List|Log|Perform"
    verbs += "|Remove|Replace|Report|Retry|Send|Set|Start|Stream|Update|Upload|Verify"
    summaries = {label: operation["summary"] for label, operation in list_operations(description)}

    assert [each for each in summaries.items() if not re.match(f"({verbs}) .*[^.]$", each[1])] == []
    assert len(set(summaries.values())) == len(summaries) - 1  # /auth/session is /v1/auth/login


def test_every_operation_that_takes_input_can_refuse_it(description: Json) -> None:
    without = [
        label
        for label, operation in list_operations(description)
        if not any(status.startswith("4") for status in operation["responses"])
    ]

    assert without == ["GET /health-check", "GET /livez", "GET /openapi.json", "GET /readyz"]


def test_document_has_contact_and_license(app: Flask, description: Json) -> None:
    assert description["info"]["license"] == {"name": "MIT", "identifier": "MIT"}
    assert description["info"]["contact"]["url"] == app.config["PUBLIC_URL"]


def test_document_is_cached_with_etag(app: Flask) -> None:
    client = app.test_client()
    first = client.get("/openapi.json")
    again = client.get("/openapi.json", headers={"If-None-Match": first.headers["ETag"]})

    assert (first.status_code, again.status_code, again.data) == (200, 304, b"")
    assert app.extensions["openapi"] == first.data


def test_document_server_is_public_url(app: Flask, description: Json) -> None:
    assert [server["url"] for server in description["servers"]] == [app.config["PUBLIC_URL"]]
    assert build_document(app) == description


@pytest.mark.parametrize("role", ["anonymous", "owner", "admin"])
def test_read_responses_match_document(
    dataset: Dataset, strict_description: StrictDescription, description: Json, role: str
) -> None:
    caller = dataset.callers[role]
    found = []
    made = list_owned_ids(dataset, role)
    for path in list_get_paths(description):
        for id_ in made.get(path.split("/")[2]) or list_ids_for_path(path, dataset):
            included = ",".join(list_includes(description, path)[:6])
            for query in ("", f"?include={included}") if included else ("",):
                response = caller.get(path.replace("{id}", id_) + query)
                found += [(path, id_, query, fault) for fault in strict_description.find_faults(response)]

    assert found == []


def list_owned_ids(dataset: Dataset, role: str) -> dict[str, list[str]]:
    """Return the ids of a finished job, of its events and artifacts, and of further resources with an owner."""
    if role == "anonymous":
        return {}
    caller = dataset.callers[role]
    job = get_data(caller.create("/v1/jobs", "job", {"kind": "tests-make"}))
    with dataset.app.app_context():
        executor.run_job(UUID(job["id"]), "tests")
    path = f"/v1/jobs/{job['id']}"
    parts = {
        f"job-{name}": [each["id"] for each in get_data(caller.get(f"{path}/{name}"))]
        for name in ("events", "artifacts")
    }
    hook = create_hook(caller, "import-images", {"event": dataset.events["published"]})
    own = {"uploads": [str(dataset.create_upload(role, "mine"))]}
    background = dataset.get_background_ids()
    own |= {f"{name}s": [background[name]] for name in ("treatment", "region")}
    own["similarities"] = [background["similarity"]]
    own["document-sets"] = [str(dataset.create_document_set(role, map(int, own["uploads"])))]
    return {"jobs": [job["id"]], "job-kinds": ["sleep"], "hooks": [hook["id"]], **parts, **own}


def list_get_paths(description: Json) -> list[str]:
    """Return the paths of all reads except probes."""
    return [path for path, item in description["paths"].items() if "get" in item and path.startswith("/v1/")]


def list_ids_for_path(path: str, dataset: Dataset) -> list[str]:
    """Return one id of each state for a path, and one of no row."""
    if "{id}" not in path:
        return [""]
    by_type: dict[str, dict[str, int]] = {
        "events": dataset.events,
        **{TYPES[name].plural: ids for name, ids in dataset.belongings.items()},
    }
    rows = by_type.get(path.split("/")[2])
    users = [str(dataset.callers[role].id) for role in ("owner", "stranger")]
    return [*(users if rows is None else (str(rows[state]) for state in EVENTS)), "999999999"]


def list_includes(description: Json, path: str) -> list[str]:
    """Return the include paths of an operation."""
    named = [each for each in list_references(description["paths"][path]["get"]) if each.endswith("Include")]
    if not named:
        return []
    parameter = description["components"]["parameters"][named[0].rsplit("/", 1)[1]]
    include_paths: list[str] = resolve_reference(description, parameter["schema"]["items"])["enum"]
    return include_paths


def test_write_responses_match_document(dataset: Dataset, strict_description: StrictDescription) -> None:
    event, type_, faq = dataset.events["published"], dataset.types["published"], dataset.faqs["published"]
    owner, stranger = dataset.owner, dataset.stranger
    created = owner.create("/v1/faqs?include=event", "faq", {"question": "Why?", "answer": "So."}, event=event)
    related = f"/v1/events/{event}/relationships/organizers"
    users = {"data": build_linkage("user", [stranger.id])}
    responses = [
        created,
        owner.create("/v1/faqs", "faq", {"question": "", "answer": 1}, event=event),
        owner.create("/v1/faqs", "faq"),
        owner.create("/v1/faqs", "event"),
        stranger.create("/v1/events", "event", {"name": "New", "timezone": "UTC", "starts-at": "2030-01-01T00:00:00Z"}),
        dataset.anonymous.create("/v1/events", "event", {"name": "New", "timezone": "UTC"}),
        dataset.anonymous.create("/v1/users", "user", {"email": "new@example.com", "password": "a good password"}),
        stranger.update(f"/v1/users/{stranger.id}", "user", {"public-name": "Stranger", "is-admin": True}),
        stranger.update(f"/v1/users/{stranger.id}", "user", {"public-name": "Stranger"}),
        owner.update(f"/v1/faqs/{faq}", "faq", {"position": 3}, faq_type=type_),
        stranger.update(f"/v1/faqs/{faq}", "faq", {"position": 3}),
        owner.send("PATCH", f"/v1/faqs/{faq}", {"data": build_resource("faq", str(faq), {}, {})}, If_Match='"other"'),
        owner.send("POST", related, users),
        owner.send("PATCH", related, users),
        owner.send("DELETE", related, users),
        owner.send("DELETE", related, users, Content_Type="text/plain"),
        owner.send("PATCH", f"/v1/faqs/{faq}/relationships/faq-type", {"data": None}),
        owner.send("POST", "/v1/faq-types", b"{", Idempotency_Key="one"),
        owner.send("POST", "/v1/faq-types", b"x" * 2**21),
        owner.delete(f"/v1/faqs/{get_data(created)['id']}"),
        owner.delete(f"/v1/faqs/{get_data(created)['id']}"),
    ]

    assert [
        (answer.request.path, faults) for answer in responses if (faults := strict_description.find_faults(answer))
    ] == []
    assert {answer.status_code for answer in responses} >= {200, 201, 400, 401, 403, 404, 409, 412, 413, 415, 422}


def test_upload_and_document_set_responses_match_document(
    dataset: Dataset, strict_description: StrictDescription
) -> None:
    stranger, event = dataset.stranger, dataset.events["published"]
    sent = send_as_form(stranger, encode_image(make_flag_image(), "png"))
    upload = int(sent.get_json()["id"])
    created = stranger.create(
        "/v1/document-sets?include=events,uploads", "document-set", {"title": "Mine"}, events=[event], uploads=[upload]
    )
    path = f"/v1/document-sets/{get_data(created)['id']}"
    related, events = f"{path}/relationships/events", {"data": build_linkage("event", [event])}
    responses = [
        sent,
        created,
        stranger.create("/v1/document-sets", "document-set", {"title": "x" * 51}),
        stranger.create("/v1/document-sets", "document-set", {"title": "x"}, events=[dataset.events["draft"]]),
        stranger.update(path, "document-set", {"title": "Other"}, faqs=[dataset.faqs["published"]]),
        *(stranger.send(method, related, events) for method in ("DELETE", "POST", "PATCH")),
        stranger.delete(path),
        stranger.delete(f"/v1/uploads/{upload}"),
    ]

    assert [answer.status_code for answer in responses] == [200, 201, 422, 404, 200, 200, 200, 200, 200, 200]
    assert [
        (answer.request.path, faults) for answer in responses if (faults := strict_description.find_faults(answer))
    ] == []


def test_hook_responses_match_document(dataset: Dataset, strict_description: StrictDescription) -> None:
    hook, signed = post_hook(dataset.owner, "sleep-once"), post_hook(dataset.owner, signed=True)
    responses = [
        hook,
        signed,
        call_hook(dataset.app, get_data(hook), {"steps": 2}, Idempotency_Key="one"),
        call_hook(dataset.app, get_data(hook), {"steps": 2}, Idempotency_Key="one"),
        call_hook(dataset.app, get_data(hook), {"seconds": -1}),
        call_hook(dataset.app, get_data(hook), b"x" * 70_000),
        call_hook(dataset.app, get_data(hook), b"x", Content_Type="text/plain"),
        call_hook(dataset.app, get_data(signed)),
        dataset.owner.send("POST", f"/v1/hooks/{get_data(hook)['id']}/rotate"),
        call_hook(dataset.app, get_data(hook)),
    ]

    assert [answer.status_code for answer in responses] == [201, 201, 202, 202, 422, 413, 415, 401, 200, 404]
    assert [
        (answer.request.path, faults) for answer in responses if (faults := strict_description.find_faults(answer))
    ] == []


def test_operations_responses_match_document(dataset: Dataset, strict_description: StrictDescription) -> None:
    new = {"type": "faq-type", "lid": "t", "attributes": {"name": "Food"}}
    new["relationships"] = {"event": {"data": build_linkage("event", dataset.events["published"])}}
    steps = [{"op": "add", "data": new}, {"op": "remove", "ref": {"type": "faq-type", "lid": "t"}}]
    document = {"atomic:operations": steps}
    done = dataset.owner.send("POST", "/v1/operations", document, Content_Type=ATOMIC)
    refused = dataset.stranger.send("POST", "/v1/operations", document, Content_Type=ATOMIC)

    assert (done.status_code, refused.status_code) == (200, 403)
    assert strict_description.find_faults(done) + strict_description.find_faults(refused) == []


def test_a_page_by_cursor_is_as_described(dataset: Dataset, strict_description: StrictDescription) -> None:
    accept = f'{JSONAPI};profile="https://jsonapi.org/profiles/ethanresnick/cursor-pagination"'
    response = dataset.admin.get("/v1/events?page[size]=1", Accept=accept)

    assert get_data(response)[0]["meta"]["page"]["cursor"]
    assert strict_description.find_faults(response) == []


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health-check"])
def test_probe_responses_match_document(app: Flask, strict_description: StrictDescription, path: str) -> None:
    assert strict_description.find_faults(app.test_client().get(path)) == []


def test_the_form_of_an_account_is_what_its_route_asks_for(
    dataset: Dataset, description: Json, strict_description: StrictDescription
) -> None:
    for path, item in description["paths"].items():
        for method, operation in item.items():
            if method == "parameters" or operation["tags"] != ["auth"] or "requestBody" not in operation:
                continue
            schema = operation["requestBody"]["content"]["application/json"]["schema"]["oneOf"][0]
            form = resolve_reference(description, schema)
            whole = dict.fromkeys(form["properties"], "x" * 10)
            for name in form["required"]:
                sent = {other: value for other, value in whole.items() if other != name}
                answer = dataset.owner.send(method.upper(), path, sent, Content_Type="application/json")
                assert [error["code"] for error in answer.get_json(force=True)["errors"]] == ["missing-member"]
                assert [error["source"] for error in answer.get_json(force=True)["errors"]] == [{"pointer": f"/{name}"}]
            answer = dataset.owner.send(method.upper(), path, whole, Content_Type="application/json")
            assert "missing-member" not in answer.get_data(as_text=True)
            assert strict_description.find_faults(answer) == []


def test_account_responses_match_document(dataset: Dataset, strict_description: StrictDescription) -> None:
    client = dataset.app.test_client()
    person = {"email": "new@example.com", "password": "a good password"}
    dataset.anonymous.create("/v1/users", "user", person)
    signed_in = client.post("/auth/session", json=person)
    tokens = signed_in.get_json()
    headers = {"Authorization": f"JWT {tokens['access_token']}"}
    responses = [
        signed_in,
        client.post("/v1/auth/login", json={"data": person}),
        client.post("/v1/auth/login", json={**person, "password": "wrong password"}),
        client.post("/v1/users/check_email", json={"email": person["email"]}),
        client.get("/v1/users/user-details/get-user-id", headers=headers),
        client.post("/v1/auth/resend-verification-email", json={"email": person["email"]}),
        client.post("/v1/auth/reset-password", json={"email": person["email"]}),
        client.post(
            "/v1/auth/change-password",
            json={"old-password": person["password"], "new-password": "a new password"},
            headers=headers,
        ),
        client.post("/v1/auth/token/refresh", json={"refresh_token": tokens["refresh_token"]}),
        client.post("/v1/auth/logout", headers=headers),
        client.post("/v1/auth/logout"),
    ]

    assert [answer.status_code for answer in responses] == [200, 200, 401, *[200] * 7, 401]
    assert [
        (answer.request.path, faults) for answer in responses if (faults := strict_description.find_faults(answer))
    ] == []
