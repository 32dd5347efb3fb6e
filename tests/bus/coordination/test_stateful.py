"""Random calls of two agents in each of two projects, compared with a model of lists and dictionaries."""

import itertools
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from bus.coordination import digest, leases, posts, presence, sequences, task_queries, tasks
from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.errors import BusError
from bus.rules.surfaces import modes_contend, overlaps
from bus.tenancy import participant_queries
from tests import factories
from tests.assertions import assert_ledger_consistent, list_event_types

_SURFACES = ["src", "src/a.py", "src/*.py", "docs", "**/*.md"]
_LANES = ["core", "docs"]

PROJECTS = AGENTS = st.integers(0, 1)
TASKS = st.integers(1, 6)


@dataclass
class _Task:
    status: str = "open"
    owner: int | None = None
    blockers: list[int | None] = field(default_factory=list)


@dataclass
class _ProjectModel:
    """The expected state of one project. Agent 0 is a project-admin, agent 1 is not."""

    project_id: int
    contexts: list[Ctx]
    events: list[str] = field(default_factory=list)
    sequences: dict[str, int] = field(default_factory=dict)
    registered: list[tuple[str, str] | None] = field(default_factory=lambda: [None, None])
    posts: dict[int, tuple[int, str | None, int | None]] = field(default_factory=dict)
    confirmed: set[int] = field(default_factory=set)
    deliveries: dict[tuple[int, int], bool] = field(default_factory=dict)
    leases: dict[tuple[int, str], tuple[int, str]] = field(default_factory=dict)
    tasks: dict[int, _Task] = field(default_factory=dict)
    cursors: list[int | None] = field(default_factory=lambda: [None, None])

    def unread(self, agent: int) -> int:
        return min(100, sum(1 for (recipient, _), acked in self.deliveries.items() if recipient == agent and not acked))

    def lane(self, agent: int) -> str | None:
        registered = self.registered[agent]
        return registered[0] if registered else None

    def waits_for(self, task: int) -> set[int]:
        """The task and all tasks that it waits for."""
        seen: set[int] = set()
        pending = [task]
        while pending:
            current = pending.pop()
            if current not in seen:
                seen.add(current)
                pending += [on for on in self.tasks[current].blockers if on is not None]
        return seen


