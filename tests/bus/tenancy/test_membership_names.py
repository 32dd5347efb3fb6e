"""Names in a project of several owners: a handle and a label never mean two participants, and each name is shown."""

from collections.abc import Callable

import pytest

from bus.coordination import posts, search, sequences, tasks
from bus.db import Connection, Database
from bus.tenancy import invite_redemption, invites, memberships, owners, participants, participations, projects
from bus.tenancy.invite_redemption import Acceptor
from bus.tenancy.owners import Owner
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_refused, database_checksum
from tests.concurrency import run_concurrently
from tests.factories import Agent


def test_no_agent_is_called_like_an_owner_who_has_not_opened_the_project_yet(conn: Connection) -> None:
    project = factories.make_project(conn, "apollo", factories.make_owner(conn, "ada"))
    bob = factories.make_member(conn, project, "member", "bob")
    with assert_refused(conn, "conflict"):
        participations.join(conn, project.id, "ada", member_id=bob.id, actor="bob")
    agent = factories.make_member_agent(conn, project, bob, "claude-1")
    with assert_refused(conn, "conflict"):
        participants.rename(conn, bob.id, agent.ctx.participant_id, "ada", actor="bob")
    with assert_refused(conn, "conflict"):
        owners.rename(conn, project.owner_id, "claude-1", actor="ada")


def test_an_invite_is_not_locked_to_the_handle_of_a_person(conn: Connection) -> None:
    project = factories.make_project(conn)
    factories.make_member(conn, project, "member", "bob")
    with assert_refused(conn, "conflict"):
        invites.create_for_owner(conn, project.id, participant_name="bob", actor="ada")


def test_no_agent_is_called_like_a_person_who_left(conn: Connection) -> None:
    project = factories.make_project(conn, "apollo", factories.make_owner(conn, "ada"))
    bob = factories.make_member(conn, project, "member", "bob")
    agent = factories.make_agent(conn, project)
    memberships.remove(conn, project.id, bob.id, acting_owner_id=bob.id, actor="bob")
    with assert_refused(conn, "conflict"):
        participations.join(conn, project.id, "bob", actor="ada")
    with assert_refused(conn, "conflict"):
        participants.rename(conn, project.owner_id, agent.ctx.participant_id, "bob", actor="ada")
    with assert_refused(conn, "conflict"):
        invites.create_for_owner(conn, project.id, participant_name="bob", actor="ada")
    # In a project in which bob never was, the name is free.
    elsewhere = factories.make_project(conn, "gemini", owners.get(conn, "ada"))
    assert participations.join(conn, elsewhere.id, "bob", actor="ada").actor == "ada/bob"


# Names that look alike.


def _accept(conn: Connection, code: str, owner: Owner) -> int:
    return invite_redemption.accept_as_person(conn, code, owner.id, Acceptor(owner.handle, frozenset()))


def _invite(conn: Connection, project: Project) -> str:
    return invites.create_for_person(conn, project.id, "member", acting_owner_id=project.owner_id, actor="x").code


@pytest.mark.parametrize("handle", ["b0b", "ad-1", "rob0t"])
def test_a_person_does_not_join_with_a_handle_that_looks_like_a_name_of_the_project(
    conn: Connection, handle: str
) -> None:
    project = factories.make_project(conn, "apollo", factories.make_owner(conn, "ad-l"))
    factories.make_member(conn, project, "viewer", "bob")
    factories.make_agent(conn, project, "robot")
    stranger, code = factories.make_owner(conn, handle), _invite(conn, project)
    before = database_checksum(conn)
    with assert_refused(conn, "conflict") as caught:
        _accept(conn, code, stranger)
    assert caught.value.data["reason"] == "name_taken"
    assert "looks like" in caught.value.message
    assert database_checksum(conn) == before
    owners.rename(conn, stranger.id, "stranger", actor=handle)
    assert _accept(conn, code, stranger) == project.id
    # Nor does it return to that handle.
    with assert_refused(conn, "conflict"):
        owners.rename(conn, stranger.id, handle, actor="stranger")


def test_a_member_does_not_take_a_handle_that_looks_like_a_name_of_the_project(conn: Connection) -> None:
    project = factories.make_project(conn, "apollo", factories.make_owner(conn, "ada"))
    bob = factories.make_member(conn, project, "member", "bob")
    carl = factories.make_member(conn, project, "lead", "carl")
    factories.make_member_agent(conn, project, carl, "robot")
    for handle in ("car1", "r0bot"):
        with assert_refused(conn, "conflict") as caught:
            owners.rename(conn, bob.id, handle, actor="bob")
        assert caught.value.data["reason"] == "name_taken"
    # Their own names do not count, nor those of projects that they are not in.
    factories.make_member(conn, factories.make_project(conn), "member", "eva-1")
    for handle in ("b0b", "eva-l"):
        assert owners.rename(conn, bob.id, handle, actor="bob")


def test_an_invited_participant_does_not_choose_a_name_that_looks_like_a_person(conn: Connection) -> None:
    project = factories.make_project(conn)
    factories.make_member(conn, project, "viewer", "bob")
    code = invites.create_for_owner(conn, project.id, actor="x").code
    for name in ("b0b", "b\u043eb"):
        with assert_refused(conn, "conflict") as caught:
            invite_redemption.redeem(conn, code, name=name)
        assert caught.value.data["reason"] == "name_taken"
        assert "looks like bob" in caught.value.message


