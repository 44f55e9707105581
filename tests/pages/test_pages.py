"""/jobs over HTTP: log-in, lists and pages of jobs, cancel and retry, streams, and attacks."""

import html
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from flask import Flask
from werkzeug.test import TestResponse

import config
from app import database, embedded, errors, response_headers, throttle
from app.database import commit, open_transaction
from app.extensions import db, limiter
from app.jobs import executor, lifecycle, submission
from app.jobs.models import Job
from app.jobs.records import JobRow
from app.pages import cookies, job_queries, sse
from app.pages import routes as pages
from app.site import routes as site
from app.slots import SlotPool
from app.users import auth_routes
from app.users.models import User
from tests.dataset import Dataset
from tests.jobs import kinds as _kinds  # noqa: F401  # declares them
from tests.jobs.db_helpers import get_job
from tests.pages.browser import PASSWORD, Browser, TagCollector, get_hidden_field, list_job_rows, sign_in_as

pytestmark = pytest.mark.long

UNKNOWN_JOB_ID = "01900000-0000-7000-8000-000000000000"
LEASE = timedelta(minutes=5)
MARKUP = """<script>alert(1)</script><img src=x onerror=alert(1)>'"&</textarea></template>javascript:alert(1)"""


def enqueue_job(dataset: Dataset, kind: str = "sleep", owner: str | None = "stranger", **parameters: Any) -> JobRow:
    """Submit a job and return it; it stays queued."""
    owner_id = None if owner is None else dataset.callers[owner].id
    with dataset.app.app_context(), open_transaction(is_read=False):
        job = submission.submit_job(kind, parameters or {"seconds": 0}, trigger="api", owner_id=owner_id).job
        commit()
    return job


def start_attempt(dataset: Dataset, job: JobRow) -> JobRow:
    """Start an attempt, as a worker does."""
    with dataset.app.app_context(), open_transaction(is_read=False):
        claimed = lifecycle.claim_job(job.id, "tests", LEASE)
        commit()
    assert claimed is not None
    return claimed


def commit_progress(dataset: Dataset, job: JobRow, fraction: float | None, message: str) -> None:
    """Commit a progress report, as a worker does."""
    with dataset.app.app_context(), open_transaction(is_read=False):
        lifecycle.record_progress(job, fraction, message)
        commit()


def execute_job(dataset: Dataset, job: JobRow) -> None:
    """Execute the job, as a worker does."""
    with dataset.app.app_context():
        executor.run_job(job.id, "tests")


def change_user(dataset: Dataset, name: str, **columns: Any) -> None:
    """Change a user, as an admin can."""
    with dataset.app.app_context():
        db.session.query(User).filter(User.id == dataset.callers[name].id).update(columns)
        db.session.commit()


# Log-in


def test_page_without_session_redirects_to_form_and_back(people: Dataset) -> None:
    browser = Browser(people.app)
    asked = f"/jobs/{UNKNOWN_JOB_ID}?x=1"

    led = browser.get(asked)
    form = browser.get(led.headers["Location"])

    assert (led.status_code, form.status_code) == (303, 200)
    assert 'name="email"' in form.text
    assert 'name="password"' in form.text
    entered = browser.sign_in("stranger", next=get_hidden_field(form, "next"))
    assert (entered.status_code, entered.headers["Location"]) == (303, asked)
    assert browser.get("/jobs").status_code == 200


def test_form_with_session_redirects_to_list(browser: Browser) -> None:
    response = browser.get("/jobs/sign-in?next=/jobs%3Fkind%3Dsleep")

    assert (response.status_code, response.headers["Location"]) == (303, "/jobs?kind=sleep")


@pytest.mark.parametrize(
    "asked",
    [
        "https://evil.example/jobs",
        "//evil.example/jobs",
        "/jobs//evil.example",
        "/jobs\\@evil.example",
        "/jobsevil",
        "/v1/jobs",
        "/jobs/sign-in",
        "/jobs/../docs",
        "/jobs\r\nSet-Cookie: x=1",
        "javascript:alert(1)",
        "",
    ],
)
def test_signing_in_leads_nowhere_else(people: Dataset, asked: str) -> None:
    response = Browser(people.app).sign_in("stranger", next=asked)

    assert (response.status_code, response.headers["Location"]) == (303, "/jobs")


def test_the_cookie_is_for_the_browser_alone(people: Dataset) -> None:
    sent = Browser(people.app).sign_in("stranger").headers.getlist("Set-Cookie")

    (cookie,) = [each for each in sent if each.startswith("jobs-sign-in=")]
    attributes = set(cookie.split("; ")[1:])
    assert {"HttpOnly", "SameSite=Lax", "Path=/jobs", "Max-Age=43200"} <= attributes
    assert "Secure" not in attributes
    assert "Domain" not in cookie


