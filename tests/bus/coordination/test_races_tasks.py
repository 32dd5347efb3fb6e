"""Concurrent writes of tasks: one start, no cycle, no blocker that is done, no edit lost."""

from typing import Any

from bus.coordination import task_edits, task_queries, tasks
from bus.coordination.task_edits import TaskTexts
from bus.db import Connection, Database
from bus.errors import BusError
from tests import factories
from tests.assertions import assert_ledger_consistent, list_event_types
from tests.concurrency import failures, run_concurrently, run_numbered_concurrently, successes
from tests.factories import Agent


def _agents(db: Database, count: int) -> list[Agent]:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        return [factories.make_agent(conn, project) for _ in range(count)]


def _codes(outcomes: list[object]) -> set[str]:
    refused = failures(outcomes)
    assert all(isinstance(error, BusError) for error in refused), refused
    return {error.code for error in refused}


def test_of_twenty_concurrent_starts_one_succeeds(db: Database) -> None:
    agents = _agents(db, 20)
    for _ in range(15):
        with db.transaction() as conn:
            task = tasks.create(conn, agents[0].ctx, "contended").task_id
        outcomes = run_numbered_concurrently(db, 20, lambda conn, number: tasks.start(conn, agents[number].ctx, task))  # noqa: B023
        assert len(successes(outcomes)) == 1
        assert _codes(outcomes) == {"wrong_state"}
        with db.connection() as conn:
            (listed,) = task_queries.list_tasks(conn, agents[0].ctx, limit=1).tasks
        assert listed.owner == agents[outcomes.index(successes(outcomes)[0])].actor
    with db.connection() as conn:
        assert list_event_types(conn, agents[0].ctx.project_id) == ["task_create", "task_start"] * 15


def test_twenty_concurrent_calls_of_next_take_different_tasks(db: Database) -> None:
    agents = _agents(db, 20)
    for _ in range(5):
        with db.transaction() as conn:
            made = {tasks.create(conn, agents[0].ctx, "x").task_id for _ in range(15)}
        outcomes = run_numbered_concurrently(
            db, 20, lambda conn, number: tasks.start_next(conn, agents[number].ctx).task
        )
        taken = [one.task_id for one in outcomes if one is not None]
        assert len(taken) == 15
        assert set(taken) == made


def test_of_five_concurrent_ships_one_succeeds(db: Database) -> None:
    (ada,) = _agents(db, 1)
    for _ in range(20):
        with db.transaction() as conn:
            task = tasks.create(conn, ada.ctx, "x").task_id
            tasks.start(conn, ada.ctx, task)
        outcomes = run_numbered_concurrently(db, 5, lambda conn, _: tasks.ship(conn, ada.ctx, task))  # noqa: B023
        assert len(successes(outcomes)) == 1
        assert _codes(outcomes) == {"wrong_state"}


def test_blocking_on_a_task_while_it_ships_leaves_no_open_blocker(db: Database) -> None:
    (ada,) = _agents(db, 1)
    seen = set()
    for _ in range(120):
        with db.transaction() as conn:
            first, second = (tasks.create(conn, ada.ctx, "x").task_id for _ in range(2))
            for task in (first, second):
                tasks.start(conn, ada.ctx, task)
        blocked, shipped = run_concurrently(
            db,
            lambda conn: tasks.block(conn, ada.ctx, second, "waits", on=first),  # noqa: B023
            lambda conn: tasks.ship(conn, ada.ctx, first),  # noqa: B023
        )
        assert isinstance(shipped, tasks.ShippedTask)
        if isinstance(blocked, BusError):
            assert (blocked.code, blocked.data) == ("wrong_state", {"status": "done"})
            assert shipped.unblocked == []
        else:
            assert shipped.unblocked == [second]
        seen.add(type(blocked))
        with db.connection() as conn:
            (listed, _) = task_queries.list_tasks(conn, ada.ctx, limit=2).tasks
        assert (listed.task_id, listed.status, listed.blockers) == (second, "in_progress", [])
    with db.connection() as conn:
        assert_ledger_consistent(conn, ada.ctx.project_id)
    assert seen == {tasks.TaskStatus, BusError}, "only one order occurred, so the test is not meaningful"