class _Names:
    """A project with the members bob and carl, of whom carl has an agent, and an invite that dan can accept."""

    def __init__(self, conn: Connection) -> None:
        self.project: Project = factories.make_project(conn)
        self.bob: Owner = factories.make_member(conn, self.project, "member", "bob")
        self.carl: Owner = factories.make_member(conn, self.project, "member", "carl")
        self.agent = factories.make_member_agent(conn, self.project, self.carl, "claude-1")
        self.dan: Owner = factories.make_owner(conn, "dan")
        self.code = invites.create_for_person(
            conn, self.project.id, "member", acting_owner_id=self.project.owner_id, actor="x"
        ).code


_Act = Callable[[Connection, _Names, str], object]
# Each makes a name one of the project.
_AS_LABEL: dict[str, _Act] = {
    "the owner adds": lambda conn, w, name: participations.join(conn, w.project.id, name, actor="x"),
    "a member adds": lambda conn, w, name: participations.join(
        conn, w.project.id, name, member_id=w.carl.id, actor="x"
    ),
    "a member renames": lambda conn, w, name: participants.rename(
        conn, w.carl.id, w.agent.ctx.participant_id, name, actor="x"
    ),
}
_AS_HANDLE: dict[str, _Act] = {
    "dan": lambda conn, w, _: invite_redemption.accept_as_person(
        conn, w.code, w.dan.id, Acceptor("dan", frozenset({w.dan.email}))
    ),
    "bob-2": lambda conn, w, name: owners.rename(conn, w.bob.id, name, actor="x"),
}


@pytest.mark.parametrize("name", _AS_HANDLE)
@pytest.mark.parametrize("label", _AS_LABEL)
@pytest.mark.parametrize("first", ["label", "handle"])
def test_a_name_that_is_chosen_twice_at_once_is_given_once(db: Database, label: str, name: str, first: str) -> None:
    with db.transaction() as conn:
        names = _Names(conn)
    order = [_AS_LABEL[label], _AS_HANDLE[name]]
    if first == "handle":
        order.reverse()
    with db.transaction() as conn:
        order[0](conn, names, name)
        # The second one waits for the first: it must not decide on what was there before.
        with db.transaction() as other, assert_refused(other, "unavailable"):
            other.execute("SET LOCAL lock_timeout = '50ms'")
            order[1](other, names, name)
    with db.transaction() as conn, assert_refused(conn, "conflict"):
        order[1](conn, names, name)


def _acts(project: Project, guest: Owner, agent: Agent, number: int) -> list[Callable[[Connection], object]]:
    """Acts of both owners on one project and on what the guest has in it, each with names of its own."""
    role = ("lead", "member")[number % 2]
    return [
        lambda conn: memberships.set_role(
            conn, project.id, guest.id, role, acting_owner_id=project.owner_id, actor="x"
        ),
        lambda conn: participations.join(conn, project.id, f"guest-{number}", member_id=guest.id, actor="x"),
        lambda conn: participations.join(conn, project.id, f"own-{number}", actor="x"),
        lambda conn: participants.rename(conn, guest.id, agent.ctx.participant_id, f"renamed-{number}", actor="x"),
        lambda conn: owners.rename(conn, guest.id, f"{guest.handle}-{number}", actor="x"),
        lambda conn: projects.rename(conn, project.id, f"{project.name}-{number}", actor="x"),
    ]


def test_two_owners_with_roles_in_each_others_projects_never_deadlock(db: Database) -> None:
    """The project clock comes first, then the owners by ascending id, in the projects of both."""
    with db.transaction() as conn:
        people = [factories.make_owner(conn) for _ in range(2)]
        both = [factories.make_project(conn, owner=person) for person in people]
        guests = list(reversed(people))
        agents = []
        for project, guest in zip(both, guests, strict=True):
            factories.join_as(conn, project, guest, "member")
            agents.append(factories.make_member_agent(conn, project, guest, f"of-{project.id}"))
    for number in range(3):
        calls = [
            call
            for project, guest, agent in zip(both, guests, agents, strict=True)
            for call in _acts(project, guest, agent, number)
        ]
        assert [outcome for outcome in run_concurrently(db, *calls) if isinstance(outcome, Exception)] == []


def test_projects_of_one_name_are_distinguished_where_several_are_listed(conn: Connection) -> None:
    ada, bob = (factories.make_owner(conn, handle) for handle in ("ada", "bob"))
    for person in (ada, bob):
        project = factories.make_project(conn, "apollo", person)
        factories.join_as(conn, project, bob if person == ada else ada, "member")
        agent = factories.make_agent(conn, project)
        posts.create(conn, agent.ctx, "the plan", to_lane="core", ref="PR 7")
        tasks.create(conn, agent.ctx, "the plan")
        sequences.claim(conn, agent.ctx, "plan")
    for text in ("plan", "PR 7", "task 1"):
        found = search.search(conn, bob.id, text)
        hits = [*found.named, *found.posts, *found.tasks]
        assert {hit.project_name for hit in hits if hit.kind != "project"} == {"apollo", "ada/apollo"}