def test_over_https_the_cookie_is_of_this_host_alone(people: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(people.app.config, "PUBLIC_URL", "https://events.example")
    browser = Browser(people.app)
    browser.client.environ_base["wsgi.url_scheme"] = "https"

    sent = browser.sign_in("stranger").headers.getlist("Set-Cookie")

    (cookie,) = [each for each in sent if each.startswith("__Host-jobs-sign-in=")]
    assert {"HttpOnly", "SameSite=Lax", "Path=/", "Secure"} <= set(cookie.split("; ")[1:])
    assert browser.get("/jobs").status_code == 200


@pytest.mark.parametrize(("name", "password"), [("stranger", "wrong password"), ("nobody", PASSWORD), ("", "")])
def test_wrong_password_and_unknown_account_have_the_same_response(people: Dataset, name: str, password: str) -> None:
    browser = Browser(people.app)

    response = browser.sign_in(name, password)

    assert response.status_code == 401
    assert "Wrong e-mail address or password" in response.text
    assert browser.cookie() is None
    assert password == "" or password not in response.text


def test_the_address_that_was_typed_is_printed_as_text(people: Dataset) -> None:
    response = Browser(people.app).sign_in("stranger", email=MARKUP)

    assert "<script>alert" not in response.text
    assert get_hidden_field(response, "token")
    assert html.escape(MARKUP, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in response.text


def test_nul_is_400_as_a_page(people: Dataset) -> None:
    response = Browser(people.app).sign_in("stranger", email="a\0b@example.com")

    assert (response.status_code, response.mimetype) == (400, "text/html")


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"token": ""}, {}),
        ({"token": "x" * 43}, {}),
        ({}, {"Origin": "https://evil.example"}),
        ({}, {"Origin": "null"}),
        ({}, {"Sec_Fetch_Site": "cross-site"}),
        ({}, {"Sec_Fetch_Site": "same-site"}),
    ],
)
def test_cross_site_sign_in_is_403(people: Dataset, fields: dict[str, str], headers: dict[str, str]) -> None:
    browser = Browser(people.app)
    given = {"email": "stranger@example.com", "password": PASSWORD, "token": browser.token("/jobs/sign-in")}

    response = browser.post("/jobs/sign-in", {**given, **fields}, **headers)

    assert response.status_code == 403
    assert browser.cookie() is None


def test_form_of_another_browser_is_rejected(people: Dataset) -> None:
    given = {"email": "stranger@example.com", "password": PASSWORD}
    token = Browser(people.app).token("/jobs/sign-in")

    without_cookie = Browser(people.app).post("/jobs/sign-in", {**given, "token": token})
    browser = Browser(people.app)
    browser.get("/jobs/sign-in")
    with_another = browser.post("/jobs/sign-in", {**given, "token": token})

    assert (without_cookie.status_code, with_another.status_code) == (403, 403)


@pytest.mark.parametrize("origin", ["public", "here"])
def test_a_form_of_this_server_is_taken(people: Dataset, origin: str) -> None:
    browser = Browser(people.app)
    given = {"email": "stranger@example.com", "password": PASSWORD, "token": browser.token("/jobs/sign-in")}
    url = people.app.config["PUBLIC_URL"] if origin == "public" else "http://localhost"

    assert browser.post("/jobs/sign-in", given, Origin=url).status_code == 303


# Revoked and expired sessions


def test_signing_out_ends_the_sign_in_for_good(browser: Browser) -> None:
    cookie = browser.cookie()

    response = browser.submit_form("/jobs/sign-out")

    assert (response.status_code, response.headers["Location"]) == (303, "/jobs/sign-in")
    assert browser.cookie() is None
    browser.set_cookie(str(cookie))
    assert browser.get("/jobs").status_code == 303


@pytest.mark.parametrize("columns", [{"is_blocked": True}, {"deleted_at": "2026-01-01T00:00:00Z"}])
def test_who_is_blocked_or_deleted_is_out_at_once(people: Dataset, browser: Browser, columns: dict[str, Any]) -> None:
    change_user(people, "stranger", **columns)

    assert browser.get("/jobs").status_code == 303
    assert browser.get("/jobs/stream").status_code == 401


def test_a_new_password_ends_what_was_signed_in(people: Dataset, browser: Browser) -> None:
    body = {"old-password": PASSWORD, "new-password": "another horse battery"}
    headers = {"Authorization": f"JWT {people.stranger.token}"}
    people.stranger.client.post("/v1/auth/change-password", json=body, headers=headers)

    assert browser.get("/jobs").status_code == 303


