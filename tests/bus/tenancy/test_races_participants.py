"""Races for invites, names and tokens."""

from collections.abc import Callable

import pytest

from bus.coordination import sequences
from bus.db import Connection, Database
from bus.errors import BusError, NotAuthenticated
from bus.tenancy import (
    invite_queries,
    invite_redemption,
    invites,
    participant_queries,
    participation_queries,
    participations,
    projects,
    tokens,
)
from bus.tenancy.participations import IssuedParticipation
from tests import factories
from tests.assertions import assert_ledger_consistent
from tests.concurrency import failures, run_concurrently, run_numbered_concurrently, successes


@pytest.mark.parametrize(("uses", "tries", "rounds"), [(1, 100, 3), (3, 50, 6)])
def test_concurrent_redemptions_never_exceed_the_uses_of_an_invite(
    db: Database, uses: int, tries: int, rounds: int
) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
    for round_ in range(rounds):
        with db.transaction() as conn:
            code = invites.create_for_owner(conn, project.id, uses=uses, actor="cli").code
        outcomes = run_numbered_concurrently(
            db, tries, lambda conn, number: invite_redemption.redeem(conn, code, name=f"guest-{round_}-{number}")  # noqa: B023
        )  # fmt: skip
        assert len(successes(outcomes)) == uses
        assert {error.data["reason"] for error in failures(outcomes) if isinstance(error, BusError)} == {"exhausted"}
        assert all(isinstance(error, BusError) for error in failures(outcomes))
        with db.connection() as conn:
            (invite,) = invite_queries.list_invites(conn, project.id, limit=1)
            assert (invite.used, invite.state) == (uses, "exhausted")
            assert conn.fetch_one("SELECT count(*) FROM invite_redemption WHERE invite_id = %s", (invite.id,)) == (
                uses,
            )
            assert len(participation_queries.list_participations(conn, project.id)) == uses * (round_ + 1)
            for issued in successes(outcomes):
                participant_queries.whoami(conn, factories.authenticate_agent(conn, issued).ctx)


def test_an_invite_that_is_revoked_while_it_is_redeemed_is_redeemed_or_invalid(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
    use_counts = set()
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
            (invite,) = invite_queries.list_invites(conn, project.id, limit=1)
        assert invite.state == "revoked"
        assert invite.used == int(isinstance(redeemed, IssuedParticipation))
        if not invite.used:
            assert redeemed.data["reason"] == "invalid"
        use_counts.add(invite.used)
    assert use_counts


def test_of_two_concurrent_requests_for_a_name_one_succeeds(db: Database) -> None:
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
        assert len(participation_queries.list_participations(conn, project.id)) == 42


def test_joining_two_projects_concurrently_creates_one_participant(db: Database) -> None:
    with db.transaction() as conn:
        owner = factories.make_owner(conn)
        both = [factories.make_project(conn, None, owner) for _ in range(2)]
    for round_ in range(40):
        outcomes = run_numbered_concurrently(
            db,
            2,
            lambda conn, n: participations.join(conn, both[n].id, f"new-{round_}", actor="cli"),  # noqa: B023
        )
        assert failures(outcomes) == []
        with db.connection() as conn:
            participant_ids = {factories.authenticate_agent(conn, issued).ctx.participant_id for issued in outcomes}
        assert len(participant_ids) == 1


def test_concurrent_requests_create_one_project_of_a_name(db: Database) -> None:
    with db.transaction() as conn:
        owner = factories.make_owner(conn)
    for round_ in range(20):
        outcomes = run_numbered_concurrently(
            db,
            4,
            lambda conn, _: projects.add(conn, owner.id, f"p-{round_}", actor="cli"),  # noqa: B023
        )
        assert len(successes(outcomes)) == 1
        assert {error.code for error in failures(outcomes) if isinstance(error, BusError)} == {"conflict"}


def test_calls_with_the_old_token_during_a_rotation_succeed_or_are_refused(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        agent = factories.make_agent(conn, project, "bob")
    claimed = 0
    for _ in range(60):
        old = agent
        rotated, *calls = run_concurrently(
            db,
            lambda conn: tokens.rotate(conn, project.id, "bob", actor="cli"),
            *[lambda conn: sequences.claim(conn, old.ctx, "s").number] * 3,  # noqa: B023
        )
        assert all(isinstance(error, NotAuthenticated) for error in failures(calls)), calls
        claimed += len(successes(calls))
        with db.connection() as conn:
            agent = factories.authenticate_agent(conn, rotated)
            assert assert_ledger_consistent(conn, project.id) == claimed
            with pytest.raises(NotAuthenticated):
                sequences.claim(conn, old.ctx, "s")
            participant_queries.whoami(conn, agent.ctx)


def test_concurrent_rotations_leave_one_valid_token(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        factories.make_agent(conn, project, "bob")
    for _ in range(20):
        rotated = run_numbered_concurrently(db, 4, lambda conn, _: tokens.rotate(conn, project.id, "bob", actor="cli"))
        assert failures(rotated) == []

        def is_valid(conn: Connection, issued: IssuedParticipation) -> bool:
            try:
                participant_queries.whoami(conn, factories.authenticate_agent(conn, issued).ctx)
            except NotAuthenticated:
                return False
            return True

        with db.connection() as conn:
            assert sum(is_valid(conn, issued) for issued in rotated) == 1


def test_archiving_during_writes_refuses_them_and_keeps_the_ledger_consistent(db: Database) -> None:
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


@pytest.mark.parametrize("loss", ["demote", "remove", "rotate", "revoke"])
def test_an_invite_that_is_redeemed_beside_its_creators_loss_of_rights_is_redeemed_first_or_void(
    db: Database, loss: str
) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
    losses: dict[str, Callable[[Connection, str], object]] = {
        "demote": lambda conn, name: participations.set_admin(conn, project.id, name, False, actor="cli"),
        "remove": lambda conn, name: participations.remove(conn, project.id, name, actor="cli"),
        "rotate": lambda conn, name: tokens.rotate(conn, project.id, name, actor="cli"),
        "revoke": lambda conn, name: tokens.revoke_all(conn, project.id, name, actor="cli"),
    }
    for round_ in range(25):
        with db.transaction() as conn:
            admin = factories.make_agent(conn, project, is_admin=True)
            first = invites.create(conn, admin.ctx, is_admin=True, uses=3)
        redeemed, created, lost, again = run_concurrently(
            db,
            lambda conn: invite_redemption.redeem(conn, first.code, name=f"a-{round_}"),  # noqa: B023
            lambda conn: invites.create(conn, admin.ctx, is_admin=True),  # noqa: B023
            lambda conn: losses[loss](conn, admin.label),  # noqa: B023
            lambda conn: invite_redemption.redeem(conn, first.code, name=f"b-{round_}"),  # noqa: B023
        )
        assert not isinstance(lost, Exception), lost
        for outcome in failures([redeemed, again]):
            assert isinstance(outcome, BusError), outcome
            assert outcome.data["reason"] == "invalid"
        with db.connection() as conn:
            listed = invite_queries.list_invites(conn, project.id, limit=2)
            assert {invite.state for invite in listed if invite.created_by == admin.actor} == {"revoked"}
        # An invite that was created while the rights were withdrawn is void as well.
        codes = [first.code] if isinstance(created, Exception) else [first.code, created.code]
        for code in codes:
            with db.transaction() as conn, pytest.raises(BusError, match="not valid"):
                invite_redemption.redeem(conn, code, name=f"late-{round_}")
