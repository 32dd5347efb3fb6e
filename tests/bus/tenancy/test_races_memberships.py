# ruff: noqa: B023 - the calls run before the next round begins
"""Memberships under concurrency: decided under the project clock, in both orders of the acts."""

from collections.abc import Callable

import pytest

from bus.coordination import leases, posts, sequences, tasks
from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.errors import BusError, NotAuthenticated
from bus.tenancy import client_consent, invite_queries, invite_redemption, invites, memberships, participations, tokens
from bus.tenancy.client_consent import ConsentRequest
from bus.tenancy.invite_redemption import Acceptor
from bus.tenancy.owners import Owner
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_ledger_consistent
from tests.concurrency import failures, run_concurrently, run_numbered_concurrently, successes

_ROUNDS = 8


def _acceptor(owner: Owner) -> Acceptor:
    return Acceptor(owner.handle, frozenset({owner.email}))


def _end(conn: Connection, project: Project, member: Owner, how: str) -> None:
    if how == "remove":
        memberships.remove(conn, project.id, member.id, acting_owner_id=project.owner_id, actor="ada")
    else:
        memberships.set_role(conn, project.id, member.id, "viewer", acting_owner_id=project.owner_id, actor="ada")


def test_an_invite_for_one_person_is_accepted_by_one(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        invite = invites.create_for_person(
            conn, project.id, "member", acting_owner_id=project.owner_id, actor=project.owner
        )
        people = [factories.make_owner(conn) for _ in range(16)]

    def accept(conn: Connection, number: int) -> int:
        # Each tries twice, as with a double click.
        person = people[number // 2]
        return invite_redemption.accept_as_person(conn, invite.code, person.id, _acceptor(person))

    outcomes = run_numbered_concurrently(db, 32, accept)
    with db.connection() as conn:
        joined = [member.handle for member in memberships.list_members(conn, project.id)]
        assert invite_queries.list_invites(conn, project.id, for_people=True)[0].used == 1
    assert len(joined) == 2
    # Both tries of the person who joined succeed.
    assert len(successes(outcomes)) == 2
    assert {error.data["reason"] for error in failures(outcomes)} == {"exhausted"}


_CALLS: dict[str, Callable[[Connection, Ctx], object]] = {
    "lease": lambda conn, ctx: leases.acquire(conn, ctx, "src/a.py"),
    "start": lambda conn, ctx: tasks.start_next(conn, ctx),
    "claim": lambda conn, ctx: sequences.claim(conn, ctx, "adr"),
    "post": lambda conn, ctx: posts.create(conn, ctx, "hello", to_lane="core"),
}


@pytest.mark.parametrize("how", ["remove", "demote"])
def test_a_call_beside_the_end_of_its_owners_role_leaves_nothing_held(db: Database, how: str) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        root = factories.make_agent(conn, project)
    for _ in range(_ROUNDS):
        with db.transaction() as conn:
            member = factories.make_member(conn, project)
            agents = [factories.make_member_agent(conn, project, member, f"a-{n}") for n in range(2)]
            for number in range(4):
                tasks.create(conn, root.ctx, f"task {number}")
        calls = [lambda conn, call=call, ctx=agent.ctx: call(conn, ctx) for call in _CALLS.values() for agent in agents]
        outcomes = run_concurrently(db, *calls[:4], lambda conn: _end(conn, project, member, how), *calls[4:])
        assert not isinstance(outcomes[4], Exception), outcomes[4]
        assert {type(error) for error in failures(outcomes)} <= {NotAuthenticated, BusError}
        with db.connection() as conn:
            held = conn.fetch_one(
                "SELECT (SELECT count(*) FROM lease WHERE project_id = %(p)s AND participation_id = ANY (%(of)s)"
                "         AND ended_at IS NULL),"
                " (SELECT count(*) FROM task WHERE project_id = %(p)s AND participation_id = ANY (%(of)s))",
                {"p": project.id, "of": [agent.ctx.participation_id for agent in agents]},
            )
            assert held == (0, 0)
            assert_ledger_consistent(conn, project.id)
            for agent in agents:
                with pytest.raises(NotAuthenticated):
                    sequences.claim(conn, agent.ctx, "adr")


@pytest.mark.parametrize("how", ["remove", "demote"])
def test_an_agent_that_is_added_beside_the_end_of_the_role_has_no_access(db: Database, how: str) -> None:
    request = ConsentRequest("https://a.example/c.json", "A", "http://127.0.0.1/cb", "http://x/mcp", "x" * 43)
    with db.transaction() as conn:
        project = factories.make_project(conn)
    for _ in range(_ROUNDS):
        with db.transaction() as conn:
            member = factories.make_member(conn, project)
            agent = factories.make_member_agent(conn, project, member, "first")
        reference = agent.ctx.participation_id
        outcomes = run_concurrently(
            db,
            lambda conn: participations.join(conn, project.id, "new", member_id=member.id, actor="x"),
            lambda conn: tokens.add(conn, project.id, reference, member_id=member.id, actor="x"),
            lambda conn: tokens.rotate(conn, project.id, reference, member_id=member.id, actor="x"),
            lambda conn: client_consent.connect_participant(
                conn,
                member.id,
                reference,
                request,
                ttl=None,
                actor="x",
            ),
            lambda conn: _end(conn, project, member, how),
        )
        assert not isinstance(outcomes[4], Exception), outcomes[4]
        with db.connection() as conn:
            (live,) = conn.fetch_one(
                "SELECT count(*) FROM token t JOIN participation p ON p.id = t.participation_id"
                " JOIN participant pt ON pt.id = p.participant_id"
                " WHERE p.project_id = %s AND pt.owner_id = %s AND bus_token_is_live(t.revoked_at, t.expires_at)",
                (project.id, member.id),
            )
        assert live == 0


@pytest.mark.parametrize("how", ["remove", "demote"])
def test_an_invite_of_a_lead_is_accepted_before_the_role_ends_or_not_at_all(db: Database, how: str) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
    for _ in range(_ROUNDS):
        with db.transaction() as conn:
            lead = factories.make_member(conn, project, "lead")
            guests = [factories.make_owner(conn) for _ in range(3)]
            first = invites.create_for_person(
                conn, project.id, "member", uses=3, acting_owner_id=lead.id, actor=lead.handle
            )
        accepted, created, ended, again = run_concurrently(
            db,
            lambda conn: invite_redemption.accept_as_person(conn, first.code, guests[0].id, _acceptor(guests[0])),
            lambda conn: invites.create_for_person(
                conn,
                project.id,
                "viewer",
                acting_owner_id=lead.id,
                actor=lead.handle,
            ),
            lambda conn: _end(conn, project, lead, how),
            lambda conn: invite_redemption.accept_as_person(conn, first.code, guests[1].id, _acceptor(guests[1])),
        )
        assert not isinstance(ended, Exception), ended
        for outcome in failures([accepted, again]):
            assert isinstance(outcome, BusError), outcome
            assert outcome.data["reason"] == "invalid"
        codes = [first.code] if isinstance(created, Exception) else [first.code, created.code]
        for code in codes:
            with db.transaction() as conn, pytest.raises(BusError, match="not valid"):
                invite_redemption.accept_as_person(conn, code, guests[2].id, _acceptor(guests[2]))


def test_people_who_remove_each_other_leave_one_outcome(db: Database) -> None:
    """The role of the one who acts is read under the lock, so a lead who was removed removes no one."""
    with db.transaction() as conn:
        project = factories.make_project(conn)
    for _ in range(_ROUNDS):
        with db.transaction() as conn:
            lead, member = factories.make_member(conn, project, "lead"), factories.make_member(conn, project)
        removed, by_lead = run_concurrently(
            db,
            lambda conn: _end(conn, project, lead, "remove"),
            lambda conn: memberships.remove(
                conn,
                project.id,
                member.id,
                acting_owner_id=lead.id,
                actor=lead.handle,
            ),
        )
        assert removed is None
        with db.connection() as conn:
            is_there = memberships.find_role(conn, member.id, project.id) is not None
        assert is_there == isinstance(by_lead, BusError)