@pytest.mark.parametrize(("seconds", "status"), [(-5, 200), (-60, 303)])
def test_sign_in_of_a_process_whose_clock_is_ahead(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, seconds: int, status: int
) -> None:
    moment = cookies.get_current_time() + timedelta(seconds=seconds)
    monkeypatch.setattr(cookies, "get_current_time", lambda: moment)

    assert browser.get("/jobs").status_code == status


def test_a_sign_in_lasts_twelve_hours(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cookies, "SESSION_LIFETIME", timedelta(seconds=-1))

    assert browser.get("/jobs").status_code == 303


@pytest.mark.parametrize(
    "change", [lambda cookie: cookie[:-1], lambda cookie: cookie + "x", lambda _: "", lambda _: "ä"]
)
def test_a_changed_cookie_is_none(browser: Browser, change: Callable[[str], str]) -> None:
    browser.set_cookie(change(str(browser.cookie())))

    assert browser.get("/jobs").status_code == 303


def test_a_token_of_the_api_is_no_cookie_and_the_reverse(people: Dataset, browser: Browser) -> None:
    cookie = str(browser.cookie())
    as_cookie = Browser(people.app)
    as_cookie.set_cookie(str(people.stranger.token))

    assert as_cookie.get("/jobs").status_code == 303
    assert Browser(people.app).get("/jobs", Authorization=f"JWT {people.stranger.token}").status_code == 303
    for scheme in ("JWT", "Bearer"):
        assert people.anonymous.get("/v1/jobs", Authorization=f"{scheme} {cookie}").status_code == 401


def test_the_api_never_looks_at_cookies(people: Dataset, browser: Browser) -> None:
    client = people.app.test_client()
    client.set_cookie("jobs-sign-in", str(browser.cookie()), path="/")

    assert client.get("/v1/jobs").status_code == 401
    assert client.post("/v1/auth/logout").status_code == 401


# Cancel, retry and start

COMMANDS = (
    "/jobs",
    "/jobs/{}/cancel",
    "/jobs/{}/retry",
    "/jobs/sign-out",
    "/jobs/treatments/new",
    "/jobs/document-sets/new",
)


@pytest.mark.parametrize("path", COMMANDS)
@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({}, {}),
        ({"token": "wrong"}, {}),
        ({"token": "ä"}, {}),
        ({"token": "of another"}, {}),
        ({"token": "right"}, {"Origin": "https://evil.example"}),
        ({"token": "right"}, {"Sec_Fetch_Site": "cross-site"}),
    ],
)
def test_post_without_valid_csrf_token_is_403(
    people: Dataset, browser: Browser, path: str, fields: dict[str, str], headers: dict[str, str]
) -> None:
    job = enqueue_job(people)
    tokens = {"right": browser.token(), "of another": sign_in_as(people, "owner").token()}
    sent = {name: tokens.get(value, value) for name, value in fields.items()}

    response = browser.post(path.format(job.id), {**sent, "seconds": "1"}, **headers)

    assert (response.status_code, response.mimetype) == (403, "text/html")
    assert people.count_rows(Job) == 1
    assert get_job(people.app, job.id).state == "queued"
    assert browser.get("/jobs").status_code == 200


@pytest.mark.parametrize("path", COMMANDS)
def test_anonymous_post_redirects_to_sign_in(people: Dataset, path: str) -> None:
    job = enqueue_job(people)

    response = Browser(people.app).post(path.format(job.id), {"token": "x"})

    assert (response.status_code, response.headers["Location"]) == (303, "/jobs/sign-in")
    assert get_job(people.app, job.id).state == "queued"


def test_a_job_is_canceled_and_one_is_back_where_the_button_was(people: Dataset, browser: Browser) -> None:
    job = enqueue_job(people)

    response = browser.submit_form(f"/jobs/{job.id}/cancel", next="/jobs?kind=sleep")

    assert (response.status_code, response.headers["Location"]) == (303, "/jobs?kind=sleep")
    assert get_job(people.app, job.id).state == "canceled"


def test_cancel_ended_job_is_409(people: Dataset, browser: Browser) -> None:
    job = enqueue_job(people)
    execute_job(people, job)

    response = browser.submit_form(f"/jobs/{job.id}/cancel")

    assert (response.status_code, response.mimetype) == (409, "text/html")
    assert "this job is succeeded" in response.text


def test_trying_again_leads_to_the_new_job(people: Dataset, browser: Browser) -> None:
    job = enqueue_job(people, "tests-fail", breaks=False)
    early = browser.submit_form(f"/jobs/{job.id}/retry")
    execute_job(people, job)

    response = browser.submit_form(f"/jobs/{job.id}/retry")

    assert (early.status_code, response.status_code) == (409, 303)
    page = browser.get(response.headers["Location"])
    assert f'href="/jobs/{job.id}"' in page.text
    assert "by trying again" in page.text


