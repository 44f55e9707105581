"""Discovery of programs: files that become kinds, files that do not, and permissions."""

import os
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app.programs import directory, discovery
from tests.dataset import ApiClient, Dataset, get_data, get_errors, get_pointers
from tests.programs.conftest import ProgramDirectory, enqueue_job, execute_job


def list_kinds(caller: ApiClient) -> set[str]:
    """Return the names of all kinds of programs that the caller sees."""
    return {each["id"] for each in get_data(caller.get("/v1/job-kinds")) if each["id"].startswith("program:")}


def get_refusal(dataset: Dataset, kind: str, parameters: dict[str, Any]) -> Any:
    """Return the response to a job that is rejected."""
    return dataset.admin.create("/v1/jobs", "job", {"kind": kind, "parameters": parameters})


def test_without_a_directory_there_are_no_programs(dataset: Dataset) -> None:
    assert list_kinds(dataset.admin) == set()
    assert dataset.admin.get("/v1/job-kinds/program:process-docset").status_code == 404


def test_a_program_is_a_kind_as_soon_as_it_is_there_and_no_longer(dataset: Dataset, programs: ProgramDirectory) -> None:
    before = list_kinds(dataset.admin)
    programs.add_program("count", "true")
    there = list_kinds(dataset.admin)
    (programs.directory / "count").unlink()

    assert there - before == {"program:count"}
    assert list_kinds(dataset.admin) == before == {"program:process-docset"}
    assert get_refusal(dataset, "program:count", {}).status_code == 422


def test_kind_has_members_of_manifest(dataset: Dataset, programs: ProgramDirectory) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    more = {"time_limit": 7, "concurrency": 2, "dedupe": "none"}
    programs.add_program("count", "true", title="Count", parameters=schema, **more)

    kind = get_data(dataset.admin.get("/v1/job-kinds/program:count"))["attributes"]

    assert (kind["title"], kind["runner"], kind["dedupe"]) == ("Count", "executable", "none")
    assert (kind["time-limit"], kind["concurrency"]) == (7, 2)
    assert kind["parameters"] == {**schema, "additionalProperties": False}


def test_changed_manifest_changes_kind(dataset: Dataset, programs: ProgramDirectory) -> None:
    kind = programs.add_program("count", "true", title="Before")
    before = get_data(dataset.admin.get(f"/v1/job-kinds/{kind}"))
    programs.write_manifest("count", b'{"title": "After"}')

    after = get_data(dataset.admin.get(f"/v1/job-kinds/{kind}"))

    assert (before["attributes"]["title"], after["attributes"]["title"]) == ("Before", "After")


def test_manifest_without_program_fails_job(dataset: Dataset, programs: ProgramDirectory) -> None:
    programs.write_manifest("count", b"{}")
    (programs.directory / "plain").write_text("#!/bin/sh\n")
    programs.write_manifest("plain", b"{}")

    given = {"server": "https://a", "document_set_id": "1", "api_token": "t"}

    ended = {
        "count": execute_job(dataset, "program:count")["error"]["code"],
        "plain": execute_job(dataset, "program:plain")["error"]["code"],
        "process-docset": execute_job(dataset, "program:process-docset", given)["error"]["code"],
    }

    assert ended == {"count": "missing-program", "plain": "not-executable", "process-docset": "missing-program"}


def test_unsuitable_files_are_not_kinds(dataset: Dataset, programs: ProgramDirectory, tmp_path: Path) -> None:
    (programs.directory / "plain").write_text("#!/bin/sh\n")
    (programs.directory / "folder").mkdir(mode=0o755)
    os.mkfifo(programs.directory / "pipe", 0o755)
    programs.add_program("data.json", "true")
    programs.add_program("-rf", "true")
    programs.add_program("white space", "true")
    programs.add_program("x" * 101, "true")

    assert list_kinds(dataset.admin) == {"program:process-docset"}


