"""A tool whose verb writes in several statements has a transaction, so that no half of a call is committed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from bus.coordination import posts, tasks
from bus.db import Connection, Database
from mcp_gateway.tool_registry import Tool
from mcp_gateway.tools import all_tools
from tests.factories import Agent, make_agent, make_project
from tests.mcp_gateway.test_bad_input import required_arguments

# Rows written so far by the open transaction, also by functions and triggers.
_COUNT_WRITTEN_ROWS = "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_xact_user_tables"


@dataclass(frozen=True)
class World:
    """A project-admin, who has a post to ack, a task in progress and a blocked one; and an open task."""

    conn: Connection
    admin: Agent
    post_id: int
    open_task: int
    started_task: int
    blocked_task: int

    def arguments(self, tool: Tool) -> dict[str, Any]:
        """Arguments with which the tool changes something, if it ever does."""
        chosen: dict[str, dict[str, Any]] = {
            "ack": {"post_id": self.post_id},
            "task_assign": {"task_id": self.open_task, "owner": "bob"},
            "task_start": {"task_id": self.open_task},
            "task_block": {"task_id": self.started_task},
            "task_resolve": {"task_id": self.blocked_task},
            "task_ship": {"task_id": self.started_task},
            "admin_provision": {"participant_name": "eve"},
            "admin_rotate": {"participant_name": "bob"},
            "admin_revoke": {"participant_name": "bob"},
        }
        return required_arguments(tool) | chosen.get(tool.name, {})


@pytest.fixture
def world(gateway_db: Database) -> Iterator[World]:
    with gateway_db.connection() as conn, conn.raw.transaction(force_rollback=True):
        project = make_project(conn)
        admin = make_agent(conn, project, "alice", is_admin=True)
        bob = make_agent(conn, project, "bob")
        open_task, started_task, blocked_task = (tasks.create(conn, admin.ctx, "build").task_id for _ in range(3))
        for task_id in (started_task, blocked_task):
            tasks.start(conn, admin.ctx, task_id)
        tasks.block(conn, admin.ctx, blocked_task, "waits for a review")
        post_id = posts.create(conn, bob.ctx, "look", to_actor="alice").post_id
        yield World(conn, admin, post_id, open_task, started_task, blocked_task)


@pytest.mark.parametrize("tool", all_tools().values(), ids=lambda tool: tool.name)
def test_a_tool_has_a_transaction_if_it_writes_in_several_statements(
    world: World, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = psycopg.Cursor.execute
    written_rows: list[int] = []

    def count_written_rows() -> int:
        cursor = world.conn.raw.cursor()
        execute(cursor, _COUNT_WRITTEN_ROWS)
        (count,) = cursor.fetchone() or (0,)
        return int(count)

    def execute_and_count(cursor: psycopg.Cursor[Any], *arguments: Any, **options: Any) -> psycopg.Cursor[Any]:
        before = count_written_rows()
        result = execute(cursor, *arguments, **options)
        written_rows.append(count_written_rows() - before)
        return result

    arguments = tool.decode(world.arguments(tool))
    monkeypatch.setattr(psycopg.Cursor, "execute", execute_and_count)
    tool.function(world.conn, world.admin.ctx, **arguments)
    assert tool.transaction == (sum(count > 0 for count in written_rows) > 1)
