"""list_tasks: filters, their combinations and pages."""

import itertools
from typing import Any

import pytest

from bus.coordination import task_queries, tasks
from bus.db import Connection
from tests.assertions import assert_refused
from tests.factories import Agent

_STATUSES = ["open", "assigned", "in_progress", "blocked", "done"]


@pytest.fixture
def made(conn: Connection, ada: Agent, bob: Agent) -> list[task_queries.Task]:
    """Thirty tasks of every status, lane and owner, some of them with blockers; newest first."""
    first = tasks.create(conn, ada.ctx, "the first").task_id
    for number, status in zip(range(29), itertools.cycle(_STATUSES), strict=False):
        agent, name = ((ada, "ada"), (bob, "bob"))[number % 2]
        lane = (None, "core", "docs")[number % 3]
        waits = [first] if status in ("open", "assigned") and number % 4 == 0 else []
        owner = name if status == "assigned" else None
        task = tasks.create(conn, ada.ctx, f"task {number}", lane=lane, owner=owner, blocked_on=waits).task_id
        if status in ("in_progress", "blocked", "done"):
            tasks.start(conn, agent.ctx, task)
        if status == "blocked":
            tasks.block(conn, agent.ctx, task, "stuck", on=first)
        if status == "done":
            tasks.ship(conn, agent.ctx, task)
    return task_queries.list_tasks(conn, ada.ctx, limit=200).tasks


def _matches(task: task_queries.Task, filters: dict[str, Any], handle: str) -> bool:
    ready = task.status in ("open", "assigned") and not task.blockers
    return (
        filters.get("status") in (None, task.status)
        and filters.get("lane") in (None, task.lane)
        and ("owner" not in filters or task.owner == f"{handle}/{filters['owner']}")
        and filters.get("ready") in (None, ready)
    )


def test_every_combination_of_filters_returns_exactly_its_tasks(
    conn: Connection, ada: Agent, made: list[task_queries.Task]
) -> None:
    assert [task.task_id for task in made] == list(range(30, 0, -1))
    assert {task.status for task in made} == set(_STATUSES)
    found_any = 0
    for status, lane, owner, ready in itertools.product(
        (None, *_STATUSES), (None, "core", "nowhere"), (None, "ada", "bob"), (None, True, False)
    ):
        wanted = {"status": status, "lane": lane, "owner": owner, "ready": ready}
        filters: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
        expected = [task for task in made if _matches(task, filters, ada.handle)]
        found_any += bool(expected)
        assert task_queries.list_tasks(conn, ada.ctx, limit=200, **filters).tasks == expected, filters
    assert found_any > 40


@pytest.mark.parametrize("filters", [{}, {"status": "open"}, {"owner": "bob"}, {"lane": "core"}, {"ready": False}])
@pytest.mark.parametrize("limit", [1, 4, 200])
def test_pages_contain_every_task_once(
    conn: Connection, ada: Agent, made: list[task_queries.Task], filters: dict[str, Any], limit: int
) -> None:
    paged: list[task_queries.Task] = []
    before = None
    while True:
        page = task_queries.list_tasks(conn, ada.ctx, limit=limit, before=before, **filters)
        assert len(page.tasks) <= limit
        paged += page.tasks
        before = page.next_before
        if before is None:
            break
    assert paged == [task for task in made if _matches(task, filters, ada.handle)]


def test_blockers_have_their_task_and_reason(conn: Connection, ada: Agent) -> None:
    first = tasks.create(conn, ada.ctx, "first").task_id
    second = tasks.create(conn, ada.ctx, "second", blocked_on=[first]).task_id
    third = tasks.create(conn, ada.ctx, "third").task_id
    tasks.start(conn, ada.ctx, third)
    tasks.block(conn, ada.ctx, third, "the vendor")
    by_id = {task.task_id: task for task in task_queries.list_tasks(conn, ada.ctx).tasks}
    assert by_id[second].blockers == [task_queries.Blocker(first, None)]
    assert by_id[third].blockers == [task_queries.Blocker(None, "the vendor")]
    tasks.resolve(conn, ada.ctx, third)
    assert task_queries.list_tasks(conn, ada.ctx, limit=1).tasks[0].blockers == []


def test_a_list_omits_details(conn: Connection, ada: Agent) -> None:
    tasks.create(conn, ada.ctx, "x", detail="long " * 100)
    assert not hasattr(task_queries.list_tasks(conn, ada.ctx).tasks[0], "detail")
    taken = tasks.start_next(conn, ada.ctx).task
    assert taken is not None
    assert taken.detail == "long " * 100


def test_an_unknown_owner_is_refused(conn: Connection, ada: Agent) -> None:
    with assert_refused(conn, "unknown_recipient"):
        task_queries.list_tasks(conn, ada.ctx, owner="unknown")