def test_a_job_to_look_at_is_started_here(people: Dataset, browser: Browser) -> None:
    response = browser.submit_form("/jobs", seconds="7")

    assert response.status_code == 303
    ((id_, state),) = list_job_rows(browser.get("/jobs"))
    job = get_job(people.app, UUID(id_))
    assert (state, job.parameters, job.trigger) == ("queued", {"seconds": 7, "steps": 14}, "page")
    assert job.owner_id == people.stranger.id


@pytest.mark.parametrize(("seconds", "status"), [("", 400), ("x", 400), ("-1", 422), ("1e9", 400), ("9" * 5000, 400)])
def test_no_nonsense_is_started(people: Dataset, browser: Browser, seconds: str, status: int) -> None:
    response = browser.submit_form("/jobs", seconds=seconds)

    assert (response.status_code, response.mimetype) == (status, "text/html")
    assert people.count_rows(Job) == 0


def test_demo_job_is_not_available_in_production(
    people: Dataset, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(people.app.config, "APP_ENV", "production")

    assert "Start a demo job" not in browser.get("/jobs").text
    assert browser.submit_form("/jobs", seconds="1").status_code == 422
    assert people.count_rows(Job) == 0


# Lists and pages of jobs


def test_the_list_has_what_runs_what_waits_and_what_has_ended(people: Dataset, browser: Browser) -> None:
    done, busy, first, second = (enqueue_job(people) for _ in range(4))
    execute_job(people, done)
    commit_progress(people, start_attempt(people, busy), 0.25, "a quarter")
    enqueue_job(people, owner="owner")

    page = browser.get("/jobs")

    assert list_job_rows(page) == [
        (str(busy.id), "running"),
        (str(second.id), "queued"),
        (str(first.id), "queued"),
        (str(done.id), "succeeded"),
    ]
    assert 'value="0.25"' in page.text
    text = " ".join(re.sub(r"<[^>]+>", "", page.text).split())
    for words in ("a quarter", "25 %", "1 before it", "2 before it", "by you, through the API"):
        assert words in text


def test_admins_see_all_and_whose_it_is(people: Dataset, browser: Browser) -> None:
    mine, ownerless = enqueue_job(people), enqueue_job(people, owner=None)

    page = sign_in_as(people, "admin").get("/jobs")

    assert {id_ for id_, _ in list_job_rows(page)} == {str(mine.id), str(ownerless.id)}
    assert "stranger@example.com" in page.text
    assert "the server" in page.text
    assert "admin@example.com" not in browser.get("/jobs").text


def test_a_job_names_its_event(people: Dataset) -> None:
    job = enqueue_job(people, "event-archive", owner="owner", event=people.events["published"])
    hidden = enqueue_job(people, "event-archive", owner="stranger", event=people.events["draft"])

    page = sign_in_as(people, "owner").get(f"/jobs/{job.id}")
    others = sign_in_as(people, "stranger").get(f"/jobs/{hidden.id}")

    assert "published event" in page.text
    assert f'href="/v1/events/{people.events["published"]}"' in page.text
    assert "draft event" not in others.text


def test_the_list_is_narrowed_by_kind_and_state(people: Dataset, browser: Browser) -> None:
    failed, done, waiting = enqueue_job(people, "tests-fail", x=1), enqueue_job(people), enqueue_job(people)
    execute_job(people, failed)
    execute_job(people, done)

    def list_ids(query: str) -> list[str]:
        return [id_ for id_, _ in list_job_rows(browser.get(f"/jobs?{query}"))]

    assert list_ids("kind=tests-fail") == [str(failed.id)]
    assert list_ids("state=queued") == [str(waiting.id)]
    assert list_ids("state=succeeded&kind=sleep") == [str(done.id)]
    assert list_ids("state=&kind=&utm_source=mail") == [str(waiting.id), str(done.id), str(failed.id)]
    assert list_ids("kind=none") == []
    assert "No matching jobs" in browser.get("/jobs?kind=none").text


@pytest.mark.parametrize("query", ["state=done", "older=1", "older=%00", "kind=%00", "kind=" + "x" * 300])
def test_a_filter_that_cannot_be_is_400(browser: Browser, query: str) -> None:
    response = browser.get(f"/jobs?{query}")

    assert (response.status_code, response.mimetype) == (400, "text/html")


def test_ended_jobs_are_listed_in_pages_of_twenty(people: Dataset, browser: Browser) -> None:
    jobs = [enqueue_job(people) for _ in range(23)]
    with people.app.app_context():
        db.session.query(Job).update({"state": "canceled"})
        db.session.commit()
    live = enqueue_job(people)

    first = browser.get("/jobs")
    (older,) = re.findall(r'href="(/jobs\?older=[^"]+)"', first.text)
    second = browser.get(older)

    newest_first = [str(job.id) for job in reversed(jobs)]
    assert [id_ for id_, _ in list_job_rows(first)] == [str(live.id), *newest_first[:20]]
    assert [id_ for id_, _ in list_job_rows(second)] == newest_first[20:]
    assert 'href="/jobs?older=' not in second.text
    assert "The newest jobs" in second.text


def test_the_page_of_a_job_tells_everything(people: Dataset, browser: Browser) -> None:
    job = enqueue_job(people, "tests-make", secret="none")
    execute_job(people, job)

    page = browser.get(f"/jobs/{job.id}").text

    for words in (
        "tests-make",
        str(job.id),
        "Succeeded",
        "&#34;secret&#34;",
        "1 of 3",
        "made.json",
        "application/json",
    ):
        assert words in page
    assert page.count('data-level="info"') >= 2
    assert ">tests<" in page  # the worker


def test_page_of_failed_job_shows_the_error(people: Dataset, browser: Browser) -> None:
    job = enqueue_job(people, "tests-fail", x=1)
    execute_job(people, job)

    page = browser.get(f"/jobs/{job.id}").text

    assert "no-output" in page
    assert "There is nothing to make." in page
    assert "Try again" in page


def test_an_artifact_is_fetched_with_the_cookie(people: Dataset, browser: Browser) -> None:
    job, other = enqueue_job(people, "tests-make", x=1), enqueue_job(people)
    execute_job(people, job)
    (path,) = re.findall(r'href="(/jobs/[^"]+/artifacts/[^"]+)"', browser.get(f"/jobs/{job.id}").text)

    fetched = browser.get(path)

    assert (fetched.data, fetched.mimetype) == (b"[]", "application/json")
    assert fetched.headers["Content-Disposition"].startswith("attachment")
    assert "sandbox" in fetched.headers["Content-Security-Policy"]
    assert fetched.headers["Cache-Control"] == "private, no-cache"
    assert browser.get(path.replace(str(job.id), str(other.id))).status_code == 404
    assert sign_in_as(people, "owner").get(path).status_code == 404
    assert "sign-in?next=" in Browser(people.app).get(path).headers["Location"]


def test_others_jobs_are_not_there(people: Dataset) -> None:
    job = enqueue_job(people)
    browser = sign_in_as(people, "owner")

    for below in ("", "/stream", f"/artifacts/{UNKNOWN_JOB_ID}"):
        assert browser.get(f"/jobs/{job.id}{below}").status_code == 404
    for command in ("cancel", "retry"):
        assert browser.submit_form(f"/jobs/{job.id}/{command}").status_code == 404
    assert get_job(people.app, job.id).state == "queued"
    assert list_job_rows(browser.get("/jobs")) == []


@pytest.mark.parametrize(
    "id_", [UNKNOWN_JOB_ID, "1", "abc", "0" * 400, "%00", "%ff", "..%2f..%2fdocs", "stream/x", "sign-out"]
)
def test_unknown_page_is_a_404_page(people: Dataset, id_: str) -> None:
    response = sign_in_as(people, "admin").get(f"/jobs/{id_}")

    assert (response.status_code, response.mimetype) == (404, "text/html")


def test_user_and_worker_text_is_escaped(people: Dataset, browser: Browser) -> None:
    job = enqueue_job(people, "tests-linger", **{MARKUP: MARKUP, "file": "/dev/null", "until": "/"})
    claimed = start_attempt(people, job)
    commit_progress(people, claimed, None, MARKUP)
    with people.app.app_context(), open_transaction(is_read=False):
        lifecycle.finish_failed(claimed, MARKUP, MARKUP, more=MARKUP)
        commit()
    change_user(people, "stranger", email=f"{MARKUP}@example.com")

    pages = [browser.get(path).text for path in ("/jobs", f"/jobs/{job.id}", "/jobs?kind=%3Cscript%3Ealert(1)")]

    for page in pages:
        assert "alert(1)" in page
        tags = TagCollector(page)
        assert [tag for tag, _ in tags.found].count("script") == 1
        assert not {"img", "textarea"} & {tag for tag, _ in tags.found}
        assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]
        links = [*tags.attribute_values("href"), *tags.attribute_values("src"), *tags.attribute_values("action")]
        assert not [link for link in links if link and not link.startswith(("/", "#"))]


