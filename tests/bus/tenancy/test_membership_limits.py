"""Limits of the roles beside acts of others, and what a lead reads of what the owner alone sets."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bus.coordination import leases, posts, presence, task_queries, tasks
from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.errors import BusError, NotAuthenticated, OwnerSuspended
from bus.notifications import outbox
from bus.tenancy import (
    audit,
    invite_queries,
    invites,
    memberships,
    owner_participation,
    owners,
    participant_queries,
    participants,
    participations,
    projects,
    tokens,
)
from bus.tenancy.audit import AuditFilter
from tests import factories
from tests.assertions import assert_ledger_consistent, assert_refused
from tests.concurrency import get_outcome, wait_until

_CALLS: dict[str, Callable[[Connection, Ctx], object]] = {
    "lease": lambda conn, ctx: leases.acquire(conn, ctx, "src/a.py"),
    "start": lambda conn, ctx: tasks.start(conn, ctx, 1),
    "register": lambda conn, ctx: presence.register(conn, ctx, "core", status="busy"),
}


def _count_waiting(db: Database) -> int:
    """Count the statements that wait for a lock."""
    with db.connection() as conn:
        (count,) = conn.fetch_one(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    return int(count)


@pytest.mark.parametrize("call", _CALLS)
@pytest.mark.parametrize("how", ["remove", "demote"])
@pytest.mark.parametrize("who", ["person", "agent"])
def test_a_call_that_waited_for_the_end_of_its_owners_role_is_refused(
    db: Database, call: str, how: str, who: str
) -> None:
    """It was authenticated before; what it would take now, no one gives back."""
    with db.transaction() as conn:
        project = factories.make_project(conn)
        tasks.create(conn, factories.make_agent(conn, project).ctx, "first")
        member = factories.make_member(conn, project)
        ctx = factories.make_member_agent(conn, project, member, "claude-1").ctx
        if who == "person":
            ctx = owner_participation.get_or_create_owner_context(conn, member.id, project.id)

    def run() -> object:
        with db.transaction() as other:
            return _CALLS[call](other, ctx)

    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as conn:
            if how == "remove":
                memberships.remove(conn, project.id, member.id, acting_owner_id=project.owner_id, actor="x")
            else:
                memberships.set_role(conn, project.id, member.id, "viewer", acting_owner_id=project.owner_id, actor="x")
            future = pool.submit(run)
            wait_until(lambda: future.done() or _count_waiting(db))
        outcome = get_outcome(future)
    # A viewer still reads, so it learns why.
    expected = BusError if (how, who) == ("demote", "person") else NotAuthenticated
    assert type(outcome) is expected, outcome
    with db.connection() as conn:
        assert conn.fetch_all("SELECT 1 FROM lease WHERE ended_at IS NULL") == []
        assert conn.fetch_all("SELECT 1 FROM task WHERE participation_id IS NOT NULL") == []
        assert conn.fetch_all("SELECT 1 FROM presence WHERE lane IS NOT NULL") == []
        assert_ledger_consistent(conn, project.id)


def test_a_post_that_waited_for_the_demotion_of_its_recipient_is_refused(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        sender = factories.make_agent(conn, project).ctx
        member = factories.make_member(conn, project, "member", "bob")

    def run() -> object:
        with db.transaction() as other:
            return posts.create(other, sender, "hello", to_actor="bob")

    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as conn:
            memberships.set_role(conn, project.id, member.id, "viewer", acting_owner_id=project.owner_id, actor="x")
            future = pool.submit(run)
            wait_until(lambda: future.done() or _count_waiting(db))
        outcome = get_outcome(future)
    assert isinstance(outcome, BusError), outcome
    assert (outcome.code, "only views" in outcome.message) == ("forbidden", True)


def test_a_lead_revokes_the_invites_for_roles_that_it_gives(conn: Connection) -> None:
    project = factories.make_project(conn)
    lead, member = (factories.make_member(conn, project, role) for role in ("lead", "member"))
    ids = {}
    for role in ("viewer", "lead"):
        ids[role] = invites.create_for_person(
            conn, project.id, role, acting_owner_id=project.owner_id, actor=project.owner
        ).id
    agents = invites.create_for_owner(conn, project.id, actor=project.owner).id
    with assert_refused(conn, "forbidden"):
        invites.revoke_for_person(conn, project.id, ids["lead"], acting_owner_id=lead.id, actor=lead.handle)
    with assert_refused(conn, "not_found"):
        invites.revoke_for_person(conn, project.id, agents, acting_owner_id=lead.id, actor=lead.handle)
    for other in (member, factories.make_owner(conn)):
        with pytest.raises(BusError), conn.raw.transaction():
            invites.revoke_for_person(conn, project.id, ids["viewer"], acting_owner_id=other.id, actor="x")
    assert invites.revoke_for_person(conn, project.id, ids["viewer"], acting_owner_id=lead.id, actor=lead.handle)
    states = {invite.id: invite.state for invite in invite_queries.list_invites(conn, project.id, for_people=True)}
    assert (states[ids["viewer"]], states[ids["lead"]]) == ("revoked", "open")
    # An operator, who sees them all, revokes each of them.
    assert invites.revoke(conn, project.id, ids["lead"], actor="operator")


def test_a_lead_reads_no_address_in_the_audit_log(conn: Connection) -> None:
    project = factories.make_project(conn)
    outbox.add_webhook(conn, project.owner_id, "https://hooks.example/T0/s3cret", project_id=project.id, actor="x")
    settings = projects.ProjectSettings(600, None, escalation_email="ada@example.org")
    projects.set_settings(conn, project.id, settings, actor="x")
    invites.create_for_owner(conn, project.id, email="ada@example.org", actor="x")
    filters = AuditFilter(project_id=project.id)
    owners_view = str(audit.list_for_owner(conn, project.owner_id, filters))
    leads_view = str(audit.list_for_lead(conn, project.owner_id, filters))
    for secret in ("s3cret", "ada@example.org"):
        assert secret in owners_view
        assert secret not in leads_view
    assert "hooks.example" in leads_view


def test_work_of_a_member_who_left_an_archived_project_returns_when_it_opens(conn: Connection) -> None:
    project = factories.make_project(conn)
    member = factories.make_member(conn, project)
    mine = factories.make_agent(conn, project).ctx
    theirs = factories.make_member_agent(conn, project, member, "claude-1").ctx
    kept, left = (tasks.create(conn, mine, title).task_id for title in ("kept", "left"))
    tasks.start(conn, mine, kept)
    tasks.start(conn, theirs, left)
    leases.acquire(conn, theirs, "src/a.py")
    projects.archive(conn, project.id, actor="x")
    memberships.remove(conn, project.id, member.id, acting_owner_id=member.id, actor="x")
    projects.reopen(conn, project.id, actor="x")
    assert task_queries.get_task(conn, mine, left).status == "open"
    assert task_queries.get_task(conn, mine, kept).status == "in_progress"
    assert leases.list_leases(conn, mine).leases == []
    assert_ledger_consistent(conn, project.id)


def test_a_suspended_lead_takes_nothing_from_others_and_leaves(conn: Connection) -> None:
    project = factories.make_project(conn)
    lead, member = (factories.make_member(conn, project, role) for role in ("lead", "member"))
    agent = factories.make_member_agent(conn, project, member, "claude-1").ctx.participation_id
    own = factories.make_member_agent(conn, project, lead, "claude-1").ctx.participation_id
    invite = invites.create_for_person(conn, project.id, "viewer", acting_owner_id=lead.id, actor="x").id
    owners.suspend(conn, lead.id, reason="abuse", actor="op")
    by_lead: dict[str, Any] = {"acting_owner_id": lead.id, "actor": lead.handle}
    for act in (
        lambda: memberships.remove(conn, project.id, member.id, **by_lead),
        lambda: memberships.set_role(conn, project.id, member.id, "viewer", **by_lead),
        lambda: participations.remove(conn, project.id, agent, **by_lead),
        lambda: tokens.revoke_all(conn, project.id, agent, **by_lead),
        lambda: invites.revoke_for_person(conn, project.id, invite, **by_lead),
    ):
        with pytest.raises(OwnerSuspended), conn.raw.transaction():
            act()
    assert tokens.revoke_all(conn, project.id, own, **by_lead)[1] == 1
    memberships.remove(conn, project.id, lead.id, **by_lead)
    # The project's owner still takes rights away.
    owners.suspend(conn, project.owner_id, reason="credits", actor="op")
    memberships.remove(conn, project.id, member.id, acting_owner_id=project.owner_id, actor="x")


@pytest.mark.parametrize("state", ["member suspended", "owner suspended", "archived"])
def test_a_role_is_lowered_where_one_that_grants_more_is_refused(conn: Connection, state: str) -> None:
    project = factories.make_project(conn)
    member = factories.make_member(conn, project, "lead")
    agent = factories.make_member_agent(conn, project, member, "claude-1")
    if state == "archived":
        projects.archive(conn, project.id, actor="x")
    else:
        owners.suspend(conn, member.id if state == "member suspended" else project.owner_id, reason="abuse", actor="op")
    by_owner: dict[str, Any] = {"acting_owner_id": project.owner_id, "actor": "x"}
    for role in ("member", "viewer"):
        assert memberships.set_role(conn, project.id, member.id, role, **by_owner)
    assert conn.fetch_one("SELECT revoked_at IS NOT NULL FROM token WHERE id = %s", (agent.ctx.token_id,)) == (True,)
    with pytest.raises((OwnerSuspended, BusError)), conn.raw.transaction():
        memberships.set_role(conn, project.id, member.id, "member", **by_owner)
    assert memberships.find_role(conn, member.id, project.id) == "viewer"


def test_only_participants_that_can_answer_are_suggested(conn: Connection) -> None:
    project = factories.make_project(conn)
    for role, handle in (("viewer", "vera"), ("member", "mia")):
        factories.make_member(conn, project, role, handle)
    suggested = participant_queries.list_suggestions(conn, project.id, project.owner_id)
    assert suggested.names == ["mia"]


def test_a_change_of_a_name_is_audited_where_it_is_seen(conn: Connection) -> None:
    project = factories.make_project(conn)
    member = factories.make_member(conn, project, "member", "bob")
    agent = factories.make_member_agent(conn, project, member, "claude-1")
    participants.rename(conn, member.id, agent.ctx.participant_id, "claude-2", actor="bob")
    owners.rename(conn, member.id, "rob", actor="bob")
    entries = audit.list_for_owner(conn, project.owner_id, AuditFilter(project_id=project.id))[:2]
    assert [(entry.action, entry.subject, entry.detail) for entry in entries] == [
        ("owner.rename", "rob", {"before": "bob"}),
        ("participant.rename", "bob/claude-2", {"before": "bob/claude-1"}),
    ]


def test_participants_are_listed_by_pages_with_the_longest_names(conn: Connection) -> None:
    project = factories.make_project(conn)
    reader = factories.make_agent(conn, project).ctx
    member = factories.make_member(conn, project, "member", "b" * 32)
    for number in range(2):
        factories.make_member_agent(conn, project, member, f"{number}" + "x" * 63)
    names: list[str] = []
    before = None
    while True:
        page = participant_queries.list_participants(conn, reader, before=before, limit=1)
        names += [participant.name for participant in page.participants]
        before = page.next_before
        if before is None:
            break
    assert len(names) == len(set(names)) == 4
