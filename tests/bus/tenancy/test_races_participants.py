"""Invites, names and tokens at one moment."""

import pytest

from bus.coordination import sequences
from bus.db import Connection, Database
from bus.errors import BusError, NotAuthenticated
from bus.tenancy import invite_redemption, invites, participant_queries, participations, projects, tokens
from bus.tenancy.participations import IssuedParticipation
from tests import factories
from tests.assertions import assert_ledger_consistent
from tests.concurrency import failures, run_concurrently, run_numbered_concurrently, successes


@pytest.mark.parametrize(("uses", "tries", "rounds"), [(1, 100, 3), (3, 50, 6)])
def test_an_invite_lets_in_as_many_as_it_has_uses(db: Database, uses: int, tries: int, rounds: int) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
    for round_ in range(rounds):
        with db.transaction() as conn:
            code = invites.create_for_owner(conn, project.id, uses=uses, actor="cli").code
        outcomes = run_numbered_concurrently(
            db, tries, lambda conn, number: invite_redemption.redeem(conn, code, name=f"guest-{round_}-{number}")  # noqa: B023
        )  # fmt: skip
        assert len(successes(outcomes)) == uses
        assert {one.data["reason"] for one in failures(outcomes) if isinstance(one, BusError)} == {"exhausted"}
        assert all(isinstance(one, BusError) for one in failures(outcomes))
        with db.connection() as conn:
            (invite,) = invites.list_invites(conn, project.id, limit=1)
            assert (invite.used, invite.state) == (uses, "exhausted")
            assert conn.fetch_one("SELECT count(*) FROM invite_redemption WHERE invite_id = %s", (invite.id,)) == (
                uses,
            )
            assert len(participations.list_participations(conn, project.id)) == uses * (round_ + 1)
            for granted in successes(outcomes):
                participant_queries.whoami(conn, factories.authenticate_agent(conn, granted).ctx)


def test_an_invite_that_is_revoked_while_it_is_redeemed_does_one_or_the_other(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
    seen = set()
    for round_ in range(60):
        with db.transaction() as conn:
            created = invites.create_for_owner(conn, project.id, actor="cli")
        redeemed, revoked = run_concurrently(
            db,
            lambda conn: invite_redemption.redeem(conn, created.code, name=f"guest-{round_}"),  # noqa: B023
            lambda conn: invites.revoke(conn, project.id, created.id, actor="cli"),  # noqa: B023
        )
        assert revoked is True
        with db.connection() as conn:
            (invite,) = invites.list_invites(conn, project.id, limit=1)
        assert invite.state == "revoked"
        assert invite.used == int(isinstance(redeemed, IssuedParticipation))
        if not invite.used:
            assert redeemed.data["reason"] == "invalid"
        seen.add(invite.used)
    assert seen


def test_a_name_that_two_want_at_once_goes_to_one(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        admins = [factories.make_agent(conn, project, is_admin=True) for _ in range(2)]
    for round_ in range(40):
        outcomes = run_numbered_concurrently(
            db, 2, lambda conn, n: participations.provision(conn, admins[n].ctx, f"{('New', 'nEW')[n]}-{round_}")  # noqa: B023
        )  # fmt: skip
        assert len(successes(outcomes)) == 1
        (lost,) = failures(outcomes)
        assert isinstance(lost, BusError)
        assert lost.code == "conflict"
    with db.connection() as conn:
        assert len(participations.list_participations(conn, project.id)) == 42


def test_a_newcomer_to_two_projects_at_once_is_one_participant(db: Database) -> None:
    with db.transaction() as conn:
        owner = factories.make_owner(conn)
        both = [factories.make_project(conn, None, owner) for _ in range(2)]
    for round_ in range(40):
        outcomes = run_numbered_concurrently(
            db, 2, lambda conn, n: participations.join(conn, both[n].id, f"new-{round_}", actor="cli")
        )  # noqa: B023
        assert failures(outcomes) == []
        with db.connection() as conn:
            people = {factories.authenticate_agent(conn, granted).ctx.participant_id for granted in outcomes}
        assert len(people) == 1


def test_projects_of_one_name_at_once_are_one(db: Database) -> None:
    with db.transaction() as conn:
        owner = factories.make_owner(conn)
    for round_ in range(20):
        outcomes = run_numbered_concurrently(
            db, 4, lambda conn, _: projects.add(conn, owner.id, f"p-{round_}", actor="cli")
        )  # noqa: B023
        assert len(successes(outcomes)) == 1
        assert {one.code for one in failures(outcomes) if isinstance(one, BusError)} == {"conflict"}


def test_a_rotation_while_the_old_token_calls_lets_each_call_do_all_or_nothing(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        agent = factories.make_agent(conn, project, "bob")
    done = 0
    for _ in range(60):
        old = agent
        rotated, *calls = run_concurrently(
            db,
            lambda conn: tokens.rotate(conn, project.id, "bob", actor="cli"),
            *[lambda conn: sequences.claim(conn, old.ctx, "s").number] * 3,  # noqa: B023
        )
        assert all(isinstance(one, NotAuthenticated) for one in failures(calls)), calls
        done += len(successes(calls))
        with db.connection() as conn:
            agent = factories.authenticate_agent(conn, rotated)
            assert assert_ledger_consistent(conn, project.id) == done
            with pytest.raises(NotAuthenticated):
                sequences.claim(conn, old.ctx, "s")
            participant_queries.whoami(conn, agent.ctx)


def test_rotations_at_once_leave_one_token_alive(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        factories.make_agent(conn, project, "bob")
    for _ in range(20):
        rotated = run_numbered_concurrently(
            db, 4, lambda conn, _: tokens.rotate(conn, project.id, "bob", actor="cli")
        )
        assert failures(rotated) == []

        def works(conn: Connection, granted: IssuedParticipation) -> bool:
            try:
                participant_queries.whoami(conn, factories.authenticate_agent(conn, granted).ctx)
            except NotAuthenticated:
                return False
            return True

        with db.connection() as conn:
            assert sum(works(conn, granted) for granted in rotated) == 1


def test_archiving_while_others_write_stops_them_and_keeps_the_ledger_whole(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        agent = factories.make_agent(conn, project)
    for _ in range(20):
        outcomes = run_concurrently(
            db,
            lambda conn: projects.archive(conn, project.id, actor="cli"),
            *[lambda conn: sequences.claim(conn, agent.ctx, "s").number] * 4,
        )
        assert outcomes[0] is True
        for lost in failures(outcomes):
            assert isinstance(lost, BusError)
            assert lost.code == "forbidden"
        with db.connection() as conn:
            count = assert_ledger_consistent(conn, project.id)
            with pytest.raises(BusError, match="archived"):
                sequences.claim(conn, agent.ctx, "s")
            assert assert_ledger_consistent(conn, project.id) == count
        with db.transaction() as conn:
            projects.reopen(conn, project.id, actor="cli")
