"""Names in a project of several owners: a handle and a label never mean two participants, and each name is shown."""

from collections.abc import Callable

import pytest

from bus.db import Connection, Database
from bus.tenancy import invite_redemption, invites, owners, participants, participations
from bus.tenancy.invite_redemption import Acceptor
from bus.tenancy.owners import Owner
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_refused


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
