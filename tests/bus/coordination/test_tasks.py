"""Writes of tasks: the transitions, who may make them, and their events."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from bus import limits
from bus.coordination import ledger, posts, task_edits, task_queries, tasks
from bus.coordination.task_edits import TaskTexts
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError
from bus.tenancy import participations
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_ledger_consistent, assert_refused, database_checksum, list_event_types, list_events
from tests.factories import Agent, make_agent


@dataclass(frozen=True)
class _SampleTasks:
    """One task in each status, ada's or unassigned, and an assigned one with an open blocker."""

    open: int
    assigned: int
    in_progress: int
    blocked: int
    done: int
    waiting: int


@pytest.fixture
def samples(conn: Connection, ada: Agent) -> _SampleTasks:
    made = [
        tasks.create(conn, ada.ctx, name).task_id for name in ("open", "assigned", "in_progress", "blocked", "done")
    ]
    tasks.assign(conn, ada.ctx, made[1], "ada")
    for task in made[2:]:
        tasks.start(conn, ada.ctx, task)
    tasks.block(conn, ada.ctx, made[3], "stuck")
    tasks.ship(conn, ada.ctx, made[4])
    waiting = tasks.create(conn, ada.ctx, "waiting", owner="ada", blocked_on=[made[0]]).task_id
    return _SampleTasks(made[0], made[1], made[2], made[3], made[4], waiting)


def _status(conn: Connection, ctx: Ctx, task_id: int) -> str:
    (task,) = [
        task
        for task in task_queries.list_tasks(conn, ctx, before=task_id + 1, limit=1).tasks
        if task.task_id == task_id
    ]
    return task.status


_ACTIONS: dict[str, Callable[[Connection, Ctx, int], Any]] = {
    "assign": lambda conn, ctx, task: tasks.assign(conn, ctx, task, "ada"),
    "start": tasks.start,
    "block": lambda conn, ctx, task: tasks.block(conn, ctx, task, "stuck"),
    "resolve": tasks.resolve,
    "ship": tasks.ship,
}
_ALLOWED = {
    ("assign", "open"): "assigned",
    ("assign", "assigned"): "assigned",
    ("assign", "waiting"): "assigned",
    ("start", "open"): "in_progress",
    ("start", "assigned"): "in_progress",
    ("block", "in_progress"): "blocked",
    ("resolve", "blocked"): "in_progress",
    ("resolve", "waiting"): "assigned",
    ("ship", "in_progress"): "done",
}


@pytest.mark.parametrize("state", ["open", "assigned", "in_progress", "blocked", "done", "waiting"])
@pytest.mark.parametrize("action", _ACTIONS)
def test_every_action_in_every_status(
    conn: Connection, ada: Agent, samples: _SampleTasks, action: str, state: str
) -> None:
    task = getattr(samples, state)
    expected = _ALLOWED.get((action, state))
    before = database_checksum(conn)
    if expected is None:
        with assert_refused(conn, "wrong_state") as caught:
            _ACTIONS[action](conn, ada.ctx, task)
        assert caught.value.data["status"] == ("assigned" if state == "waiting" else state)
        assert database_checksum(conn) == before
        return
    assert _ACTIONS[action](conn, ada.ctx, task).status == expected
    assert _status(conn, ada.ctx, task) == expected
    if (action, state) in (("assign", "assigned"), ("assign", "waiting")):
        assert database_checksum(conn) == before
    else:
        assert list_event_types(conn, ada.ctx.project_id)[-1] == f"task_{action}"
    assert_ledger_consistent(conn, ada.ctx.project_id)


@pytest.mark.parametrize("action", _ACTIONS)
def test_a_task_that_does_not_exist_is_not_found(conn: Connection, ada: Agent, action: str) -> None:
    for task in (1, 2**53 - 1):
        with assert_refused(conn, "not_found") as caught:
            _ACTIONS[action](conn, ada.ctx, task)
        assert str(task) in caught.value.message


