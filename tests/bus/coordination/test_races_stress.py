"""Every call from thirty-two threads: no deadlock, only errors of the bus, and tables that agree with the ledger."""

import random
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bus.coordination import digest, leases, ledger, posts, presence, sequences, task_queries, tasks
from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.errors import BusError
from bus.tenancy import invite_redemption, invites, participations, tokens
from tests import factories
from tests.assertions import assert_ledger_consistent
from tests.concurrency import run_jobs_concurrently
from tests.factories import Agent

_THREADS = 32
_EXPECTED = {"not_found", "conflict", "wrong_state", "forbidden", "key_reuse"}

_LANES = ["core", "docs", "api"]
_SURFACES = ["src", "src/a.py", "src/*.py", "docs/**", "docs/a.md", "{src,docs}/x", "lib/y"]

Verb = Callable[[Connection, Ctx, random.Random], Any]


def _task(rng: random.Random) -> int:
    return rng.randint(1, 60)


def _redeem(conn: Connection, ctx: Ctx, rng: random.Random) -> None:
    created = invites.create(conn, ctx)
    invite_redemption.redeem(conn, created.code, name=f"guest-{rng.getrandbits(60)}")


_CALLS: dict[str, Verb] = {
    "claim": lambda c, x, d: sequences.claim(c, x, d.choice("abc")),
    "claim with a key": lambda c, x, d: sequences.claim(c, x, "k", idempotency_key=f"c{d.randint(1, 200)}"),
    "seed": lambda c, x, d: sequences.seed(c, x, d.choice("abcd"), d.randint(0, 4000)),
    "post": lambda c, x, d: posts.create(c, x, "hello", to_actor=f"agent-{d.randint(0, 3)}", ref="PR-1"),
    "post to a lane": lambda c, x, d: posts.create(c, x, "hello", to_lane=d.choice(_LANES), tag="t"),
    "post both ways, with a key": lambda c, x, d: posts.create(
        c, x, "hello", to_lane="core", to_actor="agent-0", idempotency_key=f"p{d.randint(1, 200)}"
    ),
    "ack": lambda c, x, d: posts.ack(
        c, x, [post.post_id for post in posts.list_posts(c, x, unacked_only=True, limit=5).posts] or [10**9]
    ),
    "ack my inbox": lambda c, x, d: posts.ack(
        c, x, [post.post_id for post in posts.list_posts(c, x, to_me=True, unacked_only=True, limit=50).posts] or [1]
    ),
    "register": lambda c, x, d: presence.register(c, x, d.choice(_LANES), status=str(d.randint(0, 3))),
    "lease": lambda c, x, d: leases.acquire(
        c, x, d.choice(_SURFACES), mode=d.choice(["shared", "exclusive"]), ttl=timedelta(seconds=d.choice([1, 60]))
    ),
    "release": lambda c, x, d: leases.release(c, x, d.choice([*_SURFACES, "*"])),
    "task_create": lambda c, x, d: tasks.create(
        c, x, "t", blocked_on=[_task(d)] if d.random() < 0.3 else [], owner=d.choice([None, "agent-1"])
    ),
    "task_create with a key": lambda c, x, d: tasks.create(c, x, "t", idempotency_key=f"t{d.randint(1, 50)}"),
    "task_assign": lambda c, x, d: tasks.assign(c, x, _task(d), f"agent-{d.randint(0, 3)}"),
    "task_start": lambda c, x, d: tasks.start(c, x, _task(d)),
    "task_next": lambda c, x, d: tasks.start_next(c, x),
    "task_block": lambda c, x, d: tasks.block(c, x, _task(d), "stuck", on=d.choice([None, _task(d)])),
    "task_resolve": lambda c, x, d: tasks.resolve(c, x, _task(d)),
    "task_ship": lambda c, x, d: tasks.ship(c, x, _task(d), ref="PR-1"),
    "whats_new": lambda c, x, d: digest.read_digest(c, x, limit=50),
    "query_events": lambda c, x, d: ledger.query_events(c, x, limit=20, type=d.choice([None, "claim"])),
    "who_holds": lambda c, x, d: leases.list_leases(c, x, surface=d.choice([None, "src"])),
    "list_tasks": lambda c, x, d: task_queries.list_tasks(c, x),
    "who_is_active": lambda c, x, d: presence.list_active(c, x),
    "record_seen": lambda c, x, d: presence.record_seen(c, {x.participation_id + n: 0.1 for n in range(-4, 5)}),
    "record_use": lambda c, x, d: tokens.record_use(c, list(range(1, 9))),
    "admin_provision": lambda c, x, d: participations.provision(c, x, f"new-{d.getrandbits(60)}", lane="core"),
    "admin_rotate": lambda c, x, d: tokens.rotate_as_admin(c, x, "spare"),
    "admin_revoke": lambda c, x, d: tokens.revoke_as_admin(c, x, "spare"),
    "invite and redeem": _redeem,
    "set_admin": lambda c, x, d: participations.set_admin(c, x.project_id, "spare", d.random() < 0.5, actor="cli"),
}
_RARE = {"admin_provision", "invite and redeem", "admin_rotate", "admin_revoke", "set_admin"}


