"""What participations give back that lose their access: leases, and tasks that are not done."""

import pytest

from bus.coordination import leases, ledger, posts, task_queries, tasks
from bus.errors import NotAuthenticated
from bus.tenancy import memberships, owner_participation, participations, projects
from tests.assertions import assert_refused
from tests.bus.tenancy.project_team import Team


def _hold_work(team: Team) -> tuple[int, int, int]:
    """Let bob's agent hold a lease, a started task, an assigned one and a blocked one; return the tasks."""
    conn, ctx = team.conn, team.bobs.ctx
    leases.acquire(conn, ctx, "src/a.py")
    started, assigned, blocked = (tasks.create(conn, ctx, title, owner="claude-1").task_id for title in "abc")
    tasks.start(conn, ctx, started)
    tasks.start(conn, ctx, blocked)
    tasks.block(conn, ctx, blocked, "waits")
    return started, assigned, blocked


@pytest.mark.parametrize("how", ["leave", "remove", "demote"])
def test_who_leaves_gives_back_what_they_worked_on(team: Team, how: str) -> None:
    conn, project_id = team.conn, team.project.id
    given_back = _hold_work(team)
    kept = posts.create(conn, team.bobs.ctx, "stays", to_actor="ada/claude-1")
    if how == "demote":
        memberships.set_role(conn, project_id, team.bob.id, "viewer", acting_owner_id=team.ada.id, actor="ada")
    else:
        acting = team.bob if how == "leave" else team.ada
        memberships.remove(conn, project_id, team.bob.id, acting_owner_id=acting.id, actor=acting.handle)
    assert leases.list_leases(conn, team.adas.ctx).leases == []
    for task_id in given_back:
        task = task_queries.get_task(conn, team.adas.ctx, task_id)
        assert (task.status, task.owner) == ("open", None)
    assert len(task_queries.get_task(conn, team.adas.ctx, given_back[2]).blockers) == 1
    events = ledger.query_events(conn, team.adas.ctx, actor="bob/claude-1", last_n=4).events
    assert [event.type for event in events] == ["task_requeue", "task_requeue", "task_requeue", "release"]
    assert posts.list_by_id(conn, team.adas.ctx, [kept.post_id]).posts[0].sender == "bob/claude-1"
    with pytest.raises(NotAuthenticated), conn.raw.transaction():
        ledger.query_events(conn, team.bobs.ctx)
    assert memberships.find_role(conn, team.bob.id, project_id) == ("viewer" if how == "demote" else None)
    if how != "demote":
        assert [member.handle for member in memberships.list_members(conn, project_id)] == ["ada"]
        with assert_refused(conn, "not_found"):
            owner_participation.find_owner_context(conn, team.bob.id, project_id)


@pytest.mark.parametrize("is_archived", [False, True])
def test_a_participant_that_is_removed_gives_back_what_it_worked_on(team: Team, is_archived: bool) -> None:
    """In an archived project, whose ledger is closed, when it is reopened."""
    conn, project_id = team.conn, team.project.id
    given_back = _hold_work(team)
    if is_archived:
        projects.archive(conn, project_id, actor="ada")
    participations.remove(conn, project_id, team.bobs.ctx.participation_id, actor="ada")
    if is_archived:
        assert projects.reopen(conn, project_id, actor="ada")
    assert leases.list_leases(conn, team.adas.ctx).leases == []
    for task_id in given_back:
        task = task_queries.get_task(conn, team.adas.ctx, task_id)
        assert (task.status, task.owner) == ("open", None)
    events = ledger.query_events(conn, team.adas.ctx, actor="bob/claude-1", last_n=4).events
    assert [event.type for event in events] == ["task_requeue", "task_requeue", "task_requeue", "release"]
