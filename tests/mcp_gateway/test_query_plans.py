"""The plans of every tool in a project with a long history read rows in proportion to the result.

PostgreSQL's auto_explain reports the plan of each statement, including those inside SQL functions. Each tool is called
often enough to get a generic plan, which is independent of the arguments.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import psycopg
import pytest

from bench import synthetic_history
from bench.fixtures import Team, make_teams
from bus.coordination import long_poll
from bus.db import Connection, Database
from bus.rules.enums import EVENT_TYPES
from mcp_gateway.tools import all_tools
from tests import servers

_EVENTS = 60_000
# PostgreSQL may choose a generic plan after five custom plans.
_REPETITIONS = 7
_LARGE_TABLES = {"event", "post", "delivery", "lease", "task", "task_blocker", "idempotency"}
# The default page is 100 rows, and some pages combine two ranges.
_MAX_ROWS = 300
_numbers = count(1)


@dataclass(frozen=True)
class Node:
    """A node of an executed plan: its type, the table, the rows read, and the statement."""

    kind: str
    table: str
    rows: int
    statement: str


class Plans:
    """A connection that collects the plan of every statement."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self._nodes: list[Node] = []
        conn.raw.execute("LOAD 'auto_explain'")
        for setting, value in {
            "log_min_duration": "0",
            "log_analyze": "on",
            "log_timing": "off",
            "log_nested_statements": "on",
            "log_format": "json",
            "log_level": "notice",
        }.items():
            conn.raw.execute(f"SET auto_explain.{setting} = '{value}'".encode())
        conn.raw.add_notice_handler(self._note)

    def _note(self, diagnosis: psycopg.errors.Diagnostic) -> None:
        _, separator, plan = (diagnosis.message_primary or "").partition("plan:\n")
        if separator:
            explained = json.loads(plan)
            self._walk(explained["Plan"], explained["Query Text"])

    def _walk(self, node: dict[str, Any], statement: str) -> None:
        if "Relation Name" in node:
            read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            read += node.get("Rows Removed by Index Recheck", 0)
            rows = round(read * node["Actual Loops"])
            self._nodes.append(Node(node["Node Type"], node["Relation Name"], rows, statement))
        for child in node.get("Plans", ()):
            self._walk(child, statement)

    def nodes_of(self, team: Team, calls: list[tuple[str, dict[str, Any]]]) -> list[Node]:
        """Call tools, roll back, and return the nodes of the last call."""
        with self.conn.raw.transaction(force_rollback=True):
            for tool, arguments in calls:
                self._nodes = []
                definition = all_tools()[tool]
                result = definition.function(self.conn, team.agents[0].ctx, **definition.decode(arguments))
                if isinstance(result, long_poll.WaitRequest):
                    # The gateway checks all long polls in one statement and then polls for those that are ready.
                    assert long_poll.find_ready(self.conn, [result] * 50) == [result] * 50
                    assert long_poll.poll(self.conn, result) is not None
                    long_poll.renew(self.conn, [result])
                    long_poll.end_waits(self.conn, [result])
        return self._nodes


@dataclass(frozen=True)
class Scenario:
    plans: Plans
    team: Team
    unacked_post: int
    surface: str


@pytest.fixture(scope="module")
def scenario() -> Iterator[Scenario]:
    with servers.cloned_database() as url:
        db = Database(url, pool_size=2)
        # A second project of the same size, so that a plan has to select the rows of one project.
        team, other = make_teams(db, 2, 5)
        for member_team in (other, team):
            synthetic_history.write(db, member_team, _EVENTS)
        with db.transaction() as conn:
            _fill_small_tables(conn, team)
        with db.connection() as conn:
            conn.raw.execute("ANALYZE")
            unacked_post = conn.fetch_one(
                "SELECT max(post_id) FROM delivery"
                " WHERE project_id = %s AND participation_id = %s AND acked_at IS NULL",
                (team.project_id, team.agents[0].ctx.participation_id),
            )[0]
            surface = conn.fetch_one("SELECT max(surface) FROM lease WHERE project_id = %s", (team.project_id,))[0]
            yield Scenario(Plans(conn), team, unacked_post, surface)
        db.close()


