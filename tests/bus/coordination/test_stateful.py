"""Two tenants, two agents each, random verbs: what the engine answers is what a few lists and dictionaries say."""

import itertools
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

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
class _Room:
    """What one project should hold. Agents are 0, a project-admin, and 1."""

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
        return min(100, sum(1 for (who, _), acked in self.deliveries.items() if who == agent and not acked))

    def lane(self, agent: int) -> str | None:
        registered = self.registered[agent]
        return registered[0] if registered else None

    def waits_for(self, task: int) -> set[int]:
        """The task itself and all that it waits for."""
        seen: set[int] = set()
        todo = [task]
        while todo:
            here = todo.pop()
            if here not in seen:
                seen.add(here)
                todo += [on for on in self.tasks[here].blockers if on is not None]
        return seen


class _Bus(RuleBasedStateMachine):
    def __init__(self, db: Database) -> None:
        super().__init__()
        self.db = db
        self.rooms = []
        with db.transaction() as conn:
            for _ in range(2):
                project = factories.make_project(conn)
                agents = [
                    factories.make_agent(conn, project, label, is_admin=label == "ada") for label in ("ada", "bob")
                ]
                self.rooms.append(_Room(project.id, [agent.ctx for agent in agents]))

    @contextmanager
    def _call(self, expected: str | None = None) -> Any:
        """A transaction that must end with this code, or well."""
        code = None
        try:
            with self.db.transaction() as conn:
                yield conn
        except BusError as error:
            code = error.code
        assert code == expected

    @rule(p=PROJECTS, a=AGENTS, name=st.sampled_from(["adr", "migration"]), undo=st.booleans())
    def claim(self, p: int, a: int, name: str, undo: bool) -> None:
        room = self.rooms[p]
        expected = room.sequences.get(name, 0) + 1
        with self.db.connection() as conn, conn.raw.transaction(force_rollback=undo):
            claimed = sequences.claim(conn, room.contexts[a], name)
            assert (claimed.number, claimed.unread) == (expected, room.unread(a))
        if not undo:
            room.sequences[name] = expected
            room.events.append("claim")

    @rule(p=PROJECTS, a=AGENTS, name=st.sampled_from(["adr", "migration"]), current=st.integers(0, 12))
    def seed(self, p: int, a: int, name: str, current: int) -> None:
        room = self.rooms[p]
        stored = room.sequences.get(name)
        expected = None
        if stored is not None and current < stored:
            expected = "conflict"
        elif stored is not None and current > stored and a == 1:
            expected = "forbidden"
        with self._call(expected) as conn:
            sequences.seed(conn, room.contexts[a], name, current)
        if expected is None and stored != current:
            room.sequences[name] = current
            room.events.append("seed")

    @rule(p=PROJECTS, a=AGENTS, lane=st.sampled_from([None, *_LANES]), to=st.sampled_from([None, 0, 1]))
    def post(self, p: int, a: int, lane: str | None, to: int | None) -> None:
        room = self.rooms[p]
        expected = "invalid_argument" if lane is None and to is None else None
        with self._call(expected) as conn:
            name = None if to is None else ("ada", "bob")[to]
            posted = posts.create(conn, room.contexts[a], "hello", to_lane=lane, to_actor=name)
        if expected is None:
            members = {other for other in (0, 1) if other != a and lane is not None and room.lane(other) == lane}
            members |= {to} if to is not None else set()
            room.events.append("post")
            assert (posted.post_id, posted.recipients) == (len(room.events), len(members))
            room.posts[posted.post_id] = (a, lane, to)
            room.deliveries |= {(member, posted.post_id): False for member in members}

    @rule(p=PROJECTS, a=AGENTS, chosen=st.lists(st.integers(0, 8), min_size=1, max_size=3))
    def ack(self, p: int, a: int, chosen: list[int]) -> None:
        room = self.rooms[p]
        known = list(room.posts)
        ids = [known[-1 - number] if number < len(known) else 10**6 + number for number in chosen]
        expected = "not_found" if any(post_id not in room.posts for post_id in ids) else None
        with self._call(expected) as conn:
            posts.ack(conn, room.contexts[a], ids)
        if expected is None:
            for post_id in dict.fromkeys(ids):
                sender, lane, to = room.posts[post_id]
                if not room.deliveries.get((a, post_id), False):
                    room.events.append("ack")
                room.deliveries[a, post_id] = True
                if sender != a or (to == a and lane is None):
                    room.confirmed.add(post_id)

    @rule(p=PROJECTS, a=AGENTS, lane=st.sampled_from(_LANES), status=st.sampled_from(["", "busy"]))
    def register(self, p: int, a: int, lane: str, status: str) -> None:
        room = self.rooms[p]
        with self._call() as conn:
            presence.register(conn, room.contexts[a], lane, status=status)
        if room.registered[a] == (lane, status):
            return
        room.events.append("register")
        old = room.lane(a)
        room.registered[a] = (lane, status)
        if old == lane:
            return
        for post_id, (sender, to_lane, to) in room.posts.items():
            if to_lane == old and to != a and room.deliveries.get((a, post_id)) is False:
                del room.deliveries[a, post_id]
            if to_lane == lane and sender != a and post_id not in room.confirmed:
                room.deliveries.setdefault((a, post_id), False)

    @rule(
        p=PROJECTS, a=AGENTS, surface=st.sampled_from(_SURFACES), mode=st.sampled_from(["exclusive", "shared"])
    )  # fmt: skip
    def lease(self, p: int, a: int, surface: str, mode: str) -> None:
        room = self.rooms[p]
        others = sorted(
            fence
            for (who, held), (fence, held_mode) in room.leases.items()
            if who != a and modes_contend(mode, held_mode) and overlaps(surface, held)
        )
        with self._call() as conn:
            taken = leases.acquire(conn, room.contexts[a], surface, mode=mode)
        known = {(who, held): fence for (who, held), (fence, _) in room.leases.items()}
        assert [known[1 - a, other.surface] for other in taken.others] == others
        mine = room.leases.get((a, surface))
        renewed = mine is not None and mine[1] == mode
        if mine and not renewed:  # another mode is another lease: the old one is given back first
            room.events.append("release")
        if not renewed:
            room.events.append("lease")
        fence = known[a, surface] if renewed else len(room.events)
        assert (taken.renewed, taken.fence) == (renewed, fence)
        room.leases[a, surface] = (fence, mode)

    @rule(p=PROJECTS, a=AGENTS, surface=st.sampled_from([*_SURFACES, "*"]))
    def release(self, p: int, a: int, surface: str) -> None:
        room = self.rooms[p]
        gone = [key for key in room.leases if key[0] == a and surface in ("*", key[1])]
        with self._call() as conn:
            assert leases.release(conn, room.contexts[a], surface).released == len(gone)
        for key in gone:
            del room.leases[key]
            room.events.append("release")

    @rule(p=PROJECTS, a=AGENTS, waits=st.lists(TASKS, max_size=2), owner=st.sampled_from([None, 0, 1]))
    def task_create(self, p: int, a: int, waits: list[int], owner: int | None) -> None:
        room = self.rooms[p]
        expected = "not_found" if any(task not in room.tasks for task in waits) else None
        with self._call(expected) as conn:
            name = None if owner is None else ("ada", "bob")[owner]
            created = tasks.create(conn, room.contexts[a], "x", owner=name, blocked_on=waits)
        if expected is None:
            assert created.task_id == len(room.tasks) + 1
            blockers: list[int | None] = [task for task in dict.fromkeys(waits) if room.tasks[task].status != "done"]
            status = "open" if owner is None else "assigned"
            room.tasks[created.task_id] = _Task(status, owner, blockers)
            room.events.append("task_create")

    def _worker(self, room: _Room, a: int, number: int, *statuses: str, ready: bool = False) -> str | None:
        """Why the agent may not do with the task what takes one of these statuses."""
        task = room.tasks.get(number)
        if task is None:
            return "not_found"
        if task.status not in statuses or (ready and task.blockers):
            return "wrong_state"
        return "forbidden" if task.owner not in (None, a) and a != 0 else None

    @rule(p=PROJECTS, a=AGENTS, number=TASKS)
    def task_start(self, p: int, a: int, number: int) -> None:
        room = self.rooms[p]
        expected = self._worker(room, a, number, "open", "assigned", ready=True)
        with self._call(expected) as conn:
            tasks.start(conn, room.contexts[a], number)
        if expected is None:
            task = room.tasks[number]
            task.status, task.owner = "in_progress", a if task.owner is None else task.owner
            room.events.append("task_start")

    @rule(p=PROJECTS, a=AGENTS)
    def task_next(self, p: int, a: int) -> None:
        room = self.rooms[p]
        ready = [
            number
            for number, task in room.tasks.items()
            if task.status in ("open", "assigned") and not task.blockers and task.owner in (None, a)
        ]
        with self._call() as conn:
            taken = tasks.start_next(conn, room.contexts[a]).task
        assert (taken.task_id if taken else None) == min(ready, default=None)
        if ready:
            room.tasks[min(ready)].status, room.tasks[min(ready)].owner = "in_progress", a
            room.events.append("task_start")

    @rule(p=PROJECTS, a=AGENTS, number=TASKS, on=st.one_of(st.none(), TASKS))
    def task_block(self, p: int, a: int, number: int, on: int | None) -> None:
        room = self.rooms[p]
        expected = self._worker(room, a, number, "in_progress")
        if expected is None and on is not None:
            if on not in room.tasks:
                expected = "not_found"
            elif number in room.waits_for(on):
                expected = "conflict"
            elif room.tasks[on].status == "done":
                expected = "wrong_state"
        with self._call(expected) as conn:
            tasks.block(conn, room.contexts[a], number, "stuck", on=on)
        if expected is None:
            room.tasks[number].status, room.tasks[number].blockers = "blocked", [on]
            room.events.append("task_block")

    @rule(p=PROJECTS, a=AGENTS, number=TASKS)
    def task_resolve(self, p: int, a: int, number: int) -> None:
        room = self.rooms[p]
        task = room.tasks.get(number)
        expected = "not_found" if task is None else None if task.blockers else "wrong_state"
        with self._call(expected) as conn:
            tasks.resolve(conn, room.contexts[a], number)
        if task is not None and expected is None:
            task.blockers = []
            task.status = "in_progress" if task.status == "blocked" else task.status
            room.events.append("task_resolve")

    @rule(p=PROJECTS, a=AGENTS, number=TASKS)
    def task_ship(self, p: int, a: int, number: int) -> None:
        room = self.rooms[p]
        expected = self._worker(room, a, number, "in_progress")
        with self._call(expected) as conn:
            shipped = tasks.ship(conn, room.contexts[a], number)
        if expected is None:
            room.tasks[number].status = "done"
            room.events.append("task_ship")
            freed = []
            for other, task in room.tasks.items():
                if number in task.blockers:
                    task.blockers.remove(number)
                    if not task.blockers:
                        freed.append(other)
                        if task.status == "blocked":
                            task.status = "in_progress"
                            room.events.append("task_resolve")
            assert shipped.unblocked == freed

    @rule(p=PROJECTS, a=AGENTS, limit=st.integers(1, 10), advance=st.booleans())
    def whats_new(self, p: int, a: int, limit: int, advance: bool) -> None:
        room = self.rooms[p]
        cursor = room.cursors[a]
        start = max(0, len(room.events) - 100) if cursor is None else cursor
        with self._call() as conn:
            found = digest.read_digest(conn, room.contexts[a], limit=limit, advance_cursor=advance)
        assert found.since_event_id == start
        assert [(event.id, event.type) for event in found.events] == list(
            itertools.islice(enumerate(room.events[start:], start + 1), limit)
        )
        end = start + len(found.events)
        assert (found.cursor, found.more) == (end if advance else start, end < len(room.events))
        assert (found.active_leases, found.unacked_posts) == (len(room.leases), room.unread(a))
        if advance:
            room.cursors[a] = end

    @invariant()
    def the_database_is_the_model(self) -> None:
        with self.db.connection() as conn:
            for room in self.rooms:
                _check(conn, room)


