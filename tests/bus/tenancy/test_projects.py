"""Projects: names, archiving, reopening."""

import pytest

from bus.coordination import sequences
from bus.db import Connection
from bus.operations import project_purge
from bus.tenancy import projects
from tests import factories
from tests.assertions import assert_ledger_consistent, assert_refused


def test_a_project_starts_with_an_empty_ledger(conn: Connection) -> None:
    owner = factories.make_owner(conn)
    project = projects.add(conn, owner.id, "Demo", actor="cli")
    assert (project.owner, project.owner_id, project.name, project.archived_at) == (
        owner.handle, owner.id, "Demo", None,
    )  # fmt: skip
    assert assert_ledger_consistent(conn, project.id) == 0
    assert projects.get(conn, project.id) == project


def test_project_names_are_unique_per_owner_in_any_case(conn: Connection) -> None:
    owner, other = factories.make_owner(conn), factories.make_owner(conn)
    projects.add(conn, owner.id, "Straße", actor="cli")
    for name in ("Straße", "STRASSE", "straße"):
        with assert_refused(conn, "conflict"):
            projects.add(conn, owner.id, name, actor="cli")
    projects.add(conn, other.id, "Straße", actor="cli")


def test_a_project_is_found_by_name_with_or_without_the_handle(conn: Connection) -> None:
    owner, other = factories.make_owner(conn), factories.make_owner(conn)
    mine, theirs = (
        projects.add(conn, owner.id, "Shared", actor="cli"),
        projects.add(conn, other.id, "shared", actor="cli"),
    )
    unique = projects.add(conn, owner.id, "unique", actor="cli")
    assert projects.get_by_name(conn, "UNIQUE") == unique
    assert projects.get_by_name(conn, f"{owner.handle}/shared") == mine
    assert projects.get_by_name(conn, f"{other.handle}/Shared") == theirs
    with assert_refused(conn, "conflict") as caught:
        projects.get_by_name(conn, "shared")
    assert f"{owner.handle}/Shared" in caught.value.message
    for name in ("none", f"{other.handle}/unique", "missing/unique"):
        with assert_refused(conn, "not_found"):
            projects.get_by_name(conn, name)


@pytest.mark.parametrize("name", ["", " x", "a/b", "x" * 65, "a\0b", "a\u202eb", "\ud800", "\u200b"])
def test_a_malformed_name_is_refused(conn: Connection, name: str) -> None:
    owner = factories.make_owner(conn)
    with assert_refused(conn, "invalid_argument"):
        projects.add(conn, owner.id, name, actor="cli")
    with assert_refused(conn, "not_found" if name == "a/b" else "invalid_argument"):
        projects.get_by_name(conn, name)


def test_archiving_and_reopening_return_whether_anything_changed(conn: Connection) -> None:
    agent = factories.make_agent(conn)
    project = agent.ctx.project_id
    assert not projects.reopen(conn, project, actor="cli")
    assert projects.archive(conn, project, actor="ada")
    assert not projects.archive(conn, project, actor="ada")
    assert projects.get(conn, project).archived_at is not None
    assert projects.reopen(conn, project, actor="cli")
    assert sequences.claim(conn, agent.ctx, "s").number == 1
    actions = conn.fetch_all(
        "SELECT action, actor FROM audit WHERE project_id = %s AND action LIKE 'project.%%' ORDER BY id", (project,)
    )
    assert actions == [("project.add", "cli"), ("project.archive", "ada"), ("project.reopen", "cli")]


def test_a_project_that_is_being_purged_is_not_found(conn: Connection) -> None:
    project = factories.make_project(conn)
    project_purge.begin_purge(conn, project.id, actor="cli")
    for call in (
        lambda: projects.get(conn, project.id),
        lambda: projects.get_by_name(conn, project.name),
        lambda: project_purge.begin_purge(conn, project.id, actor="cli"),
    ):
        with assert_refused(conn, "not_found"):
            call()
    assert project not in projects.list_projects(conn, owner_id=project.owner_id)
    assert not projects.archive(conn, project.id, actor="cli")
    assert not projects.reopen(conn, project.id, actor="cli")


def test_projects_page_by_id_of_one_owner_or_of_all(conn: Connection) -> None:
    owner = factories.make_owner(conn)
    mine = [factories.make_project(conn, None, owner) for _ in range(3)]
    theirs = factories.make_project(conn)
    assert projects.list_projects(conn, owner_id=owner.id) == mine
    assert projects.list_projects(conn, owner_id=owner.id, after=mine[0].id, limit=1) == mine[1:2]
    assert projects.list_projects(conn, after=mine[0].id - 1) == [*mine, theirs]


def test_a_project_is_not_reopened_while_its_import_is_not_complete(conn: Connection) -> None:
    project = factories.make_project(conn).id
    projects.archive(conn, project, actor="cli")
    conn.execute("INSERT INTO project_import (project_id, original_id) VALUES (%s, 1)", (project,))
    with assert_refused(conn, "conflict"):
        projects.reopen(conn, project, actor="cli")
    conn.execute(
        "UPDATE project_import SET finished_at = clock_timestamp(), last_seq = 0 WHERE project_id = %s", (project,)
    )
    assert projects.reopen(conn, project, actor="cli")