def _fill_small_tables(conn: Connection, team: Team) -> None:
    """Fill the tables that the synthetic history leaves empty, so that a scan of them is visible too."""
    conn.raw.execute(
        "INSERT INTO idempotency (project_id, participation_id, key, fingerprint, result)"
        " SELECT %s, %s, 'old-' || n, 'x', '{}' FROM generate_series(1, 5000) AS n",
        (team.project_id, team.agents[0].ctx.participation_id),
    )
    conn.raw.execute(
        "INSERT INTO task_blocker (project_id, task_id, id, on_task_id, reason, created_at, resolved_at)"
        " SELECT project_id, id, 1, id - 1, NULL, created_at, created_at FROM task WHERE project_id = %s AND id > 1"
        " AND status = 'done'",
        (team.project_id,),
    )


_ACTOR = "{mate}"
_WHEN = {"since": "2026-01-01T00:00:00Z"}
# Each tool, with arguments that change its plan.
_CALLS: list[tuple[str, dict[str, Any]]] = [
    ("whoami", {}),
    ("list_participants", {}),
    ("who_is_active", {"within_seconds": 86_400}),
    ("register", {"lane": "lane-3"}),
    ("whats_new", {}),
    ("whats_new", {"advance_cursor": False}),
    ("whats_new", {"since": 100, "limit": 500}),
    ("read_posts", {}),
    ("read_posts", {"limit": 200}),
    ("read_posts", {"before": 30_000}),
    ("read_posts", {"to_me": True}),
    ("read_posts", {"to_me": True, "unacked_only": True}),
    ("read_posts", {"to_me": True, "before": 20_000}),
    ("read_posts", {"unacked_only": True}),
    ("read_posts", {"to_lane": "lane-1"}),
    ("read_posts", {"to_lane": "lane-1", "unacked_only": True}),
    ("read_posts", {"to_lane": "empty-lane"}),
    ("read_posts", {"tag": "tag-5"}),
    ("read_posts", {"tag": "no-such-tag"}),
    ("read_posts", {"ref": "PR 30"}),
    ("read_posts", {"ref": "no such ref"}),
    ("read_posts", {"reply_to": 5}),
    ("post", {"to_actor": _ACTOR, "body": "x", "ref": "PR 1", "reply_to": "{waiting}"}),
    ("post", {"to_lane": "lane-1", "body": "x", "idempotency_key": "{key}"}),
    ("ack", {"post_id": "{waiting}"}),
    ("query_events", {}),
    ("query_events", {"limit": 1000}),
    ("query_events", {"before": 30_000}),
    *(("query_events", {"type": kind}) for kind in ("claim", "post", "ack", "escalate", "task_ship")),
    *(
        ("query_events", {**filter_, **type_})
        for filter_ in (
            {"actor": _ACTOR},
            {"sequence": "seq-1"},
            {"sequence": "none-such"},
            {"number": 7},
            {"number": 70_000},
            {"ref": "PR 30"},
            {"ref": "no such ref"},
            {"tag": "tag-5"},
            {"tag": "no-such-tag"},
            {**_WHEN},
            {"until": "2099-01-01T00:00:00Z"},
            {"since": "2099-01-01T00:00:00Z"},
            {"until": "2000-01-01T00:00:00Z"},
        )
        for type_ in ({}, {"type": "claim"}, {"type": "post"}, {"type": "escalate"})
    ),
    ("claim", {"sequence": "seq-1"}),
    ("claim", {"sequence": "new", "idempotency_key": "{key}"}),
    ("seed_sequence", {"sequence": "seq-1", "current": 100_000}),
    ("list_sequences", {}),
    ("latest_claims", {}),
    ("lease", {"surface": "src/new.py"}),
    ("lease", {"surface": "{surface}"}),
    ("lease", {"surface": "docs/**"}),
    ("release", {"surface": "{surface}"}),
    ("release", {"surface": "*"}),
    ("who_holds", {}),
    ("who_holds", {"surface": "{surface}"}),
    ("list_tasks", {}),
    ("list_tasks", {"status": "open"}),
    ("list_tasks", {"ready": True}),
    ("list_tasks", {"owner": _ACTOR}),
    ("list_tasks", {"lane": "none-such"}),
    ("task_create", {"title": "x", "blocked_on": ["{task}"]}),
    ("task_assign", {"task_id": "{task}", "owner": _ACTOR}),
    ("task_start", {"task_id": "{task}"}),
    ("task_next", {}),
    ("task_block", {"task_id": "{task}", "on": "{other task}", "reason": "x"}),
    ("task_resolve", {"task_id": "{task}"}),
    ("task_ship", {"task_id": "{task}"}),
    ("wait_for", {"kind": "inbox"}),
    ("wait_for", {"kind": "acks"}),
    ("wait_for", {"kind": "task"}),
    ("wait_for", {"kind": "task", "take": True}),
    ("wait_for", {"kind": "lease", "surface": "src/unleased.py"}),
    ("admin_provision", {"participant_name": "newcomer"}),
    ("admin_rotate", {"participant_name": _ACTOR}),
    ("admin_revoke", {"participant_name": _ACTOR}),
    ("create_invite", {}),
]


