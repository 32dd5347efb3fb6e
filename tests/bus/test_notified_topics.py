"""Acts of the web, of jobs and of operators wake calls and streams: each notifies the topics that it changes."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from bus.coordination import expiry, leases, presence, sessions, tasks
from bus.db import Connection
from bus.tenancy import memberships, owners, participations, projects, tokens
from bus.tenancy.owners import Owner
from bus.tenancy.projects import Project
from tests.factories import Agent, make_member, make_member_agent, make_project


@dataclass
class _World:
    """A project with a member whose agent holds a lease and a task; the member has a project of its own."""

    conn: Connection
    project: Project
    member: Owner
    members_project: Project = field(init=False)
    agent: Agent = field(init=False)

    def __post_init__(self) -> None:
        self.members_project = make_project(self.conn, owner=self.member)
        self.agent = make_member_agent(self.conn, self.project, self.member, "worker")
        ctx = self.agent.ctx.with_session("one")
        sessions.look(self.conn, ctx)
        presence.register(self.conn, self.agent.ctx, "api")
        leases.acquire(self.conn, ctx, "src/a.py")
        tasks.start(self.conn, self.agent.ctx, tasks.create(self.conn, self.agent.ctx, "one").task_id)

    def age(self) -> None:
        """Let two hours pass since the agent was seen."""
        for table, column in (("presence", "last_seen"), ("agent_session", "last_seen"), ("task", "updated_at")):
            self.conn.execute(f"UPDATE {table} SET {column} = {column} - interval '2 hours'")
        self.conn.execute("UPDATE project SET stall_window_seconds = 3600")


@pytest.fixture
def world(conn: Connection, project: Project) -> _World:
    return _World(conn, project, make_member(conn, project))


def _end_stale_sessions(world: _World) -> object:
    world.age()
    return sessions.end_stale_sessions(world.conn, world.project.id)


def _requeue(world: _World) -> object:
    world.age()
    return expiry.requeue_stalled_tasks(world.conn, world.project.id)


def _record_absence(world: _World) -> object:
    world.age()
    return expiry.record_absent_participants(world.conn, world.project.id)


def _reopen_after_a_member_left(world: _World) -> object:
    _remove(world, archived=True)
    world.conn.pending_topics.clear()
    return projects.reopen(world.conn, world.project.id, actor="op")


def _remove(world: _World, *, archived: bool = False) -> object:
    if archived:
        projects.archive(world.conn, world.project.id, actor="op")
    memberships.remove(
        world.conn, world.project.id, world.member.id, acting_owner_id=world.project.owner_id, actor="op"
    )
    return True


_ACTS: dict[str, tuple[Callable[[_World], object], set[str]]] = {
    "a member is suspended": (
        lambda world: owners.suspend(world.conn, world.member.id, reason="abuse", actor="op"),
        {"members"},
    ),
    "a handle changes": (
        lambda world: owners.rename(world.conn, world.member.id, "renamed", actor="op"),
        {"members"},
    ),
    "a token is revoked": (
        lambda world: tokens.revoke_all(world.conn, world.project.id, world.agent.actor, actor="op"),
        {"members"},
    ),
    "a participant is removed": (
        lambda world: participations.remove(world.conn, world.project.id, world.agent.actor, actor="op"),
        {"members"},
    ),
    "a member is removed": (_remove, {"members", "leases", "tasks", "ledger"}),
    "a project reopens after a member left": (_reopen_after_a_member_left, {"members", "leases", "tasks", "ledger"}),
    "silent sessions end": (_end_stale_sessions, {"leases", "tasks", "inbox", "presence", "ledger"}),
    "a stalled task is requeued": (_requeue, {"tasks", "ledger"}),
    "an absence is recorded": (_record_absence, {"presence", "ledger"}),
}


@pytest.mark.parametrize(("act", "topics"), _ACTS.values(), ids=_ACTS)
def test_an_act_notifies_the_topics_that_it_changes(
    world: _World, act: Callable[[_World], object], topics: set[str]
) -> None:
    world.conn.pending_topics.clear()
    assert act(world)
    assert topics <= world.conn.pending_topics.get(world.project.id, set())


def test_a_suspension_and_its_end_notify_every_project_of_the_owner(world: _World) -> None:
    expected = {id_: {"members"} for id_ in (world.project.id, world.members_project.id)}
    world.conn.pending_topics.clear()
    assert owners.suspend(world.conn, world.member.id, reason="abuse", actor="op")
    assert world.conn.pending_topics == expected
    world.conn.pending_topics.clear()
    assert owners.lift_suspension(world.conn, world.member.id, actor="op")
    assert world.conn.pending_topics == expected