@pytest.mark.parametrize("calls_per_thread", [110, pytest.param(1_000, marks=pytest.mark.exhaustive)])
def test_every_concurrent_call_succeeds_or_raises_an_error_of_the_bus(
    database_url: str, postgres_log: Path, calls_per_thread: int
) -> None:
    log_start = postgres_log.stat().st_size
    with closing(Database(database_url, pool_size=_THREADS)) as db:
        with db.transaction() as conn:
            owner = factories.make_owner(conn)
            agents: list[Agent] = []
            for _ in range(2):
                project = factories.make_project(conn, None, owner)
                agents += [factories.make_agent(conn, project, f"agent-{n}", is_admin=n < 2) for n in range(4)]
                factories.make_agent(conn, project, "spare", lane="core")
        weights = [0.1 if name in _RARE else 1.0 for name in _CALLS]

        def work(number: int) -> Counter[tuple[str, str]]:
            rng = random.Random(number)
            seen: Counter[tuple[str, str]] = Counter()
            for _ in range(calls_per_thread):
                (name,) = rng.choices(list(_CALLS), weights)
                try:
                    with db.transaction() as conn:
                        _CALLS[name](conn, agents[number % len(agents)].ctx, rng)
                except BusError as error:
                    seen[name, error.code] += 1
                else:
                    seen[name, "ok"] += 1
            return seen

        outcomes = run_jobs_concurrently(*(lambda n=n: work(n) for n in range(_THREADS)))
        unexpected = [one for one in outcomes if isinstance(one, BaseException)]
        assert unexpected == []
        total: Counter[tuple[str, str]] = sum(outcomes, Counter())
        assert {code for _, code in total} <= _EXPECTED | {"ok"}, total
        assert {name for name, code in total if code == "ok"} == set(_CALLS)
        with db.connection() as conn:
            for project_id in {agent.ctx.project_id for agent in agents}:
                assert assert_ledger_consistent(conn, project_id) > 0
                _assert_tables_agree(conn, project_id)
    # The statistics of a connection are complete after it is closed.
    with psycopg.connect(database_url) as raw:
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert raw.execute(query).fetchone() == (0,)
    with postgres_log.open("rb") as log:
        log.seek(log_start)
        assert b" 40P01 " not in log.read()


def _assert_tables_agree(conn: Connection, project_id: int) -> None:
    """Assert that redundant columns agree with their source."""
    mine = {"p": project_id}
    assert (
        conn.fetch_all(
            "SELECT t.id FROM task t WHERE t.project_id = %(p)s AND t.open_blockers <>"
            " (SELECT count(*) FROM task_blocker b WHERE b.project_id = t.project_id AND b.task_id = t.id"
            " AND b.resolved_at IS NULL)",
            mine,
        )
        == []
    )
    assert (
        conn.fetch_all(
            "SELECT b.task_id FROM task_blocker b JOIN task t ON t.project_id = b.project_id AND t.id = b.on_task_id"
            " WHERE b.project_id = %(p)s AND b.resolved_at IS NULL AND t.status = 'done'",
            mine,
        )
        == []
    )
    # Posts, leases, tasks and acks correspond to their events one to one.
    for table, column, kind, value in (
        ("post", "id", "post", "seq"),
        ("lease", "fence", "lease", "seq"),
        ("task", "id", "task_create", "(payload ->> 'task_id')::bigint"),
    ):
        stored = conn.fetch_all(f"SELECT {column} FROM {table} WHERE project_id = %(p)s ORDER BY 1", mine)
        recorded = conn.fetch_all(
            f"SELECT {value} FROM event WHERE project_id = %(p)s AND type = '{kind}' ORDER BY 1", mine
        )
        assert stored == recorded, table
    acked = conn.fetch_all(
        "SELECT participation_id, post_id FROM delivery"
        " WHERE project_id = %(p)s AND acked_at IS NOT NULL ORDER BY 1, 2",
        mine,
    )
    recorded = conn.fetch_all(
        "SELECT participation_id, (payload ->> 'post_id')::bigint FROM event"
        " WHERE project_id = %(p)s AND type = 'ack' ORDER BY 1, 2",
        mine,
    )
    assert acked == recorded
    for name, current in conn.fetch_all("SELECT name, current FROM sequence WHERE project_id = %(p)s", mine):
        steps = conn.fetch_all(
            "SELECT coalesce(payload ->> 'number', payload ->> 'current')::bigint FROM event"
            " WHERE project_id = %(p)s AND type IN ('claim', 'seed') AND payload ->> 'sequence' = %(name)s"
            " ORDER BY seq",
            {**mine, "name": name},
        )
        numbers = [number for (number,) in steps]
        assert numbers == sorted(numbers)
        assert numbers[-1] == current