class _Bus(RuleBasedStateMachine):
    def __init__(self, db: Database) -> None:
        super().__init__()
        self.db = db
        self.models = []
        with db.transaction() as conn:
            for _ in range(2):
                project = factories.make_project(conn)
                agents = [
                    factories.make_agent(conn, project, label, is_admin=label == "ada") for label in ("ada", "bob")
                ]
                self.models.append(_ProjectModel(project.id, [agent.ctx for agent in agents]))

    @contextmanager
    def _call(self, expected: str | None = None) -> Any:
        """Open a transaction that must fail with the expected code, or succeed if it is None."""
        code = None
        try:
            with self.db.transaction() as conn:
                yield conn
        except BusError as error:
            code = error.code
        assert code == expected

    @rule(p=PROJECTS, a=AGENTS, name=st.sampled_from(["adr", "migration"]), undo=st.booleans())
    def claim(self, p: int, a: int, name: str, undo: bool) -> None:
        model = self.models[p]
        expected = model.sequences.get(name, 0) + 1
        with self.db.connection() as conn, conn.raw.transaction(force_rollback=undo):
            claimed = sequences.claim(conn, model.contexts[a], name)
            assert (claimed.number, claimed.unread) == (expected, model.unread(a))
        if not undo:
            model.sequences[name] = expected
            model.events.append("claim")

    @rule(p=PROJECTS, a=AGENTS, name=st.sampled_from(["adr", "migration"]), current=st.integers(0, 12))
    def seed(self, p: int, a: int, name: str, current: int) -> None:
        model = self.models[p]
        stored = model.sequences.get(name)
        expected = None
        if stored is not None and current < stored:
            expected = "conflict"
        elif stored is not None and current > stored and a == 1:
            expected = "forbidden"
        with self._call(expected) as conn:
            sequences.seed(conn, model.contexts[a], name, current)
        if expected is None and stored != current:
            model.sequences[name] = current
            model.events.append("seed")

    @rule(p=PROJECTS, a=AGENTS, lane=st.sampled_from([None, *_LANES]), to=st.sampled_from([None, 0, 1]))
    def post(self, p: int, a: int, lane: str | None, to: int | None) -> None:
        model = self.models[p]
        expected = "invalid_argument" if lane is None and to is None else None
        with self._call(expected) as conn:
            name = None if to is None else ("ada", "bob")[to]
            posted = posts.create(conn, model.contexts[a], "hello", to_lane=lane, to_actor=name)
        if expected is None:
            members = {other for other in (0, 1) if other != a and lane is not None and model.lane(other) == lane}
            members |= {to} if to is not None else set()
            model.events.append("post")
            assert (posted.post_id, posted.recipients) == (len(model.events), len(members))
            model.posts[posted.post_id] = (a, lane, to)
            model.deliveries |= {(member, posted.post_id): False for member in members}

    @rule(p=PROJECTS, a=AGENTS, chosen=st.lists(st.integers(0, 8), min_size=1, max_size=3))
    def ack(self, p: int, a: int, chosen: list[int]) -> None:
        model = self.models[p]
        known = list(model.posts)
        ids = [known[-1 - number] if number < len(known) else 10**6 + number for number in chosen]
        expected = "not_found" if any(post_id not in model.posts for post_id in ids) else None
        with self._call(expected) as conn:
            posts.ack(conn, model.contexts[a], ids)
        if expected is None:
            for post_id in dict.fromkeys(ids):
                sender, lane, to = model.posts[post_id]
                if not model.deliveries.get((a, post_id), False):
                    model.events.append("ack")
                model.deliveries[a, post_id] = True
                if sender != a or (to == a and lane is None):
                    model.confirmed.add(post_id)

    @rule(p=PROJECTS, a=AGENTS, lane=st.sampled_from(_LANES), status=st.sampled_from(["", "busy"]))
    def register(self, p: int, a: int, lane: str, status: str) -> None:
        model = self.models[p]
        with self._call() as conn:
            presence.register(conn, model.contexts[a], lane, status=status)
        if model.registered[a] == (lane, status):
            return
        model.events.append("register")
        old = model.lane(a)
        model.registered[a] = (lane, status)
        if old == lane:
            return
        for post_id, (sender, to_lane, to) in model.posts.items():
            if to_lane == old and to != a and model.deliveries.get((a, post_id)) is False:
                del model.deliveries[a, post_id]
            if to_lane == lane and sender != a and post_id not in model.confirmed:
                model.deliveries.setdefault((a, post_id), False)

    @rule(
        p=PROJECTS, a=AGENTS, surface=st.sampled_from(_SURFACES), mode=st.sampled_from(["exclusive", "shared"])
    )  # fmt: skip
    def lease(self, p: int, a: int, surface: str, mode: str) -> None:
        model = self.models[p]
        others = sorted(
            fence
            for (holder, held), (fence, held_mode) in model.leases.items()
            if holder != a and modes_contend(mode, held_mode) and overlaps(surface, held)
        )
        with self._call() as conn:
            taken = leases.acquire(conn, model.contexts[a], surface, mode=mode)
        known = {(holder, held): fence for (holder, held), (fence, _) in model.leases.items()}
        assert [known[1 - a, other.surface] for other in taken.others] == others
        mine = model.leases.get((a, surface))
        renewed = mine is not None and mine[1] == mode
        if mine and not renewed:  # a change of mode releases the old lease first
            model.events.append("release")
        if not renewed:
            model.events.append("lease")
        fence = known[a, surface] if renewed else len(model.events)
        assert (taken.renewed, taken.fence) == (renewed, fence)
        model.leases[a, surface] = (fence, mode)

    @rule(p=PROJECTS, a=AGENTS, surface=st.sampled_from([*_SURFACES, "*"]))
    def release(self, p: int, a: int, surface: str) -> None:
        model = self.models[p]
        released = [key for key in model.leases if key[0] == a and surface in ("*", key[1])]
        with self._call() as conn:
            assert leases.release(conn, model.contexts[a], surface).released == len(released)
        for key in released:
            del model.leases[key]
            model.events.append("release")

    @rule(p=PROJECTS, a=AGENTS, waits=st.lists(TASKS, max_size=2), owner=st.sampled_from([None, 0, 1]))
    def task_create(self, p: int, a: int, waits: list[int], owner: int | None) -> None:
        model = self.models[p]
        expected = "not_found" if any(task not in model.tasks for task in waits) else None
        with self._call(expected) as conn:
            name = None if owner is None else ("ada", "bob")[owner]
            created = tasks.create(conn, model.contexts[a], "x", owner=name, blocked_on=waits)
        if expected is None:
            assert created.task_id == len(model.tasks) + 1
            blockers: list[int | None] = [task for task in dict.fromkeys(waits) if model.tasks[task].status != "done"]
            status = "open" if owner is None else "assigned"
            model.tasks[created.task_id] = _Task(status, owner, blockers)
            model.events.append("task_create")

    def _worker(self, model: _ProjectModel, a: int, number: int, *statuses: str, ready: bool = False) -> str | None:
        """The error code of an action that requires one of these statuses; None if the agent may take it."""
        task = model.tasks.get(number)
        if task is None:
            return "not_found"
        if task.status not in statuses or (ready and task.blockers):
            return "wrong_state"
        return "forbidden" if task.owner not in (None, a) and a != 0 else None

    @rule(p=PROJECTS, a=AGENTS, number=TASKS)
    def task_start(self, p: int, a: int, number: int) -> None:
        model = self.models[p]
        expected = self._worker(model, a, number, "open", "assigned", ready=True)
        with self._call(expected) as conn:
            tasks.start(conn, model.contexts[a], number)
        if expected is None:
            task = model.tasks[number]
            task.status, task.owner = "in_progress", a if task.owner is None else task.owner
            model.events.append("task_start")

    @rule(p=PROJECTS, a=AGENTS)
    def task_next(self, p: int, a: int) -> None:
        model = self.models[p]
        ready = [
            number
            for number, task in model.tasks.items()
            if task.status in ("open", "assigned") and not task.blockers and task.owner in (None, a)
        ]
        with self._call() as conn:
            taken = tasks.start_next(conn, model.contexts[a]).task
        assert (taken.task_id if taken else None) == min(ready, default=None)
        if ready:
            model.tasks[min(ready)].status, model.tasks[min(ready)].owner = "in_progress", a
            model.events.append("task_start")

    @rule(p=PROJECTS, a=AGENTS, number=TASKS, on=st.one_of(st.none(), TASKS))
    def task_block(self, p: int, a: int, number: int, on: int | None) -> None:
        model = self.models[p]
        expected = self._worker(model, a, number, "in_progress")
        if expected is None and on is not None:
            if on not in model.tasks:
                expected = "not_found"
            elif number in model.waits_for(on):
                expected = "conflict"
            elif model.tasks[on].status == "done":
                expected = "wrong_state"
        with self._call(expected) as conn:
            tasks.block(conn, model.contexts[a], number, "stuck", on=on)
        if expected is None:
            model.tasks[number].status, model.tasks[number].blockers = "blocked", [on]
            model.events.append("task_block")

    @rule(p=PROJECTS, a=AGENTS, number=TASKS)
    def task_resolve(self, p: int, a: int, number: int) -> None:
        model = self.models[p]
        task = model.tasks.get(number)
        expected = "not_found" if task is None else None if task.blockers else "wrong_state"
        with self._call(expected) as conn:
            tasks.resolve(conn, model.contexts[a], number)
        if task is not None and expected is None:
            task.blockers = []
            task.status = "in_progress" if task.status == "blocked" else task.status
            model.events.append("task_resolve")

    @rule(p=PROJECTS, a=AGENTS, number=TASKS)
    def task_ship(self, p: int, a: int, number: int) -> None:
        model = self.models[p]
        expected = self._worker(model, a, number, "in_progress")
        with self._call(expected) as conn:
            shipped = tasks.ship(conn, model.contexts[a], number)
        if expected is None:
            model.tasks[number].status = "done"
            model.events.append("task_ship")
            freed = []
            for other, task in model.tasks.items():
                if number in task.blockers:
                    task.blockers.remove(number)
                    if not task.blockers:
                        freed.append(other)
                        if task.status == "blocked":
                            task.status = "in_progress"
                            model.events.append("task_resolve")
            assert shipped.unblocked == freed

    @rule(p=PROJECTS, a=AGENTS, limit=st.integers(1, 10), advance=st.booleans())
    def whats_new(self, p: int, a: int, limit: int, advance: bool) -> None:
        model = self.models[p]
        cursor = model.cursors[a]
        start = max(0, len(model.events) - 100) if cursor is None else cursor
        with self._call() as conn:
            result = digest.read_digest(conn, model.contexts[a], limit=limit, advance_cursor=advance)
        assert result.since_event_id == start
        assert [(event.id, event.type) for event in result.events] == list(
            itertools.islice(enumerate(model.events[start:], start + 1), limit)
        )
        end = start + len(result.events)
        assert (result.cursor, result.more) == (end if advance else start, end < len(model.events))
        assert (result.active_leases, result.unacked_posts) == (len(model.leases), model.unread(a))
        if advance:
            model.cursors[a] = end

    @invariant()
    def the_database_is_the_model(self) -> None:
        with self.db.connection() as conn:
            for model in self.models:
                _check(conn, model)


