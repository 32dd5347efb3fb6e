"""Memberships: other owners in a project, each with a role, under their own handle and with agents of their own."""

from collections.abc import Callable
from typing import Any

import pytest

from bus.coordination import inbox, leases, ledger, posts, search, sequences, task_queries, tasks
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import NotAuthenticated, OwnerSuspended
from bus.operations import project_purge
from bus.tenancy import (
    audit,
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
from tests import factories
from tests.assertions import assert_refused, database_checksum
from tests.bus.tenancy.project_team import Team, accept, invite_person
from tests.factories import Agent

# Names.


def test_two_agents_of_one_label_are_addressed_by_their_owners(team: Team) -> None:
    conn = team.conn
    for sender, name, reader in (
        (team.adas, "claude-1", team.adas),
        (team.adas, "bob/claude-1", team.bobs),
        (team.bobs, "claude-1", team.bobs),
        (team.bobs, "ada/claude-1", team.adas),
    ):
        sent = posts.create(conn, sender.ctx, f"to {name}", to_actor=name)
        assert posts.list_posts(conn, reader.ctx, to_me=True).posts[0].post_id == sent.post_id
    task = tasks.create(conn, team.bobs.ctx, "mine", owner="claude-1")
    assert task_queries.get_task(conn, team.adas.ctx, task.task_id).owner == "bob/claude-1"
    assert [
        event.actor for event in ledger.query_events(conn, team.adas.ctx, actor="bob/claude-1", last_n=1).events
    ] == ["bob/claude-1"]


def test_people_are_addressed_by_their_handles(team: Team) -> None:
    posts.create(team.conn, team.adas.ctx, "look", to_actor="bob")
    (received,) = posts.list_posts(team.conn, team.person(team.bob), to_me=True).posts
    assert (received.sender, received.to_actor) == ("ada/claude-1", "bob")
    posts.create(team.conn, team.bobs.ctx, "look", to_actor="ada")
    assert posts.list_posts(team.conn, team.person(team.ada), to_me=True).posts[0].sender == "bob/claude-1"


def test_lists_qualify_the_names_of_other_owners_participants(team: Team) -> None:
    def names(agent: Agent) -> list[str]:
        return sorted(one.name for one in participant_queries.list_participants(team.conn, agent.ctx).participants)

    assert names(team.adas) == ["ada", "bob", "bob/claude-1", "claude-1"]
    assert names(team.bobs) == ["ada", "ada/claude-1", "bob", "claude-1"]
    with assert_refused(team.conn, "unknown_recipient") as caught:
        posts.create(team.conn, team.bobs.ctx, "hello", to_actor="claude-2")
    assert set(caught.value.data["near"]) == {"claude-1", "ada/claude-1"}


def test_a_label_never_means_the_participant_of_another_owner(team: Team) -> None:
    factories.make_agent(team.conn, team.project, "reviewer")
    with assert_refused(team.conn, "unknown_recipient") as caught:
        posts.create(team.conn, team.bobs.ctx, "hello", to_actor="reviewer")
    assert caught.value.data["near"] == ["ada/reviewer"]


def test_labels_and_handles_of_a_project_are_distinct(team: Team) -> None:
    conn = team.conn
    for act in (
        lambda: participations.join(conn, team.project.id, "Bob", actor="ada"),
        lambda: participants.rename(conn, team.ada.id, team.adas.ctx.participant_id, "bob", actor="ada"),
        lambda: participations.join(conn, team.project.id, "ada", member_id=team.bob.id, actor="bob"),
    ):
        with assert_refused(conn, "conflict") as caught:
            act()
        assert "handle" in caught.value.message
    factories.make_agent(conn, team.project, "carol")
    carol = factories.make_owner(conn, "carol")
    code = invite_person(team)
    with assert_refused(conn, "conflict"):
        accept(team, code, carol)
    assert memberships.find_role(conn, carol.id, team.project.id) is None


# Roles.

_WRITES: dict[str, Callable[[Connection, Ctx], Any]] = {
    "post": lambda conn, ctx: posts.create(conn, ctx, "hello", to_lane="core"),
    "claim": lambda conn, ctx: sequences.claim(conn, ctx, "adr"),
    "lease": lambda conn, ctx: leases.acquire(conn, ctx, "src/a.py"),
    "task": lambda conn, ctx: tasks.create(conn, ctx, "do it"),
}


@pytest.mark.parametrize("write", _WRITES)
def test_a_viewer_reads_and_writes_nothing(team: Team, write: str) -> None:
    viewer = team.person(factories.make_member(team.conn, team.project, "viewer"))
    sequences.claim(team.conn, team.adas.ctx, "adr")
    assert ledger.query_events(team.conn, viewer).events
    with assert_refused(team.conn, "forbidden") as caught:
        _WRITES[write](team.conn, viewer)
    assert "viewer" in caught.value.message
    _WRITES[write](team.conn, team.person(team.bob))


def test_a_viewer_is_not_addressed(team: Team) -> None:
    viewer = factories.make_member(team.conn, team.project, "viewer", "vera")
    task = tasks.create(team.conn, team.adas.ctx, "do it")
    for act in (
        lambda: posts.create(team.conn, team.adas.ctx, "hello", to_actor="vera"),
        lambda: tasks.create(team.conn, team.adas.ctx, "do it", owner="vera"),
        lambda: tasks.assign(team.conn, team.adas.ctx, task.task_id, "vera"),
    ):
        with assert_refused(team.conn, "forbidden") as caught:
            act()
        assert caught.value.message.startswith("vera only views")
    memberships.set_role(team.conn, team.project.id, viewer.id, "member", acting_owner_id=team.ada.id, actor="ada")
    assert posts.create(team.conn, team.adas.ctx, "hello", to_actor="vera").recipients == 1


def test_a_lead_alone_of_the_members_acts_as_project_admin(team: Team) -> None:
    lease = leases.acquire(team.conn, team.adas.ctx, "src/a.py")
    with assert_refused(team.conn, "forbidden"):
        leases.force_release(team.conn, team.person(team.bob), lease.fence)
    memberships.set_role(team.conn, team.project.id, team.bob.id, "lead", acting_owner_id=team.ada.id, actor="ada")
    assert leases.force_release(team.conn, team.person(team.bob), lease.fence)


def test_agents_of_members_are_no_project_admins(team: Team) -> None:
    memberships.set_role(team.conn, team.project.id, team.bob.id, "lead", acting_owner_id=team.ada.id, actor="ada")
    for act in (
        lambda: participations.join(
            team.conn, team.project.id, "root", is_admin=True, member_id=team.bob.id, actor="bob"
        ),
        lambda: participations.set_admin(team.conn, team.project.id, "bob/claude-1", True, actor="cli"),
        lambda: participations.set_admin(
            team.conn, team.project.id, "claude-1", True, acting_owner_id=team.bob.id, actor="bob"
        ),
    ):
        with assert_refused(team.conn, "forbidden"):
            act()


@pytest.mark.parametrize(
    ("acting", "role", "is_allowed"),
    [
        ("viewer", "viewer", False),
        ("member", "viewer", False),
        ("lead", "viewer", True),
        ("lead", "member", True),
        ("lead", "lead", False),
        ("owner", "lead", True),
    ],
)
def test_roles_are_given_changed_and_taken_by_those_that_manage_them(
    team: Team, acting: str, role: str, is_allowed: bool
) -> None:
    conn, project_id = team.conn, team.project.id
    giver = team.ada if acting == "owner" else factories.make_member(conn, team.project, acting)
    target = factories.make_member(conn, team.project, role)
    acts: tuple[Callable[[], Any], ...] = (
        lambda: invite_person(team, role, by=giver),
        lambda: memberships.set_role(conn, project_id, target.id, "viewer", acting_owner_id=giver.id, actor="x"),
        lambda: memberships.remove(conn, project_id, target.id, acting_owner_id=giver.id, actor="x"),
    )
    for act in acts:
        if is_allowed:
            act()
        else:
            with assert_refused(conn, "forbidden"):
                act()


def test_no_one_is_given_the_role_of_an_owner_and_the_owner_stays(team: Team) -> None:
    with assert_refused(team.conn, "invalid_argument"):
        invite_person(team, "owner")
    for act in (
        lambda: memberships.remove(team.conn, team.project.id, team.ada.id, acting_owner_id=team.ada.id, actor="ada"),
        lambda: memberships.set_role(
            team.conn, team.project.id, team.ada.id, "viewer", acting_owner_id=team.ada.id, actor="ada"
        ),
    ):
        with assert_refused(team.conn, "forbidden"):
            act()


@pytest.mark.parametrize("exists", [True, False])
def test_without_a_role_a_project_does_not_exist(team: Team, exists: bool) -> None:
    conn, stranger = team.conn, factories.make_owner(team.conn, "eve")
    project_id = team.project.id if exists else 987_654_321
    terms: dict[str, Any] = {"acting_owner_id": stranger.id, "actor": "eve"}
    before = database_checksum(conn)
    acts: tuple[Callable[[], Any], ...] = (
        lambda: owner_participation.find_owner_context(conn, stranger.id, project_id),
        lambda: participations.join(conn, project_id, "x", member_id=stranger.id, actor="eve"),
        lambda: tokens.add(conn, project_id, "claude-1", member_id=stranger.id, actor="eve"),
        lambda: invites.create_for_person(conn, project_id, "viewer", **terms),
        lambda: memberships.remove(conn, project_id, team.bob.id, **terms),
        lambda: memberships.set_role(conn, project_id, team.bob.id, "lead", **terms),
        lambda: participations.remove(conn, project_id, team.bobs.ctx.participation_id, **terms),
    )
    for act in acts:
        with assert_refused(conn, "not_found") as caught:
            act()
        assert caught.value.message == "There is no such project."
    assert database_checksum(conn) == before
    assert search.search(conn, stranger.id, "apollo").is_empty
    assert inbox.count_unanswered(conn, stranger.id) == (0, 0)


# Participants of one's own.


def test_tokens_are_held_by_the_owner_of_the_participant_alone(team: Team) -> None:
    memberships.set_role(team.conn, team.project.id, team.bob.id, "lead", acting_owner_id=team.ada.id, actor="ada")
    for reference, member_id, handle in (("bob/claude-1", None, "bob"), ("ada/claude-1", team.bob.id, "ada")):
        for act in (tokens.add, tokens.rotate):
            with assert_refused(team.conn, "forbidden") as caught:
                act(team.conn, team.project.id, reference, member_id=member_id, actor="x")
            assert f"a participant of {handle}" in caught.value.message
    root = factories.make_agent(team.conn, team.project, "root", is_admin=True)
    with assert_refused(team.conn, "forbidden"):
        tokens.rotate_as_admin(team.conn, root.ctx, "bob/claude-1")
    issued = tokens.add(team.conn, team.project.id, "bob/claude-1", member_id=team.bob.id, actor="bob")
    assert (issued.participant, issued.actor) == ("claude-1", "bob/claude-1")


@pytest.mark.parametrize(("acting", "is_allowed"), [("member", False), ("lead", True), ("owner", True)])
def test_participants_of_members_are_managed_by_those_that_manage_the_members(
    team: Team, acting: str, is_allowed: bool
) -> None:
    conn, project_id = team.conn, team.project.id
    manager = team.ada if acting == "owner" else factories.make_member(conn, team.project, acting)
    terms: dict[str, Any] = {"acting_owner_id": manager.id, "actor": manager.handle}
    reference = team.bobs.ctx.participation_id
    assert team.bobs.ctx.token_id is not None
    token_id = team.bobs.ctx.token_id
    acts: tuple[Callable[[], Any], ...] = (
        lambda: participations.set_lane(conn, project_id, reference, "core", **terms),
        lambda: tokens.revoke(conn, project_id, token_id, **terms),
        lambda: tokens.revoke_all(conn, project_id, reference, **terms),
        lambda: participations.remove(conn, project_id, reference, **terms),
    )
    for act in acts:
        if is_allowed:
            act()
        else:
            with assert_refused(conn, "forbidden"):
                act()
    if acting == "lead":
        with assert_refused(conn, "forbidden"):
            participations.remove(conn, project_id, team.adas.ctx.participation_id, **terms)


def test_the_projects_owner_pays(team: Team) -> None:
    assert {team.bobs.ctx.owner_id, team.person(team.bob).owner_id} == {team.ada.id}


def test_a_membership_that_ends_is_felt_even_by_a_participation_that_is_left(team: Team) -> None:
    """The call asks the membership itself, whatever became of the participation."""
    team.conn.execute("DELETE FROM membership WHERE owner_id = %s", (team.bob.id,))
    with pytest.raises(NotAuthenticated), team.conn.raw.transaction():
        ledger.query_events(team.conn, team.bobs.ctx)
    (has_access,) = team.conn.fetch_one("SELECT bus_has_access(%s)", (team.bobs.ctx.participation_id,))
    assert has_access is False


def test_who_returns_finds_their_agents_without_tokens(team: Team) -> None:
    memberships.remove(team.conn, team.project.id, team.bob.id, acting_owner_id=team.bob.id, actor="bob")
    accept(team, invite_person(team), team.bob)
    with pytest.raises(NotAuthenticated), team.conn.raw.transaction():
        ledger.query_events(team.conn, team.bobs.ctx)
    again = factories.make_member_agent(team.conn, team.project, team.bob, "claude-1")
    assert again.ctx.participation_id == team.bobs.ctx.participation_id
    assert posts.create(team.conn, again.ctx, "back", to_actor="ada/claude-1").recipients == 1


def test_a_project_that_is_deleted_takes_its_memberships_and_leaves_participants(team: Team) -> None:
    assert project_purge.begin_purge(team.conn, team.project.id, actor="ada")
    assert memberships.find_role(team.conn, team.bob.id, team.project.id) is None
    while not project_purge.purge_step(team.conn, team.project.id):
        pass
    assert not memberships.has_memberships(team.conn, team.bob.id)
    assert participants.find_active(team.conn, team.bob.id, team.bobs.ctx.participant_id) is not None


def test_a_change_of_handle_keeps_members_apart(team: Team) -> None:
    factories.make_agent(team.conn, team.project, "reviewer")
    with assert_refused(team.conn, "conflict"):
        owners.rename(team.conn, team.bob.id, "reviewer", actor="bob")
    assert owners.rename(team.conn, team.bob.id, "robert", actor="bob")
    for name in ("bob/claude-1", "robert/claude-1"):
        sent = posts.create(team.conn, team.adas.ctx, "hello", to_actor=name)
        assert posts.list_posts(team.conn, team.bobs.ctx, to_me=True).posts[0].post_id == sent.post_id


def test_leaving_works_in_an_archived_project_and_while_suspended(team: Team) -> None:
    projects.archive(team.conn, team.project.id, actor="ada")
    owners.suspend(team.conn, team.bob.id, reason="abuse", actor="op")
    memberships.remove(team.conn, team.project.id, team.bob.id, acting_owner_id=team.bob.id, actor="bob")
    assert memberships.find_role(team.conn, team.bob.id, team.project.id) is None


# Suspension.


@pytest.mark.parametrize("suspended", ["ada", "bob"])
def test_a_suspension_of_either_owner_stops_the_agents_of_a_member(team: Team, suspended: str) -> None:
    owners.suspend(team.conn, owners.get(team.conn, suspended).id, reason="abuse", actor="op")
    with pytest.raises(OwnerSuspended), team.conn.raw.transaction():
        ledger.query_events(team.conn, team.bobs.ctx)
    # Reading in the web stays; writing does not.
    assert ledger.query_events(team.conn, team.person(team.bob)) is not None
    with pytest.raises(OwnerSuspended), team.conn.raw.transaction():
        posts.create(team.conn, team.person(team.bob), "hello", to_lane="core")


# What a member sees.


def test_a_member_finds_the_project_among_their_own(team: Team) -> None:
    conn = team.conn
    posts.create(conn, team.adas.ctx, "please review the migration", to_actor="bob")
    (item,) = inbox.list_posts(conn, team.bob.id, "for_me")
    assert (item.project_name, item.sender) == ("ada/apollo", "ada/claude-1")
    found = search.search(conn, team.bob.id, "migration")
    assert [hit.project_id for hit in found.posts] == [team.project.id]
    viewer = factories.make_member(conn, team.project, "viewer")
    assert inbox.count_unanswered(conn, viewer.id) == (0, 0)
    assert search.search(conn, viewer.id, "migration").posts


def test_acts_on_memberships_are_audited_for_both_owners(team: Team) -> None:
    memberships.set_role(team.conn, team.project.id, team.bob.id, "lead", acting_owner_id=team.ada.id, actor="ada")
    memberships.remove(team.conn, team.project.id, team.bob.id, acting_owner_id=team.bob.id, actor="bob")
    for owner in (team.ada, team.bob):
        entries = audit.list_for_owner(team.conn, owner.id, audit.AuditFilter(action="membership"))
        assert [(entry.action, entry.actor, entry.subject) for entry in entries] == [
            ("membership.remove", "bob", "bob"),
            ("membership.role", "ada", "bob"),
            ("membership.add", "bob", "bob"),
        ]
