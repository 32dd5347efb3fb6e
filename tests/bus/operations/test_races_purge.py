"""Races of a purge with calls: callers get only expected errors, and no row is left."""

from collections.abc import Callable
from typing import Any

import pytest

from bus.coordination import leases, posts, presence, sequences, tasks
from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.errors import BusError, NotAuthenticated
from bus.operations import project_purge
from bus.tables import COORDINATION_TABLES
from bus.tenancy.projects import Project
from tests import factories
from tests.concurrency import failures, run_concurrently, run_jobs_concurrently
from tests.factories import Agent

_CALLS: list[Callable[[Connection, Ctx], Any]] = [
    lambda conn, ctx: sequences.claim(conn, ctx, "s"),
    lambda conn, ctx: posts.create(conn, ctx, "hello", to_lane="core"),
    lambda conn, ctx: posts.create(conn, ctx, "hello", to_actor="mate"),
    lambda conn, ctx: tasks.create(conn, ctx, "x"),
    lambda conn, ctx: leases.acquire(conn, ctx, "src"),
    lambda conn, ctx: presence.register(conn, ctx, "core", status=str(ctx.token_id)),
]
_ROW_COUNTS_SQL = " UNION ALL ".join(
    f"SELECT '{table.name}', count(*) FROM {table.name} WHERE project_id = %(p)s"
    for table in sorted(COORDINATION_TABLES, key=lambda table: table.name)
)


def _is_expected_refusal(outcome: Any) -> bool:
    """Whether a call was refused as archived (it waited for the purge) or as not authenticated (it came later)."""
    return isinstance(outcome, NotAuthenticated) or (isinstance(outcome, BusError) and outcome.code == "forbidden")


def test_a_purge_during_calls_leaves_no_row(db: Database) -> None:
    for _ in range(15):
        with db.transaction() as conn:
            project = factories.make_project(conn)
            agents = [factories.make_agent(conn, project, lane="core") for _ in _CALLS]
            factories.make_agent(conn, project, "mate", lane="core")

        def use(agent: Agent, call: Callable[[Connection, Ctx], Any]) -> None:
            while True:
                with db.transaction() as conn:
                    call(conn, agent.ctx)

        def purge(project: Project = project) -> None:
            with db.transaction() as conn:
                project_purge.begin_purge(conn, project.id, actor="cli")
            done = False
            while not done:
                with db.transaction() as conn:
                    done = project_purge.purge_step(conn, project.id)

        outcomes = run_jobs_concurrently(
            *(lambda a=agent, c=call: use(a, c) for agent, call in zip(agents, _CALLS, strict=True)), purge
        )
        assert outcomes[-1] is None
        assert len(failures(outcomes)) == len(_CALLS)
        assert all(_is_expected_refusal(lost) for lost in failures(outcomes)), failures(outcomes)
        with db.connection() as conn:
            assert [row for row in conn.fetch_all(_ROW_COUNTS_SQL, {"p": project.id}) if row[1]] == []


@pytest.mark.parametrize("call", _CALLS)
def test_a_write_that_waited_until_the_end_of_the_purge_is_refused(
    db: Database, call: Callable[[Connection, Ctx], Any]
) -> None:
    """It was authenticated before the purge began and locks the clock when the row is gone."""
    with db.transaction() as conn:
        project = factories.make_project(conn)
        agent = factories.make_agent(conn, project)
        factories.make_agent(conn, project, "mate")
    with db.connection() as conn:
        # The state that such a call reads: a valid caller and no clock.
        conn.raw.execute("DELETE FROM project_clock WHERE project_id = %s", (project.id,))
    (outcome,) = run_concurrently(db, lambda conn: call(conn, agent.ctx))
    assert _is_expected_refusal(outcome), outcome
    with db.connection() as conn:
        assert [row for row in conn.fetch_all(_ROW_COUNTS_SQL, {"p": project.id}) if row[1]] == []