def _check(conn: Connection, model: _ProjectModel) -> None:
    assert list_event_types(conn, model.project_id) == model.events
    assert_ledger_consistent(conn, model.project_id)
    for agent, ctx in enumerate(model.contexts):
        assert participant_queries.whoami(conn, ctx).unread == model.unread(agent)
        inbox = posts.list_posts(conn, ctx, to_me=True, unacked_only=True, limit=200).posts
        waiting = [
            post_id for (recipient, post_id), acked in model.deliveries.items() if recipient == agent and not acked
        ]
        assert [post.post_id for post in inbox] == sorted(waiting, reverse=True)
    me = model.contexts[0]
    assert {one.name: one.last_used for one in sequences.list_sequences(conn, me).sequences} == model.sequences
    held = leases.list_leases(conn, me).leases
    holders = [("ada", "bob").index(one.actor.partition("/")[2]) for one in held]
    assert {
        (holder, one.surface): (one.fence, one.mode) for holder, one in zip(holders, held, strict=True)
    } == model.leases
    result = {
        task.task_id: (task.status, [one.on for one in task.blockers])
        for task in task_queries.list_tasks(conn, me).tasks
    }
    assert result == {number: (task.status, task.blockers) for number, task in model.tasks.items()}


@pytest.mark.parametrize(
    ("histories", "are_new"),
    [pytest.param(8, False, id="fixed histories"), pytest.param(200, True, marks=pytest.mark.exhaustive, id="random")],
)
def test_the_engine_agrees_with_the_model(db: Database, histories: int, are_new: bool) -> None:
    """The short run has the same histories each time; the exhaustive one draws new ones."""
    run_state_machine_as_test(
        lambda: _Bus(db),  # type: ignore[arg-type] # any callable that returns a machine
        settings=settings(
            max_examples=histories,
            derandomize=not are_new,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