def test_tasks_are_numbered_from_one_and_refused_ones_take_no_number(conn: Connection, ada: Agent) -> None:
    assert tasks.create(conn, ada.ctx, "one").task_id == 1
    with assert_refused(conn, "unknown_recipient"):
        tasks.create(conn, ada.ctx, "never", owner="unknown")
    with assert_refused(conn, "not_found"):
        tasks.create(conn, ada.ctx, "never", blocked_on=[7])
    created = tasks.create(conn, ada.ctx, "two", detail="d", lane="core", owner="ada", priority=0, blocked_on=[1, 1])
    assert (created.task_id, created.status) == (2, "assigned")
    assert list_events(conn, ada.ctx.project_id)[1] == (
        2,
        "task_create",
        {"task_id": 2, "title": "two", "lane": "core", "owner": ada.actor, "priority": 0, "blocked_on": [1]},
    )
    (task, _) = task_queries.list_tasks(conn, ada.ctx).tasks
    assert (task.title, task.lane, task.owner, task.status, task.priority) == (
        "two", "core", ada.actor, "assigned", 0,
    )  # fmt: skip
    assert task.blockers == [task_queries.Blocker(1, None)]


def test_only_the_assignee_or_an_admin_starts_blocks_and_ships(
    conn: Connection, ada: Agent, bob: Agent, root: Agent, samples: _SampleTasks
) -> None:
    working = [
        ("start", samples.assigned),
        ("block", samples.in_progress),
        ("ship", samples.in_progress),
    ]
    before = database_checksum(conn)
    for action, task in working:
        with assert_refused(conn, "forbidden") as caught:
            _ACTIONS[action](conn, bob.ctx, task)
        assert ada.actor in caught.value.message
    assert database_checksum(conn) == before
    for action, task in working:
        with conn.raw.transaction(force_rollback=True):
            _ACTIONS[action](conn, root.ctx, task)
            # A task that an admin starts stays with its assignee.
            (owner,) = conn.fetch_one(
                "SELECT owner FROM task WHERE project_id = %s AND id = %s", (ada.ctx.project_id, task)
            )
            assert owner == ada.actor


def test_anyone_may_assign_and_resolve(conn: Connection, ada: Agent, bob: Agent, samples: _SampleTasks) -> None:
    assigned = tasks.assign(conn, bob.ctx, samples.assigned, "bob")
    assert (assigned.owner, assigned.status) == (bob.actor, "assigned")
    assert list_events(conn, bob.ctx.project_id)[-1][1:] == (
        "task_assign",
        {"task_id": samples.assigned, "owner": bob.actor},
    )
    assert tasks.start(conn, bob.ctx, samples.assigned).status == "in_progress"
    assert tasks.resolve(conn, bob.ctx, samples.blocked).status == "in_progress"
    with assert_refused(conn, "unknown_recipient"):
        tasks.assign(conn, bob.ctx, samples.open, "unknown")


def test_starting_an_open_task_assigns_it(conn: Connection, bob: Agent, samples: _SampleTasks) -> None:
    tasks.start(conn, bob.ctx, samples.open)
    assert conn.fetch_one(
        "SELECT owner FROM task WHERE project_id = %s AND id = %s", (bob.ctx.project_id, samples.open)
    ) == (bob.actor,)
    assert list_events(conn, bob.ctx.project_id)[-1][1:] == (
        "task_start",
        {"task_id": samples.open, "owner": bob.actor},
    )