def test_without_a_script_the_page_comes_again_while_something_lives(people: Dataset, browser: Browser) -> None:
    refresh = '<noscript><meta http-equiv="refresh" content="5"></noscript>'
    empty = browser.get("/jobs").text
    job = enqueue_job(people)
    live = [browser.get(path).text for path in ("/jobs", f"/jobs/{job.id}")]
    execute_job(people, job)
    ended = [browser.get(path).text for path in ("/jobs", f"/jobs/{job.id}")]

    assert refresh not in empty
    assert all(refresh in page for page in live)
    assert not any(refresh in page for page in ended)
    assert re.search(rf'<form method="post"[^>]+action="/jobs/{job.id}/cancel"[^>]+>', live[0])


# Headers and errors


def assert_protected(response: TestResponse) -> None:
    """Assert that a response has the security headers of pages."""
    policy = response.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "form-action 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert not any("unsafe" in rule for rule in policy)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "same-origin"
    assert response.headers["Cache-Control"] == "no-store"


def test_every_page_and_error_is_protected(people: Dataset, browser: Browser) -> None:
    job = enqueue_job(people)
    pages = [
        browser.get(path) for path in ("/jobs", "/jobs/", f"/jobs/{job.id}", "/jobs/x", "/jobs/x/y/z", "/jobs?state=x")
    ]
    anonymous = Browser(people.app)
    pages += [
        anonymous.get("/jobs"),
        anonymous.get("/jobs/sign-in"),
        anonymous.get("/jobs/stream"),
        anonymous.sign_in("x"),
    ]
    pages += [browser.client.put("/jobs"), browser.client.delete(f"/jobs/{job.id}"), browser.client.head("/jobs")]
    pages += [browser.post("/jobs", {"x": "y" * 2**21}), browser.submit_form(f"/jobs/{job.id}/retry")]

    for page in pages:
        assert page.mimetype == "text/html", page.request.path
        assert_protected(page)
    assert [page.status_code for page in pages] == [
        200,
        200,
        200,
        404,
        404,
        400,
        303,
        200,
        401,
        401,
        405,
        405,
        200,
        413,
        409,
    ]
    assert pages[10].headers["Allow"]


