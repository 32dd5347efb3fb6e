"""Import of issues of beads."""

import json
from contextlib import closing
from typing import Any

import pytest

from bus.coordination import task_queries
from bus.ctx import Ctx
from bus.db import Database
from bus.errors import InvalidArgument
from bus.imports import beads, former_ids
from bus.imports.beads import BeadsReport
from bus.imports.findings import Findings
from bus.tenancy import owner_participation
from tests import servers
from tests.factories import make_agent, make_project


def _issue(issue_id: str, *blocked_on: str, **fields: Any) -> str:
    dependencies = [{"issue_id": issue_id, "depends_on_id": other, "type": "blocks"} for other in blocked_on]
    return json.dumps({"id": issue_id, "title": f"Issue {issue_id}", "dependencies": dependencies, **fields})


_LINES = [
    _issue("bd-3", "bd-2", "bd-9", status="open", priority=0, description="Text", labels=["ui"], assignee="Ada"),
    _issue("bd-2", "bd-1", status="in_progress", priority=7),
    _issue("bd-1", "bd-3", status="open", assignee="stranger"),
    _issue("bd-9", status="closed"),
    "",
    json.dumps({"id": "bd-5", "title": "x" * 300, "dependencies": [{"depends_on_id": "bd-1", "type": "related"}]}),
]


def _import(db: Database, ctx: Ctx, lines: list[str] = _LINES) -> BeadsReport:
    return beads.import_issues(db.transaction, ctx, lines)


@pytest.fixture
def ctx(db: Database) -> Ctx:
    with db.transaction() as conn:
        project = make_project(conn)
        make_agent(conn, project, "ada")
        return owner_participation.get_or_create_owner_context(conn, project.owner_id, project.id)


def test_open_issues_become_tasks_with_blockers(db: Database, ctx: Ctx) -> None:
    report = _import(db, ctx)
    assert (len(report.imported), report.done, report.unchanged) == (4, 1, 0)
    with db.connection() as conn:
        tasks = {task.task_id: task for task in task_queries.list_tasks(conn, ctx).tasks}
        first = task_queries.get_task(conn, ctx, report.imported["bd-3"])
    number = report.imported
    blockers = {issue: [blocker.on for blocker in tasks[number[issue]].blockers] for issue in number}
    # bd-1 on bd-3 would close a circle.
    assert blockers == {"bd-3": [number["bd-2"]], "bd-2": [number["bd-1"]], "bd-1": [], "bd-5": []}
    assert (first.priority, first.status, first.owner.rpartition("/")[2]) == (0, "assigned", "ada")
    assert first.detail == "Imported from beads: bd-3 (task).\n\nText\n\nLabels: ui"
    assert {finding.problem for finding in report.findings} == {
        "a dependency that closes a circle is left out",
        "a title longer than 200 characters; the end is cut",
        "an assignee that is not in the project is left out",
        "tasks in progress are assigned but not started; their agents start them again",
    }


def test_a_repeated_import_adds_new_issues_only(db: Database, ctx: Ctx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beads, "_BATCH_SIZE", 2)
    first = _import(db, ctx)
    second = _import(db, ctx, [*_LINES, _issue("bd-10", "bd-3")])
    assert (list(second.imported), second.unchanged) == (["bd-10"], 4)
    with db.connection() as conn:
        (former,) = former_ids.find(conn, ctx.project_id, "bd-10")
        assert (former.kind, former.number) == ("task", second.imported["bd-10"])
        assert len(task_queries.list_tasks(conn, ctx).tasks) == len(first.imported) + 1


@pytest.mark.parametrize("line", ["[]", "{}", "no JSON", '{"id": 5}', '{"id": ""}'])
def test_a_line_that_is_no_issue_is_named(line: str) -> None:
    with pytest.raises(InvalidArgument, match="Line 2 is not an issue"):
        beads.parse([_issue("bd-1"), line], Findings())


def test_a_long_chain_is_ordered() -> None:
    lines = [_issue(f"bd-{number}", f"bd-{number + 1}") for number in range(3000)] + [_issue("bd-3000")]
    issues, _ = beads.parse(lines, Findings())
    assert [issue.id for issue in beads._order(issues, Findings())] == [
        f"bd-{number}" for number in range(3000, -1, -1)
    ]


def test_the_command_reports_what_it_imported(database_url: str, tmp_path: Any) -> None:
    from tests.cli.test_commands import Cli

    with closing(Database(servers.application_url(database_url), pool_size=1)) as database:
        with database.transaction() as conn:
            make_project(conn, "site")
    file = tmp_path / "issues.jsonl"
    file.write_text("\n".join(_LINES))
    cli = Cli(database_url)
    assert cli.run("import", "beads", str(file), "--project", "site").output.startswith(
        "4 tasks imported, 0 known already, 1 done left out."
    )
    assert cli.json("import", "find", "site", "bd-1")["found"] == [{"kind": "task", "number": 1}]
    assert cli.run("import", "find", "site", "bd-77").exit_code == 4


@pytest.mark.parametrize(
    "fields",
    [
        {"title": "a\0b\ud800", "description": "\0"},
        {"title": ["x"], "labels": 5},
        {"assignee": ["ada"]},
        {"assignee": {"name": "ada"}},
        {"assignee": "\0"},
        {"dependencies": 5},
        {"dependencies": [{"depends_on_id": ["a"]}, {"depends_on_id": "a", "type": ["blocks"]}, 7]},
    ],
)
def test_fields_of_other_types_and_characters_are_left_out(db: Database, ctx: Ctx, fields: dict[str, Any]) -> None:
    report = _import(db, ctx, [json.dumps({"id": "bd-1", "title": "Title", **fields})])
    assert len(report.imported) == 1


@pytest.mark.parametrize("line", ["[" * 100_000, _issue("a\0"), _issue("a\ud800"), _issue("x" * 201)])
def test_a_line_with_an_unusual_id_is_named(db: Database, ctx: Ctx, line: str) -> None:
    with pytest.raises(InvalidArgument, match="Line 1 is not an issue"):
        _import(db, ctx, [line])