def test_a_task_created_on_a_shipping_blocker_becomes_ready(db: Database) -> None:
    (ada,) = _agents(db, 1)
    for _ in range(60):
        with db.transaction() as conn:
            first = tasks.create(conn, ada.ctx, "x").task_id
            tasks.start(conn, ada.ctx, first)
        created, shipped = run_concurrently(
            db,
            lambda conn: tasks.create(conn, ada.ctx, "later", blocked_on=[first]),  # noqa: B023
            lambda conn: tasks.ship(conn, ada.ctx, first),  # noqa: B023
        )
        assert shipped.unblocked in ([], [created.task_id])
        with db.connection() as conn:
            (listed,) = task_queries.list_tasks(conn, ada.ctx, ready=True).tasks
            assert listed.task_id == created.task_id
        with db.transaction() as conn:
            tasks.start(conn, ada.ctx, created.task_id)


def test_of_two_tasks_that_block_each_other_one_is_refused(db: Database) -> None:
    (ada,) = _agents(db, 1)
    for _ in range(120):
        with db.transaction() as conn:
            first, second = (tasks.create(conn, ada.ctx, "x").task_id for _ in range(2))
            for task in (first, second):
                tasks.start(conn, ada.ctx, task)
        outcomes = run_concurrently(
            db,
            lambda conn: tasks.block(conn, ada.ctx, first, "waits", on=second),  # noqa: B023
            lambda conn: tasks.block(conn, ada.ctx, second, "waits", on=first),  # noqa: B023
        )
        assert len(successes(outcomes)) == 1
        assert _codes(outcomes) == {"conflict"}


def test_a_cycle_of_five_tasks_is_refused(db: Database) -> None:
    (ada,) = _agents(db, 1)
    for _ in range(20):
        with db.transaction() as conn:
            ring = [tasks.create(conn, ada.ctx, "x").task_id for _ in range(5)]
            for task in ring:
                tasks.start(conn, ada.ctx, task)
        outcomes = run_numbered_concurrently(
            db, 5, lambda conn, n: tasks.block(conn, ada.ctx, ring[n], "waits", on=ring[(n + 1) % 5])  # noqa: B023
        )  # fmt: skip
        assert len(successes(outcomes)) == 4
        assert _codes(outcomes) == {"conflict"}


def test_tasks_created_concurrently_have_distinct_numbers(db: Database) -> None:
    agents = _agents(db, 16)
    for round_ in range(5):
        outcomes = run_numbered_concurrently(
            db, 16, lambda conn, number: tasks.create(conn, agents[number].ctx, "x").task_id
        )
        assert sorted(outcomes) == list(range(round_ * 16 + 1, round_ * 16 + 17))
    with db.connection() as conn:
        assert assert_ledger_consistent(conn, agents[0].ctx.project_id) == 80


def test_resolving_two_blockers_concurrently_makes_the_task_ready(db: Database) -> None:
    (ada,) = _agents(db, 1)
    for _ in range(40):
        with db.transaction() as conn:
            first, second = (tasks.create(conn, ada.ctx, "x").task_id for _ in range(2))
            waiting = tasks.create(conn, ada.ctx, "waiting", blocked_on=[first, second]).task_id
            tasks.start(conn, ada.ctx, first)
        outcomes = run_concurrently(
            db,
            lambda conn: tasks.ship(conn, ada.ctx, first).unblocked,  # noqa: B023
            lambda conn: tasks.resolve(conn, ada.ctx, waiting, blocker=second).status,  # noqa: B023
        )
        assert outcomes[1] == "open"
        with db.transaction() as conn:
            assert tasks.start(conn, ada.ctx, waiting).status == "in_progress"


def test_of_two_edits_of_the_same_texts_one_is_refused(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        editors = [factories.make_agent(conn, project, is_admin=True) for _ in range(2)]
        task = tasks.create(conn, editors[0].ctx, "first").task_id
    texts = TaskTexts("first", None, None, 2)
    for attempt in range(10):
        changes = [TaskTexts(f"{number} in attempt {attempt}", None, None, 2) for number in range(2)]

        def edit(conn: Connection, number: int, changes: list[TaskTexts] = changes, seen: str = texts.version) -> Any:
            return task_edits.edit(conn, editors[number].ctx, task, changes[number], seen=seen)

        outcomes = run_numbered_concurrently(db, 2, edit)
        assert (len(successes(outcomes)), _codes(outcomes)) == (1, {"conflict"})
        texts = changes[outcomes.index(successes(outcomes)[0])]
        with db.connection() as conn:
            assert task_queries.get_task(conn, editors[0].ctx, task).title == texts.title