@pytest.mark.parametrize("name", ["../outside", "..", ".", "", "a/../../outside", "/bin/sh", "folder/inside", "a\n"])
def test_no_name_leads_out_of_the_directory(
    dataset: Dataset, programs: ProgramDirectory, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("#!/bin/sh\n")
    outside.chmod(0o700)
    inside = programs.directory / "folder"
    inside.mkdir()
    (inside / "inside").symlink_to(outside)

    response = get_refusal(dataset, f"program:{name}", {})

    assert response.status_code == 422
    assert get_pointers(response) == {"/data/attributes/kind"}


def test_a_link_leads_only_to_what_lies_within(dataset: Dataset, programs: ProgramDirectory, tmp_path: Path) -> None:
    programs.add_program("real", "true")
    (programs.directory / "alias").symlink_to("real")
    (programs.directory / "shell").symlink_to("/bin/sh")
    (programs.directory / "loop").symlink_to("loop")
    (tmp_path / "manifest").write_text("{}")
    (programs.directory / "manifest.json").symlink_to(tmp_path / "manifest")

    assert list_kinds(dataset.admin) == {"program:real", "program:alias", "program:process-docset"}


def test_link_that_leads_out_is_not_run_although_it_has_a_manifest(
    dataset: Dataset, programs: ProgramDirectory
) -> None:
    (programs.directory / "shell").symlink_to("/bin/sh")
    programs.write_manifest("shell", b"{}")

    job = execute_job(dataset, "program:shell", {"arguments": ["id"]})

    assert job["error"]["code"] == "missing-program"


def test_invalid_manifest_is_logged_once_and_program_is_not_offered(
    dataset: Dataset, programs: ProgramDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add_program("count", "true")
    programs.write_manifest("count", b'{"titel": 1}')
    capsys.readouterr()

    for _ in range(3):
        assert list_kinds(dataset.admin) == {"program:process-docset"}
        assert dataset.admin.get("/v1/job-kinds/program:count").status_code == 404

    lines = [line for line in capsys.readouterr().out.splitlines() if "manifest invalid" in line]
    assert len(lines) == 1
    assert "count.json" in lines[0]
    assert "titel" in lines[0]
    programs.write_manifest("count", b'{"titel": 22}')
    list_kinds(dataset.admin)
    assert capsys.readouterr().out.count("manifest invalid") == 1


@pytest.mark.parametrize("how", ["folder", "pipe", "large"])
def test_unreadable_manifest_is_an_error(dataset: Dataset, programs: ProgramDirectory, how: str) -> None:
    programs.add_program("count", "true")
    path = programs.directory / "count.json"
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b" " * (directory.MAX_MANIFEST_BYTES + 1))

    assert list_kinds(dataset.admin) == {"program:process-docset"}


def test_a_lookup_costs_two_system_calls(
    app: Flask, programs: ProgramDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = discovery.ProgramKindProvider()
    programs.add_program("count", "true", title="Count")
    asked = []
    stat = os.stat
    with app.app_context():
        source.find_kind("program:count")
        monkeypatch.setattr(os, "stat", lambda path, **more: asked.append(path) or stat(path, **more))
        kind = source.find_kind("program:count")
        monkeypatch.undo()

    assert kind is not None
    assert len(asked) == 2


def test_an_argument_has_at_most_64_kib(dataset: Dataset, programs: ProgramDirectory) -> None:
    kind = programs.add_program("count", "true")

    for largest in ("x" * 65536, "ü" * 32768):
        enqueue_job(dataset.admin, kind, arguments=[largest])
    for too_large in ("x" * 65537, "ü" * 32769):
        response = get_refusal(dataset, kind, {"arguments": ["fine", too_large]})
        assert response.status_code == 422
        assert get_pointers(response) == {"/data/attributes/parameters/arguments/1"}


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [({"arguments": "x"}, "/arguments"), ({"arguments": [1]}, "/arguments/0"), ({"argument": []}, "/argument")],
)
def test_invalid_parameters_are_422_with_pointers(
    dataset: Dataset, programs: ProgramDirectory, parameters: dict[str, Any], pointer: str
) -> None:
    response = get_refusal(dataset, programs.add_program("count", "true"), parameters)

    assert response.status_code == 422
    assert get_pointers(response) == {f"/data/attributes/parameters{pointer}"}


@pytest.mark.parametrize("members", [{}, {"title": "Count"}, {"may_start": "admins"}])
def test_program_is_for_admins_unless_manifest_allows_anyone(
    dataset: Dataset, programs: ProgramDirectory, members: dict[str, Any]
) -> None:
    kind = programs.add_program("count", "true", **members)
    document = {"kind": kind, "parameters": {}}

    refused_job = dataset.stranger.create("/v1/jobs", "job", document)

    assert refused_job.status_code == 403
    assert get_errors(refused_job)[0]["detail"] == "You may not start this kind of job with these parameters."
    assert dataset.stranger.create("/v1/hooks", "hook", document).status_code == 403
    assert dataset.stranger.get(f"/v1/job-kinds/{kind}").status_code == 404
    assert kind not in list_kinds(dataset.stranger)
    assert kind in list_kinds(dataset.admin)
    assert dataset.admin.create("/v1/jobs", "job", {"kind": kind, "parameters": {}}).status_code == 202


def test_program_is_for_anyone_if_manifest_allows(dataset: Dataset, programs: ProgramDirectory) -> None:
    kind = programs.add_program("count", "true", may_start="anyone")

    assert kind in list_kinds(dataset.stranger)
    assert dataset.stranger.create("/v1/jobs", "job", {"kind": kind, "parameters": {}}).status_code == 202
    assert dataset.anonymous.get("/v1/job-kinds").status_code == 401


OPTIONAL_SET_SCHEMA = {
    "type": "object",
    "properties": {"set": {"type": ["string", "integer", "array"]}, "hidden": {"type": "string"}},
}


@pytest.mark.parametrize(
    ("value", "pointer"),
    [("--output=/etc/cron.d/x", "/set"), ("-", "/set"), ("--", "/set"), (-5, "/set"), (["a", "-x"], "/set/1")],
)
def test_a_value_that_would_be_an_option_is_refused(
    dataset: Dataset, programs: ProgramDirectory, value: Any, pointer: str
) -> None:
    kind = programs.add_program(
        "count", "true", parameters=OPTIONAL_SET_SCHEMA, arguments=["set"], environment={"HIDDEN": "hidden"}
    )

    response = get_refusal(dataset, kind, {"set": value})

    assert response.status_code == 422
    assert get_pointers(response) == {f"/data/attributes/parameters{pointer}"}
    assert get_errors(response)[0]["detail"].startswith("An argument must not begin with '-'")
    assert get_refusal(dataset, kind, {"set": "a-b", "hidden": "-x"}).status_code == 202


def test_no_value_for_overview_becomes_an_option(dataset: Dataset, programs: ProgramDirectory) -> None:
    kind = programs.add_program("process-docset", "true")
    given = {"server": "https://overview.example", "document_set_id": "--output=/etc/cron.d/x", "api_token": "t"}

    assert get_pointers(get_refusal(dataset, kind, given)) == {"/data/attributes/parameters/document_set_id"}


def test_the_program_of_overview_goes_to_no_server_that_is_not_listed(
    dataset: Dataset, programs: ProgramDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dataset.app.config, "OVERVIEW_SERVERS", ("https://overview.example",))
    more = {"document_set_id": "1", "api_token": "t"}

    accepted = get_refusal(dataset, "program:process-docset", {"server": "https://overview.example/", **more})
    other = get_refusal(dataset, "program:process-docset", {"server": "http://127.0.0.1:6379", **more})

    assert (accepted.status_code, other.status_code) == (202, 403)


def test_the_same_program_for_the_same_parameters_runs_once_until_it_is_changed(
    dataset: Dataset, programs: ProgramDirectory
) -> None:
    kind = programs.add_program("count", "echo a > $1")
    first = execute_job(dataset, kind)["id"]

    programs.add_program("count", "echo a > $1")
    installed_anew = enqueue_job(dataset.admin, kind)["id"]
    other_arguments = enqueue_job(dataset.admin, kind, arguments=["a"])["id"]
    programs.add_program("count", "echo b > $1")
    changed = enqueue_job(dataset.admin, kind)["id"]
    programs.write_manifest("count", b'{"time-limit": 5}')
    told_otherwise = enqueue_job(dataset.admin, kind)["id"]

    assert installed_anew == first
    assert len({first, other_arguments, changed, told_otherwise}) == 4
