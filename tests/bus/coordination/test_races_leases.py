"""Concurrent leases: the lease with the higher fence names the other."""

import itertools

import pytest

from bus.coordination import leases
from bus.db import Connection, Database
from bus.rules.surfaces import overlaps
from tests import factories
from tests.assertions import assert_ledger_consistent, list_event_types
from tests.concurrency import run_concurrently, run_numbered_concurrently
from tests.factories import Agent


def _agents(db: Database, count: int) -> list[Agent]:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        return [factories.make_agent(conn, project) for _ in range(count)]


_LITERAL = ["src/{round}/api"]
_NESTED = ["src/{round}", "src/{round}/api", "src/{round}/api/routes.py", "**"]
_GLOBS = ["src/{round}/**/*.py", "src/{round}/api", "src/{round}/*/x*.py", "**/x?.py", "{{src,docs}}/{round}/**"]


@pytest.mark.parametrize("surfaces", [_LITERAL, _NESTED, _GLOBS])
def test_each_of_twenty_overlapping_leases_names_exactly_the_earlier_ones(db: Database, surfaces: list[str]) -> None:
    agents = _agents(db, 20)
    names = {agent.actor: number for number, agent in enumerate(agents)}
    for round_ in range(6):
        wanted = [surfaces[number % len(surfaces)].format(round=round_) for number in range(20)]
        taken = run_numbered_concurrently(
            db, 20, lambda conn, number: leases.acquire(conn, agents[number].ctx, wanted[number])  # noqa: B023
        )  # fmt: skip
        assert all(isinstance(one, leases.Lease) for one in taken), taken
        order = sorted(range(20), key=lambda number: taken[number].fence)
        assert len({one.fence for one in taken}) == 20
        for position, number in enumerate(order):
            earlier = [other for other in order[:position] if overlaps(wanted[number], wanted[other])]
            assert [names[other.actor] for other in taken[number].others] == earlier
            if surfaces is _LITERAL:
                assert len(earlier) == position
        with db.connection() as conn:
            held = leases.list_leases(conn, agents[0].ctx).leases
            assert [(names[one.actor], one.fence) for one in held] == [
                (number, taken[number].fence) for number in reversed(order)
            ]
        for agent in agents:
            with db.transaction() as conn:
                leases.release(conn, agent.ctx, "*")
    with db.connection() as conn:
        assert assert_ledger_consistent(conn, agents[0].ctx.project_id) == 6 * 40


def test_exactly_one_of_two_overlapping_leases_names_the_other(db: Database) -> None:
    ada, bob = _agents(db, 2)
    pairs = itertools.cycle([("src", "src/a.py"), ("src/*.py", "src/a.py"), ("**", "docs"), ("x", "x")])
    for round_, (first, second) in zip(range(100), pairs, strict=False):
        folder = f"r{round_}/" if first != "**" else ""
        ada_lease, bob_lease = run_concurrently(
            db,
            lambda conn: leases.acquire(conn, ada.ctx, folder + first),  # noqa: B023
            lambda conn: leases.acquire(conn, bob.ctx, folder + second),  # noqa: B023
        )
        early, late = sorted((ada_lease, bob_lease), key=lambda lease: lease.fence)
        assert len(late.others) == 1, (first, second)
        assert late.others[0].surface == early.surface
        assert early.others == []
        for agent in (ada, bob):
            with db.transaction() as conn:
                leases.release(conn, agent.ctx, "*")


def test_concurrent_leases_of_one_identity_are_one_lease(db: Database) -> None:
    (ada,) = _agents(db, 1)
    for round_ in range(30):
        taken = run_numbered_concurrently(db, 5, lambda conn, _: leases.acquire(conn, ada.ctx, f"src/{round_}"))  # noqa: B023
        assert len({lease.fence for lease in taken}) == 1
        assert sorted(lease.renewed for lease in taken) == [False, True, True, True, True]
    with db.connection() as conn:
        assert list_event_types(conn, ada.ctx.project_id) == ["lease"] * 30


def test_concurrent_releases_end_each_lease_once(db: Database) -> None:
    (ada,) = _agents(db, 1)
    for _ in range(30):
        with db.transaction() as conn:
            for surface in ("a", "b", "c"):
                leases.acquire(conn, ada.ctx, surface)
        outcomes = run_concurrently(
            db,
            *[lambda conn: leases.release(conn, ada.ctx, "*").released] * 3,
            lambda conn: leases.release(conn, ada.ctx, "a").released,
        )
        assert sum(outcomes) == 3
    with db.connection() as conn:
        assert assert_ledger_consistent(conn, ada.ctx.project_id) == 30 * 6


def test_concurrent_leases_of_an_expired_surface_record_one_expiry(db: Database) -> None:
    (ada,) = _agents(db, 1)

    def expire(conn: Connection) -> None:
        conn.raw.execute("UPDATE lease SET expires_at = clock_timestamp() WHERE ended_at IS NULL")

    for _ in range(30):
        with db.transaction() as conn:
            leases.acquire(conn, ada.ctx, "src")
            expire(conn)
        taken = run_numbered_concurrently(db, 4, lambda conn, _: leases.acquire(conn, ada.ctx, "src"))
        assert sorted(lease.renewed for lease in taken) == [False, True, True, True]
        with db.transaction() as conn:
            assert list_event_types(conn, ada.ctx.project_id)[-3:] == ["lease", "lease_expire", "lease"]
            leases.release(conn, ada.ctx, "src")