def test_internal_error_page_hides_exception(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("not for people")

    monkeypatch.setattr(job_queries, "get_job", fail)
    response = browser.get(f"/jobs/{UNKNOWN_JOB_ID}")

    assert (response.status_code, response.mimetype) == (500, "text/html")
    assert "not for people" not in response.text
    assert_protected(response)


def test_too_many_streams_is_an_error_page(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser.client.application.extensions["jobs"], "slots", SlotPool(0, 1))

    response = browser.get("/jobs/stream")

    assert (response.status_code, response.mimetype) == (503, "text/html")
    assert response.headers["Retry-After"] == "5"
    assert_protected(response)


def test_errors_elsewhere_stay_json_for_clients_that_do_not_ask_for_html(people: Dataset) -> None:
    assert people.anonymous.get("/v1/nothing").mimetype == "application/vnd.api+json"
    assert people.anonymous.get("/jobsnothing").mimetype == "application/vnd.api+json"
    assert "Referrer-Policy" not in people.anonymous.get("/v1/events").headers


def test_assets_are_kept_for_good(people: Dataset, browser: Browser) -> None:
    urls = re.findall(r'(?:href|src)="(/static/[^"]+)"', browser.get("/jobs").text)

    for url in urls:
        asset = Browser(people.app).get(url)
        assert asset.status_code == 200
        assert asset.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert asset.headers["X-Content-Type-Options"] == "nosniff"
        assert re.search(r"-[0-9a-f]{16}\.", url)
    assert {url.rpartition(".")[2] for url in urls} == {"css", "js", "svg"}
    assert Browser(people.app).get("/static/jobs-0000000000000000.js").status_code == 404
    assert Browser(people.app).get("/static/..%2fjobs.js").status_code == 404


# Streams


class EventStreamReader:
    """Reader of the events of a stream, which is closed at the end of the test."""

    def __init__(self, browser: Browser, path: str, **headers: str) -> None:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        self.response = browser.client.get(path, headers=sent, buffered=False)
        self.parts: Iterator[bytes] = iter(self.response.response)

    def read_event(self) -> tuple[str, Any]:
        """Return the id and the data of the next event that has data."""
        for part in self.parts:
            lines = dict(line.split(": ", 1) for line in part.decode().splitlines() if ": " in line)
            if "data" in lines:
                return lines["id"], orjson.loads(lines["data"])
        pytest.fail("the stream has ended")

    def read_to_end(self) -> bytes:
        """Return the rest of the stream."""
        return b"".join(self.parts)


@pytest.fixture
def listen() -> Iterator[Callable[..., EventStreamReader]]:
    """Return a function that opens a stream."""
    opened: list[EventStreamReader] = []

    def open_stream(*arguments: Any, **headers: str) -> EventStreamReader:
        opened.append(EventStreamReader(*arguments, **headers))
        return opened[-1]

    yield open_stream
    for each in opened:
        each.response.close()


def get_stream_start(page: TestResponse) -> str:
    """Return the position from which the stream of a page begins."""
    (stream,) = re.findall(r'data-stream="([^"]+)"', page.text)
    (begin_at,) = re.findall(r'data-after="([^"]+)"', page.text)
    joiner = "&" if "?" in stream else "?"
    return f"{html.unescape(stream)}{joiner}after={begin_at}"


def test_list_stream_sends_new_and_changed_jobs(
    people: Dataset, browser: Browser, listen: Callable[..., EventStreamReader]
) -> None:
    told = listen(browser, get_stream_start(browser.get("/jobs")))
    assert told.response.headers["X-Accel-Buffering"] == "no"
    assert told.response.mimetype == "text/event-stream"

    job = enqueue_job(people)
    enqueue_job(people, owner="owner")
    (seen,) = told.read_event()[1]["jobs"]
    assert (seen["id"], seen["state_label"], seen["place"]) == (str(job.id), "Waiting", "next in the queue")
    claimed = start_attempt(people, job)
    commit_progress(people, claimed, 0.5, MARKUP)
    (seen,) = told.read_event()[1]["jobs"]
    assert (seen["state"], seen["fraction"], seen["message"]) == ("running", 0.5, MARKUP)


def test_list_stream_sends_changed_queue_positions(
    people: Dataset, browser: Browser, listen: Callable[..., EventStreamReader]
) -> None:
    others = enqueue_job(people, owner="owner")
    mine = enqueue_job(people)
    told = listen(browser, get_stream_start(browser.get("/jobs")))
    assert told.read_event()[1]["jobs"][0]["place"] == "1 before it"

    with people.app.app_context(), open_transaction(is_read=False):
        lifecycle.cancel_job(others.id)
        commit()

    (seen,) = told.read_event()[1]["jobs"]
    assert (seen["id"], seen["place"]) == (str(mine.id), "next in the queue")


def test_the_list_goes_on_where_it_was_cut(
    people: Dataset, browser: Browser, listen: Callable[..., EventStreamReader]
) -> None:
    first = listen(browser, get_stream_start(browser.get("/jobs")))
    job = enqueue_job(people)
    known, _ = first.read_event()
    first.response.close()
    execute_job(people, job)

    again = listen(browser, "/jobs/stream", Last_Event_ID=known)

    assert [seen["state"] for seen in again.read_event()[1]["jobs"]] == ["succeeded"]


def test_list_stream_of_a_kind_sends_that_kind(
    people: Dataset, browser: Browser, listen: Callable[..., EventStreamReader]
) -> None:
    told = listen(browser, get_stream_start(browser.get("/jobs?kind=sleep-once&state=queued")))

    enqueue_job(people)
    job = enqueue_job(people, "sleep-once", seconds=0)

    assert [seen["id"] for seen in told.read_event()[1]["jobs"]] == [str(job.id)]


def test_outdated_list_stream_sends_reload(browser: Browser, listen: Callable[..., EventStreamReader]) -> None:
    assert listen(browser, "/jobs/stream?after=1").read_to_end() == b"event: reload\ndata:\n\n"


@pytest.mark.parametrize("known", ["-1", "abc", "9" * 400, "1e3", "%00"])
def test_invalid_after_parameter_is_400(people: Dataset, browser: Browser, known: str) -> None:
    job = enqueue_job(people)

    for path in ("/jobs/stream", f"/jobs/{job.id}/stream"):
        assert browser.get(f"{path}?after={known}").status_code == 400


@pytest.mark.parametrize("known", ["-1", "abc", "9" * 400, "", "%00"])
def test_invalid_last_event_id_parameter_is_400(people: Dataset, browser: Browser, known: str) -> None:
    job = enqueue_job(people)

    for path in ("/jobs/stream", f"/jobs/{job.id}/stream"):
        assert browser.get(f"{path}?lastEventId={known}").status_code == 400


def test_last_event_id_as_a_parameter_is_as_the_header(
    people: Dataset, browser: Browser, listen: Callable[..., EventStreamReader]
) -> None:
    job = enqueue_job(people)
    claimed = start_attempt(people, job)
    commit_progress(people, claimed, 0.5, MARKUP)
    path = f"/jobs/{job.id}/stream"

    by_parameter = listen(browser, f"{path}?after=2&lastEventId=1")
    assert [line["text"] for line in by_parameter.read_event()[1]["lines"]] == [MARKUP]
    with people.app.app_context(), open_transaction(is_read=False):
        lifecycle.finish_succeeded(claimed, None)
        commit()

    assert browser.get(f"{path}?lastEventId=3").status_code == 204
    assert browser.get(f"{path}?lastEventId=1", Last_Event_ID="3").status_code == 204
    assert listen(browser, "/jobs/stream?lastEventId=1").read_to_end() == b"event: reload\ndata:\n\n"


def test_job_stream_sends_log_lines_until_the_end(
    people: Dataset, browser: Browser, listen: Callable[..., EventStreamReader]
) -> None:
    job = enqueue_job(people)
    told = listen(browser, get_stream_start(browser.get(f"/jobs/{job.id}")))
    assert told.read_event()[1]["job"]["place"] == "next in the queue"

    claimed = start_attempt(people, job)
    commit_progress(people, claimed, 0.5, MARKUP)
    seq, news = told.read_event()

    assert (seq, news["job"]["percent"], news["lines"][-1]["text"]) == ("2", "50 %", MARKUP)
    assert [each["worker"] for each in news["attempts"]] == ["tests"]
    known = listen(browser, f"/jobs/{job.id}/stream", Last_Event_ID="1")
    assert [line["text"] for line in known.read_event()[1]["lines"]] == [MARKUP]
    with people.app.app_context(), open_transaction(is_read=False):
        lifecycle.finish_succeeded(claimed, {"made": 1})
        commit()
    _, last = told.read_event()
    assert (last["is_over"], last["job"]["state"], last["job"]["result"]) == (True, "succeeded", '{\n  "made": 1\n}')
    assert told.read_to_end() == b""
    assert browser.get(f"/jobs/{job.id}/stream", Last_Event_ID="3").status_code == 204


def test_a_long_log_comes_whole(
    people: Dataset, browser: Browser, listen: Callable[..., EventStreamReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "MIN_EVENT_INTERVAL_SECONDS", 0)
    claimed = start_attempt(people, enqueue_job(people))
    for number in range(job_queries.MAX_LOG_LINES + 5):
        commit_progress(people, claimed, None, str(number))

    told = listen(browser, f"/jobs/{claimed.id}/stream?after=1")
    lines = [line["text"] for _ in range(2) for line in told.read_event()[1]["lines"]]

    assert lines == [str(number) for number in range(job_queries.MAX_LOG_LINES + 5)]
    page = browser.get(f"/jobs/{claimed.id}").text
    assert page.count('<li data-level="info">') == job_queries.MAX_LOG_LINES
    assert "6 older lines" in page


def test_a_stream_ends_with_the_sign_in(
    people: Dataset, browser: Browser, listen: Callable[..., EventStreamReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.progress_stream.KEEP_ALIVE_INTERVAL_SECONDS", 0.2)
    monkeypatch.setattr(sse._EventStream, "wait_seconds", 0.2)
    told = listen(browser, "/jobs/stream")
    enqueue_job(people)
    told.read_event()

    change_user(people, "stranger", is_blocked=True)

    assert b"data:" not in told.read_to_end()


# Rate limits


@pytest.fixture
def app_with_limits(
    people: Dataset, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Flask]:
    """Return an app with rate limits and a Redis; the app of the other tests has no limits."""
    monkeypatch.setattr(limiter, "_storage_dead", False)  # one object for all apps
    server = embedded.Redis(tmp_path)
    app_with_limits = Flask("counting")
    app_with_limits.config.update(
        config.read_config({**environment, "REDIS_URL": server.url, "RATELIMIT_ENABLED": "1"})
    )
    database.init_app(app_with_limits)
    response_headers.init_app(app_with_limits)
    throttle.init_app(app_with_limits)
    app_with_limits.register_blueprint(auth_routes.routes)
    site.init_app(app_with_limits)
    pages.init_app(app_with_limits)
    errors.register_error_handlers(app_with_limits)
    with embedded.run_server(server):
        embedded.wait_until(server.is_ready, "redis does not answer")
        yield app_with_limits
    with app_with_limits.app_context():
        db.engine.dispose()


def test_signing_in_is_counted_together_with_the_api(app_with_limits: Flask) -> None:
    body = {"email": "stranger@example.com", "password": "x" * 200}  # too long to be hashed: quick
    answers = [app_with_limits.test_client().post("/v1/auth/login", json=body).status_code for _ in range(3)]
    browser = Browser(app_with_limits)

    answers += [browser.sign_in("stranger", "x" * 200).status_code for _ in range(2)]
    refused = browser.sign_in("stranger")

    assert answers == [401] * 5
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert "Too many attempts" in refused.text
    assert browser.cookie() is None
    assert_protected(refused)