def test_shipping_a_task_frees_the_tasks_that_it_blocks(conn: Connection, ada: Agent, bob: Agent) -> None:
    first, second, third = (tasks.create(conn, ada.ctx, str(n)).task_id for n in range(3))
    waiting = tasks.create(conn, ada.ctx, "waiting", blocked_on=[first, second]).task_id
    for task in (first, third):
        tasks.start(conn, ada.ctx, task)
    tasks.start(conn, bob.ctx, second)
    assert tasks.block(conn, bob.ctx, second, "needs the schema", on=first).status == "blocked"
    tasks.block(conn, ada.ctx, third, "needs both", on=first)
    start = len(list_events(conn, ada.ctx.project_id))
    shipped = tasks.ship(conn, ada.ctx, first, ref="PR-1")
    assert (shipped.status, shipped.unblocked) == ("done", [second, third])
    assert list_events(conn, ada.ctx.project_id)[start:] == [
        (start + 1, "task_ship", {"task_id": first, "ref": "PR-1", "unblocked": [second, third]}),
        (start + 2, "task_resolve", {"task_id": second, "blocker": first, "status": "in_progress"}),
        (start + 3, "task_resolve", {"task_id": third, "blocker": first, "status": "in_progress"}),
    ]
    # A task that was never blocked becomes ready with its last blocker, without an event of its own.
    shipped = tasks.ship(conn, bob.ctx, second)
    assert shipped.unblocked == [waiting]
    assert list_event_types(conn, ada.ctx.project_id)[-1] == "task_ship"
    assert tasks.start(conn, ada.ctx, waiting).status == "in_progress"


def test_a_task_can_start_after_its_last_blocker_is_resolved(conn: Connection, ada: Agent) -> None:
    first, second, third = (tasks.create(conn, ada.ctx, str(n)).task_id for n in range(3))
    waiting = tasks.create(conn, ada.ctx, "waiting", blocked_on=[first, second, third]).task_id
    with assert_refused(conn, "wrong_state") as caught:
        tasks.start(conn, ada.ctx, waiting)
    assert "3 blockers" in caught.value.message
    assert tasks.resolve(conn, ada.ctx, waiting, blocker=second).status == "open"
    with assert_refused(conn, "not_found"):
        tasks.resolve(conn, ada.ctx, waiting, blocker=second)
    with assert_refused(conn, "not_found"):
        tasks.resolve(conn, ada.ctx, waiting, blocker=99)
    tasks.start(conn, ada.ctx, first)
    assert tasks.ship(conn, ada.ctx, first).unblocked == []
    with assert_refused(conn, "wrong_state"):
        tasks.start(conn, ada.ctx, waiting)
    assert tasks.resolve(conn, ada.ctx, waiting).status == "open"
    tasks.start(conn, ada.ctx, waiting)
    with assert_refused(conn, "wrong_state"):
        tasks.resolve(conn, ada.ctx, waiting)


def test_a_blocker_that_is_done_is_ignored(conn: Connection, ada: Agent, samples: _SampleTasks) -> None:
    created = tasks.create(conn, ada.ctx, "next", blocked_on=[samples.done, samples.open])
    assert list_events(conn, ada.ctx.project_id)[-1][2]["blocked_on"] == [samples.open]
    assert tasks.resolve(conn, ada.ctx, created.task_id, blocker=samples.open).status == "open"
    before = database_checksum(conn)
    with assert_refused(conn, "wrong_state") as caught:
        tasks.block(conn, ada.ctx, samples.in_progress, "waits", on=samples.done)
    assert caught.value.data == {"status": "done"}
    assert database_checksum(conn) == before


def test_a_blocked_task_can_be_blocked_again_later(conn: Connection, ada: Agent, samples: _SampleTasks) -> None:
    tasks.resolve(conn, ada.ctx, samples.blocked)
    tasks.block(conn, ada.ctx, samples.blocked, "again", on=samples.open)
    (task,) = [task for task in task_queries.list_tasks(conn, ada.ctx).tasks if task.task_id == samples.blocked]
    assert task.blockers == [task_queries.Blocker(samples.open, "again")]
    tasks.start(conn, ada.ctx, samples.open)
    assert tasks.ship(conn, ada.ctx, samples.open).unblocked == [samples.blocked, samples.waiting]