# The calls that a task needs before.
_PREPARATION: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "task_ship": [("task_start", {"task_id": "{task}"})],
    "task_block": [("task_start", {"task_id": "{task}"})],
    "task_resolve": [("task_start", {"task_id": "{task}"}), ("task_block", {"task_id": "{task}", "reason": "x"})],
}


def _name(call: tuple[str, dict[str, Any]]) -> str:
    return ", ".join([call[0], *(f"{name}={value}" for name, value in call[1].items())])


def _bound(tool: str, arguments: dict[str, Any]) -> int:
    """The most rows that one node may read."""
    if tool == "query_events" and "actor" in arguments and "type" not in arguments:
        # Each participant writes events of every type, and each type is a separate range.
        return len(EVENT_TYPES) * 101
    return max(_MAX_ROWS, arguments.get("limit", 0) + 1)


@pytest.mark.parametrize("call", _CALLS, ids=_name)
def test_a_call_reads_in_proportion_to_its_answer(scenario: Scenario, call: tuple[str, dict[str, Any]]) -> None:
    tool, _ = call
    last_task = 3_600
    for _ in range(_REPETITIONS):
        placeholders = {
            _ACTOR: scenario.team.agents[1].label,
            "{waiting}": scenario.unacked_post,
            "{surface}": scenario.surface,
            "{task}": last_task,
            "{other task}": last_task - 1,
            "{key}": f"key-{next(_numbers)}",
        }

        def fill(value: Any, placeholders: dict[str, Any] = placeholders) -> Any:
            if isinstance(value, list):
                return [fill(item) for item in value]
            return placeholders.get(value, value) if isinstance(value, str) else value

        calls = [
            (name, {key: fill(value) for key, value in arguments.items()})
            for name, arguments in [*_PREPARATION.get(tool, []), call]
        ]
        nodes = scenario.plans.nodes_of(scenario.team, calls)
        assert nodes, "no plan was collected"
        for node in nodes:
            if node.table in _LARGE_TABLES:
                assert node.kind != "Seq Scan", node
            assert node.rows <= _bound(*call), node


def test_the_plans_of_every_tool_are_checked() -> None:
    assert {tool for tool, _ in _CALLS} == set(all_tools())


def test_a_scan_of_the_history_is_detected(scenario: Scenario) -> None:
    """Otherwise the tests above would prove nothing."""
    plans = scenario.plans
    plans._nodes = []
    plans.conn.raw.execute("SELECT count(*) FROM event WHERE payload ->> 'note' = 'x'")
    plans.conn.raw.execute(
        "SELECT count(*) FROM post WHERE project_id = %s AND body = 'x'", (scenario.team.project_id,)
    )
    assert {node.table for node in plans._nodes} == {"event", "post"}
    assert all(node.rows > _MAX_ROWS for node in plans._nodes)
