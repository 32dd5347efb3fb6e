"""Concurrent claims, seeds and idempotency keys."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from bus.coordination import posts, sequences, tasks
from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.errors import BusError
from bus.tenancy import projects
from tests import factories
from tests.assertions import assert_ledger_consistent, list_event_types, list_events
from tests.concurrency import run_concurrently, run_jobs_concurrently, successes


class _RollbackError(Exception):
    """Raised to roll a transaction back."""


def test_five_hundred_concurrent_claims_give_five_hundred_numbers_without_a_gap(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        agents = [factories.make_agent(conn, project) for _ in range(4)]
    remaining = iter(range(500))
    claims: list[sequences.Claim] = []

    def work(ctx: Ctx) -> None:
        for _ in remaining:
            with db.connection() as conn:
                claims.append(sequences.claim(conn, ctx, "adr"))

    run_jobs_concurrently(*(lambda ctx=agents[n % 4].ctx: work(ctx) for n in range(32)))
    assert sorted(claim.number for claim in claims) == list(range(1, 501))
    with db.connection() as conn:
        assert assert_ledger_consistent(conn, project.id) == 500
        recorded = [payload["number"] for _, _, payload in list_events(conn, project.id)]
        # The order of the numbers is the order of the ledger.
        assert recorded == list(range(1, 501))


def test_claims_that_do_not_commit_consume_nothing(db: Database) -> None:
    with db.transaction() as conn:
        agent = factories.make_agent(conn)
    remaining = iter(range(300))
    claims: list[int] = []

    def work() -> None:
        for number in remaining:
            try:
                with db.transaction() as conn:
                    claimed = sequences.claim(conn, agent.ctx, "adr").number
                    if number % 10 == 0:
                        raise _RollbackError
            except _RollbackError:
                continue
            claims.append(claimed)

    outcomes = run_jobs_concurrently(*[work] * 16)
    assert outcomes == [None] * 16
    assert sorted(claims) == list(range(1, 271))
    with db.connection() as conn:
        assert assert_ledger_consistent(conn, agent.ctx.project_id) == 270


def test_concurrent_claims_of_different_sequences_keep_the_ledger_consistent(db: Database) -> None:
    with db.transaction() as conn:
        agent = factories.make_agent(conn)

    def work(name: str) -> list[int]:
        numbers = []
        for _ in range(20):
            with db.connection() as conn:
                numbers.append(sequences.claim(conn, agent.ctx, name).number)
        return numbers

    outcomes = run_jobs_concurrently(*(lambda name=f"s{n}": work(name) for n in range(8)))
    assert outcomes == [list(range(1, 21))] * 8
    with db.connection() as conn:
        assert assert_ledger_consistent(conn, agent.ctx.project_id) == 160


@pytest.mark.parametrize("exists", [True, False])
def test_concurrent_seeds_neither_repeat_nor_rewind_numbers(db: Database, exists: bool) -> None:
    """Also when the seed and the claims all create the sequence."""
    with db.transaction() as conn:
        admin = factories.make_agent(conn, is_admin=True)
    for round_ in range(40):
        name = f"s{round_}"
        if exists:
            with db.transaction() as conn:
                sequences.claim(conn, admin.ctx, name)
        outcomes = run_concurrently(
            db,
            *[lambda conn: ("claim", sequences.claim(conn, admin.ctx, name).number)] * 4,  # noqa: B023
            lambda conn: ("seed", sequences.seed(conn, admin.ctx, name, 3).current),  # noqa: B023
            lambda conn: ("seed", sequences.seed(conn, admin.ctx, name, 50, prefix="N-").current),  # noqa: B023
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                # Only the low seed can come too late; it is a conflict then.
                assert isinstance(outcome, BusError)
                assert outcome.code == "conflict"
        claimed = [value for kind, value in successes(outcomes) if kind == "claim"]
        assert len(set(claimed)) == 4
        with db.connection() as conn:
            steps = [
                (kind, int(payload.get("number", payload.get("current", 0))))
                for _, kind, payload in list_events(conn, admin.ctx.project_id)
                if payload["sequence"] == name
            ]
            (current,) = conn.fetch_one(
                "SELECT current FROM sequence WHERE project_id = %s AND name = %s", (admin.ctx.project_id, name)
            )
        # In ledger order each claim adds one, and no seed goes back.
        counter = 0
        for kind, value in steps:
            assert value == counter + 1 if kind == "claim" else value >= counter, steps
            counter = value
        assert current == counter >= 50
    with db.connection() as conn:
        assert_ledger_consistent(conn, admin.ctx.project_id)


def _claim(conn: Connection, ctx: Ctx, key: str) -> Any:
    return sequences.claim(conn, ctx, "adr", idempotency_key=key)


def _post(conn: Connection, ctx: Ctx, key: str) -> Any:
    return posts.create(conn, ctx, "hello", to_lane="core", to_actor="bob", idempotency_key=key)


def _task(conn: Connection, ctx: Ctx, key: str) -> Any:
    return tasks.create(conn, ctx, "build it", owner="bob", idempotency_key=key)


@pytest.mark.parametrize("call", [_claim, _post, _task])
def test_concurrent_calls_with_one_key_have_one_effect_and_one_result(
    db: Database, call: Callable[[Connection, Ctx, str], Any]
) -> None:
    with db.transaction() as conn:
        agent = factories.make_agent(conn)
        factories.make_agent(conn, projects.get(conn, agent.ctx.project_id), "bob", lane="core")
    for round_ in range(60):
        answers = run_concurrently(db, *[lambda conn: call(conn, agent.ctx, f"k{round_}")] * 3)  # noqa: B023
        assert answers == [answers[0]] * 3
        assert not isinstance(answers[0], BaseException)
        with db.connection() as conn:
            assert assert_ledger_consistent(conn, agent.ctx.project_id) == round_ + 1


def test_a_key_is_free_again_after_a_rollback(db: Database) -> None:
    with db.transaction() as conn:
        agent = factories.make_agent(conn)

    def undo(conn: Connection, key: str) -> None:
        _claim(conn, agent.ctx, key)
        raise _RollbackError

    for round_ in range(40):
        key = f"k{round_}"
        rolled_back, kept = run_concurrently(
            db,
            lambda conn: undo(conn, key),  # noqa: B023
            lambda conn: _claim(conn, agent.ctx, key),  # noqa: B023
        )
        assert isinstance(rolled_back, _RollbackError)
        assert kept.number == round_ + 1
    with db.connection() as conn:
        assert assert_ledger_consistent(conn, agent.ctx.project_id) == 40


def test_one_key_for_two_concurrent_tools_serves_one_of_them(db: Database) -> None:
    with db.transaction() as conn:
        agent = factories.make_agent(conn)
        factories.make_agent(conn, projects.get(conn, agent.ctx.project_id), "bob")
    pairs = itertools.cycle(itertools.permutations((_claim, _post, _task), 2))
    for round_, (first, second) in zip(range(36), pairs, strict=False):
        outcomes = run_concurrently(
            db,
            lambda conn: first(conn, agent.ctx, f"k{round_}"),  # noqa: B023
            lambda conn: second(conn, agent.ctx, f"k{round_}"),  # noqa: B023
        )
        assert len(successes(outcomes)) == 1
        (refused,) = [one for one in outcomes if isinstance(one, BusError)]
        assert refused.code == "key_reuse"
    with db.connection() as conn:
        assert len(list_event_types(conn, agent.ctx.project_id)) == 36