def test_no_task_waits_for_itself_directly_or_in_a_cycle(conn: Connection, ada: Agent) -> None:
    chain = [tasks.create(conn, ada.ctx, str(n)).task_id for n in range(5)]
    for task in chain:
        tasks.start(conn, ada.ctx, task)
    for task, on in pairwise(chain):
        tasks.block(conn, ada.ctx, task, "waits", on=on)
    before = database_checksum(conn)
    for on in chain:
        with assert_refused(conn, "conflict"):
            tasks.block(conn, ada.ctx, chain[-1], "waits", on=on)
    assert database_checksum(conn) == before
    # A resolved blocker does not count.
    tasks.resolve(conn, ada.ctx, chain[2])
    tasks.block(conn, ada.ctx, chain[-1], "waits", on=chain[2])
    with assert_refused(conn, "conflict"):
        tasks.block(conn, ada.ctx, chain[2], "waits", on=chain[3])


def test_a_chain_of_blockers_is_followed_up_to_a_bound(
    conn: Connection, ada: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_BLOCKER_CHAIN", 3)
    chain = [tasks.create(conn, ada.ctx, str(n)).task_id for n in range(6)]
    for task in chain:
        tasks.start(conn, ada.ctx, task)
    # From its end to its beginning: the new task waits for 0, 1, 2 and 3 others.
    for task, on in reversed(list(pairwise(chain[:5]))):
        tasks.block(conn, ada.ctx, task, "waits", on=on)
    before = database_checksum(conn)
    with assert_refused(conn, "conflict"):
        tasks.block(conn, ada.ctx, chain[5], "waits", on=chain[0])
    assert database_checksum(conn) == before
    tasks.block(conn, ada.ctx, chain[5], "waits", on=chain[1])


def test_blocking_on_a_task_that_does_not_exist_is_not_found(
    conn: Connection, ada: Agent, samples: _SampleTasks
) -> None:
    before = database_checksum(conn)
    with assert_refused(conn, "not_found"):
        tasks.block(conn, ada.ctx, samples.in_progress, "waits", on=99)
    assert database_checksum(conn) == before


def test_a_task_has_at_most_fifty_blockers(conn: Connection, ada: Agent) -> None:
    made = [tasks.create(conn, ada.ctx, str(n)).task_id for n in range(51)]
    with assert_refused(conn, "invalid_argument"):
        tasks.create(conn, ada.ctx, "x", blocked_on=made)
    created = tasks.create(conn, ada.ctx, "x", blocked_on=made[1:] + made[1:])
    (task,) = task_queries.list_tasks(conn, ada.ctx, limit=1).tasks
    assert (task.task_id, [blocker.on for blocker in task.blockers]) == (created.task_id, made[1:])


def test_next_takes_the_first_ready_task_by_priority_and_then_age(
    conn: Connection, ada: Agent, bob: Agent, project: Project
) -> None:
    def make(title: str, **more: Any) -> int:
        return tasks.create(conn, ada.ctx, title, **more).task_id

    late = make("late", priority=4)
    usual, second = make("usual", detail="how"), make("usual too")
    urgent_but_waiting = make("urgent", priority=0, blocked_on=[late])
    make("urgent but bob's", priority=0, owner="bob")
    mine = make("mine", priority=1, owner="ada", lane="docs")
    taken = tasks.start_next(conn, ada.ctx).task
    assert taken is not None
    assert (taken.task_id, taken.status, taken.owner, taken.lane) == (mine, "in_progress", ada.actor, "docs")
    taken = tasks.start_next(conn, ada.ctx).task
    assert taken is not None
    assert (taken.task_id, taken.title, taken.detail, taken.priority, taken.blockers) == (
        usual, "usual", "how", 2, [],
    )  # fmt: skip
    assert list_events(conn, project.id)[-1][1:] == ("task_start", {"task_id": usual, "owner": ada.actor})
    order = []
    while (next_task := tasks.start_next(conn, ada.ctx).task) is not None:
        order.append(next_task.task_id)
        if next_task.task_id == late:
            tasks.ship(conn, ada.ctx, late)
    assert order == [second, late, urgent_but_waiting]
    before = database_checksum(conn)
    assert tasks.start_next(conn, ada.ctx).task is None
    assert database_checksum(conn) == before
    his = tasks.start_next(conn, bob.ctx).task
    assert his is not None
    assert his.title == "urgent but bob's"


def test_next_takes_only_tasks_of_the_given_lane(conn: Connection, ada: Agent) -> None:
    for lane in (None, "docs", "core"):
        tasks.create(conn, ada.ctx, str(lane), lane=lane)
    taken = tasks.start_next(conn, ada.ctx, lane="core").task
    assert taken is not None
    assert taken.title == "core"
    assert tasks.start_next(conn, ada.ctx, lane="core").task is None
    taken = tasks.start_next(conn, ada.ctx).task
    assert taken is not None
    assert taken.title == "None"


def test_task_results_have_the_unread_count(conn: Connection, ada: Agent, bob: Agent, samples: _SampleTasks) -> None:
    posts.create(conn, bob.ctx, "hello", to_actor="ada")
    assert tasks.create(conn, ada.ctx, "x").unread == 1
    assert tasks.assign(conn, ada.ctx, samples.open, "ada").unread == 1
    assert tasks.start(conn, ada.ctx, samples.assigned).unread == 1
    assert tasks.block(conn, ada.ctx, samples.assigned, "x").unread == 1
    assert tasks.resolve(conn, ada.ctx, samples.assigned).unread == 1
    assert tasks.ship(conn, ada.ctx, samples.assigned).unread == 1
    assert tasks.start_next(conn, ada.ctx).unread == 1
    assert task_queries.list_tasks(conn, ada.ctx).unread == 1


def test_a_task_whose_assignee_is_removed_is_open(
    conn: Connection, ada: Agent, samples: _SampleTasks, project: Project
) -> None:
    gone = factories.make_agent(conn, project, "gone")
    tasks.assign(conn, ada.ctx, samples.open, "gone")
    with assert_refused(conn, "forbidden"):
        tasks.start(conn, ada.ctx, samples.open)
    participations.remove(conn, project.id, "gone", actor="cli")
    assert gone.actor not in [task.owner for task in task_queries.list_tasks(conn, ada.ctx).tasks]
    assert tasks.start(conn, ada.ctx, samples.open).status == "in_progress"


def test_only_the_assignee_or_an_admin_edits_a_task_that_is_not_done(
    conn: Connection, root: Agent, ada: Agent, bob: Agent
) -> None:
    task_id = tasks.create(conn, ada.ctx, "first", owner="ada").task_id
    with pytest.raises(BusError) as refusal:
        task_edits.edit(conn, bob.ctx, task_id, TaskTexts("x", None, "core", 1))
    assert refusal.value.code == "forbidden"
    for agent in (ada, root):
        texts = TaskTexts(f"by {agent.label}", None, "core", 1)
        assert task_edits.edit(conn, agent.ctx, task_id, texts).status == "assigned"
    history = ledger.list_task_history(conn, ada.ctx, task_id)
    assert [(event.type, event.payload.get("title"), event.mine) for event in history.events] == [
        ("task_edit", "by root", False),
        ("task_edit", "by ada", True),
        ("task_create", "first", True),
    ]
    second = ledger.list_task_history(conn, ada.ctx, task_id, before=history.events[0].id, limit=1)
    assert ([event.type for event in second.events], second.next_before) == (["task_edit"], second.events[0].id)
    tasks.start(conn, ada.ctx, task_id)
    tasks.ship(conn, ada.ctx, task_id)
    with pytest.raises(BusError) as refusal:
        task_edits.edit(conn, root.ctx, task_id, TaskTexts("y", None, "core", 1))
    assert refusal.value.code == "wrong_state"
    assert ledger.list_task_history(conn, make_agent(conn).ctx, task_id).events == []