def _check(conn: Connection, room: _Room) -> None:
    assert list_event_types(conn, room.project_id) == room.events
    assert_ledger_consistent(conn, room.project_id)
    for agent, ctx in enumerate(room.contexts):
        assert participant_queries.whoami(conn, ctx).unread == room.unread(agent)
        inbox = posts.list_posts(conn, ctx, to_me=True, unacked_only=True, limit=200).posts
        waiting = [post_id for (who, post_id), acked in room.deliveries.items() if who == agent and not acked]
        assert [post.post_id for post in inbox] == sorted(waiting, reverse=True)
    me = room.contexts[0]
    assert {one.name: one.last_used for one in sequences.list_sequences(conn, me).sequences} == room.sequences
    held = leases.list_leases(conn, me).leases
    holders = [("ada", "bob").index(one.actor.partition("/")[2]) for one in held]
    assert {(who, one.surface): (one.fence, one.mode) for who, one in zip(holders, held, strict=True)} == room.leases
    found = {
        task.task_id: (task.status, [one.on for one in task.blockers])
        for task in task_queries.list_tasks(conn, me).tasks
    }
    assert found == {number: (task.status, task.blockers) for number, task in room.tasks.items()}


def test_whatever_two_tenants_do_the_engine_agrees_with_the_model(db: Database) -> None:
    """The same histories in every run; LLM_BUS_EXPLORE=300 tries as many new ones."""
    explore = int(os.environ.get("LLM_BUS_EXPLORE", "0"))
    run_state_machine_as_test(
        lambda: _Bus(db),
        settings=settings(
            max_examples=explore or 15,
            derandomize=not explore,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
