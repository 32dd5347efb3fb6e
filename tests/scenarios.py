"""A project with every kind of row, and a call of each engine function that a tool uses."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

from bus.coordination import digest, leases, ledger, posts, presence, sequences, task_queries, tasks
from bus.ctx import Ctx
from bus.db import Connection
from bus.tenancy import authentication, invites, participant_queries, participations, tokens
from bus.tenancy.projects import Project
from tests import factories
from tests.factories import Agent


@dataclass(frozen=True)
class Scenario:
    """The rows of `create_scenario`; `caller` is project-admin and owns every assigned task."""

    project: Project
    caller: Agent
    teammate: Agent
    post_id: int
    open_task_id: int
    assigned_task_id: int
    running_task_id: int
    second_running_task_id: int
    blocked_task_id: int


def create_scenario(conn: Connection, project: Project | None = None) -> Scenario:
    """Fill a project: two participants, a sequence, posts both ways, leases and tasks in every state."""
    project = project or factories.make_project(conn)
    caller = factories.make_agent(conn, project, "caller", lane="core", is_admin=True)
    teammate = factories.make_agent(conn, project, "mate", lane="core")
    ctx = caller.ctx
    sequences.seed(conn, ctx, "adr", 10, prefix="ADR-", pad=4)
    sequences.claim(conn, ctx, "adr")
    presence.register(conn, teammate.ctx, "core", status="reviewing")
    leases.acquire(conn, ctx, "src/mine.py")
    leases.acquire(conn, teammate.ctx, "src/theirs.py")
    post_id = posts.create(conn, teammate.ctx, "please look", to_actor="caller", ref="PR-1", tag="review").post_id
    task_ids = [tasks.create(conn, ctx, f"task {number}").task_id for number in range(5)]
    tasks.assign(conn, ctx, task_ids[1], "caller")
    for task_id in task_ids[2:]:
        tasks.start(conn, ctx, task_id)
    tasks.block(conn, ctx, task_ids[4], "waiting for the vendor")
    return Scenario(project, caller, teammate, post_id, *task_ids)


EngineCall: TypeAlias = Callable[[Connection, Ctx, Scenario], Any]

READ_CALLS: dict[str, EngineCall] = {
    "whoami": lambda conn, ctx, s: participant_queries.whoami(conn, ctx),
    "standing": lambda conn, ctx, s: authentication.authenticate(conn, ctx),
    "list_participants": lambda conn, ctx, s: participant_queries.list_participants(conn, ctx),
    "read_posts": lambda conn, ctx, s: posts.list_posts(conn, ctx),
    "read_posts to me": lambda conn, ctx, s: posts.list_posts(conn, ctx, to_me=True, unacked_only=True),
    "query_events": lambda conn, ctx, s: ledger.query_events(conn, ctx),
    "query_events by actor": lambda conn, ctx, s: ledger.query_events(conn, ctx, actor="mate"),
    "whats_new": lambda conn, ctx, s: digest.read_digest(conn, ctx),
    "whats_new, looking": lambda conn, ctx, s: digest.read_digest(conn, ctx, advance_cursor=False),
    "latest_claims": lambda conn, ctx, s: sequences.list_latest_claims(conn, ctx),
    "list_sequences": lambda conn, ctx, s: sequences.list_sequences(conn, ctx),
    "who_holds": lambda conn, ctx, s: leases.list_leases(conn, ctx),
    "who_holds a surface": lambda conn, ctx, s: leases.list_leases(conn, ctx, surface="src"),
    "list_tasks": lambda conn, ctx, s: task_queries.list_tasks(conn, ctx),
    "list_tasks of one owner": lambda conn, ctx, s: task_queries.list_tasks(conn, ctx, owner="caller"),
    "who_is_active": lambda conn, ctx, s: presence.list_active(conn, ctx),
}

WRITE_CALLS: dict[str, EngineCall] = {
    "post to an actor": lambda conn, ctx, s: posts.create(conn, ctx, "hello", to_actor="mate"),
    "post to a lane": lambda conn, ctx, s: posts.create(conn, ctx, "hello", to_lane="core"),
    "post with a key": lambda conn, ctx, s: posts.create(conn, ctx, "hello", to_actor="mate", idempotency_key="k-post"),
    "ack": lambda conn, ctx, s: posts.ack(conn, ctx, [s.post_id]),
    "claim": lambda conn, ctx, s: sequences.claim(conn, ctx, "adr"),
    "claim with a key": lambda conn, ctx, s: sequences.claim(conn, ctx, "adr", idempotency_key="k-claim"),
    "seed_sequence": lambda conn, ctx, s: sequences.seed(conn, ctx, "adr", 100),
    "seed_sequence, unchanged": lambda conn, ctx, s: sequences.seed(conn, ctx, "adr", 11),
    "lease, renewed": lambda conn, ctx, s: leases.acquire(conn, ctx, "src/mine.py"),
    "release of nothing": lambda conn, ctx, s: leases.release(conn, ctx, "src/none.py"),
    "lease": lambda conn, ctx, s: leases.acquire(conn, ctx, "src/new.py", ttl=timedelta(seconds=60)),
    "release": lambda conn, ctx, s: leases.release(conn, ctx, "src/mine.py"),
    "task_create": lambda conn, ctx, s: tasks.create(conn, ctx, "new"),
    "task_create with a key": lambda conn, ctx, s: tasks.create(conn, ctx, "new", idempotency_key="k-task"),
    "task_assign": lambda conn, ctx, s: tasks.assign(conn, ctx, s.open_task_id, "mate"),
    "task_start": lambda conn, ctx, s: tasks.start(conn, ctx, s.assigned_task_id),
    "task_block": lambda conn, ctx, s: tasks.block(conn, ctx, s.second_running_task_id, "stuck"),
    "task_resolve": lambda conn, ctx, s: tasks.resolve(conn, ctx, s.blocked_task_id),
    "task_ship": lambda conn, ctx, s: tasks.ship(conn, ctx, s.running_task_id),
    "task_next": lambda conn, ctx, s: tasks.start_next(conn, ctx),
    "register": lambda conn, ctx, s: presence.register(conn, ctx, "docs", status="writing"),
    "admin_provision": lambda conn, ctx, s: participations.provision(conn, ctx, "newcomer"),
    "admin_rotate": lambda conn, ctx, s: tokens.rotate_as_admin(conn, ctx, "mate"),
    "admin_revoke": lambda conn, ctx, s: tokens.revoke_as_admin(conn, ctx, "mate"),
    "create_invite": lambda conn, ctx, s: invites.create(conn, ctx),
}

ENGINE_CALLS: dict[str, EngineCall] = READ_CALLS | WRITE_CALLS
ADMIN_CALLS = ("admin_provision", "admin_rotate", "admin_revoke", "create_invite")
