"""The plans of every tool in a project with a long history read rows in proportion to the result.

PostgreSQL's auto_explain reports the plan of each statement, including those inside SQL functions. Each tool is called
often enough to get a generic plan, which is independent of the arguments. A call is also made in a project with half
of the history, where it has to read as many pages: pages, unlike times, do not depend on other load of the machine.
"""

import json
from collections.abc import Iterator
from contextlib import closing
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
from cli.embedded import postgres
from mcp_gateway.tools import all_tools
from tests import servers

_EVENTS = 60_000
# Long enough that every page of an answer is full, so that both projects give answers of the same size.
_SHORTER_HISTORY = 30_000
_OTHER_PROJECTS, _OTHER_PARTICIPANTS_EACH = 200, 5
# PostgreSQL may choose a generic plan after five custom plans.
_REPETITIONS, _PAGE_REPETITIONS = 7, 3
_SET_APPLICATION_ROLE = f"SET ROLE {postgres.APPLICATION_ROLE}"
_LARGE_TABLES = {"event", "post", "delivery", "lease", "task", "task_blocker", "idempotency", "search_document"}
# The default page is 100 rows, and some pages combine two ranges.
_MAX_ROWS = 300
# The rows of an answer are spread over slightly more pages in one project than in the other. A scan would read twice
# as many pages in the project with twice the history.
_MAX_PAGE_GROWTH, _PAGE_TOLERANCE = 1.25, 20
_numbers = count(1)


@dataclass(frozen=True)
class Node:
    """A node of an executed plan: its type, the table, the rows read, and the statement."""

    kind: str
    table: str
    rows: int
    statement: str


class Plans:
    """A connection that collects the plan of every statement.

    Attributes:
        pages: the pages that the last statement read, from memory or from disk.
    """

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self._nodes: list[Node] = []
        self.pages = 0
        conn.raw.execute("LOAD 'auto_explain'")
        for setting, value in {
            "log_min_duration": "0",
            "log_analyze": "on",
            "log_timing": "off",
            "log_buffers": "on",
            "log_nested_statements": "on",
            "log_format": "json",
            "log_level": "notice",
        }.items():
            conn.raw.execute(f"SET auto_explain.{setting} = '{value}'".encode())
        conn.raw.add_notice_handler(self._note)
        # The plans are those of the processes, whose role is subject to row security.
        conn.raw.execute(_SET_APPLICATION_ROLE)

    def _note(self, diagnosis: psycopg.errors.Diagnostic) -> None:
        _, separator, plan = (diagnosis.message_primary or "").partition("plan:\n")
        if separator:
            explained = json.loads(plan)
            plan = explained["Plan"]
            self._walk(plan, explained["Query Text"])
            # Nested statements are reported before the one that contains them, whose count includes theirs.
            self.pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]

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

    def pages_of(self, team: Team, calls: list[tuple[str, dict[str, Any]]]) -> int:
        """Return the fewest pages that one of several repetitions of the last call read.

        VACUUM comes first: row versions that earlier calls rolled back would be counted too. It also empties the
        catalog cache of the connection, which the first repetition fills again.
        """
        self.conn.raw.execute("RESET ROLE")
        self.conn.raw.execute("VACUUM (PROCESS_TOAST false)")
        self.conn.raw.execute(_SET_APPLICATION_ROLE)
        pages = []
        for _ in range(_PAGE_REPETITIONS):
            self.nodes_of(team, calls)
            pages.append(self.pages)
        return min(pages)


@dataclass(frozen=True)
class History:
    """A project, and what exists in it for the arguments of calls."""

    team: Team
    unacked_post: int
    surface: str
    last_task: int
    last_seq: int


@dataclass(frozen=True)
class Scenario:
    plans: Plans
    history: History
    shorter_history: History

    @property
    def team(self) -> Team:
        """The project with the long history."""
        return self.history.team


@pytest.fixture(scope="module")
def scenario() -> Iterator[Scenario]:
    with (
        servers.cloned_database() as url,
        closing(Database(url, pool_size=2, index_scans_only=True)) as db,
    ):
        with db.connection() as conn:
            servers.require_auto_explain(conn)
        # A second project in the same tables, so that a plan has to select the rows of one project.
        team, other = make_teams(db, 2, 5)
        synthetic_history.write(db, other, _SHORTER_HISTORY)
        synthetic_history.write(db, team, _EVENTS)
        with db.transaction() as conn:
            _fill_small_tables(conn, team)
            for project_id in (team.project_id, other.project_id):
                _index_texts(conn, project_id)
            _add_participations(conn, other)
        with db.connection() as conn:
            conn.raw.execute("ANALYZE")
            yield Scenario(Plans(conn), _find_history(conn, team), _find_history(conn, other))


def _index_texts(conn: Connection, project_id: int) -> None:
    """Index all texts as the job does, in one statement for each kind."""
    conn.raw.execute("SET LOCAL statement_timeout = 0")
    for kind, text in (
        ("post", "concat_ws(' ', x.subject, x.ref, x.body)"),
        ("task", "concat_ws(' ', x.title, x.detail)"),
    ):
        conn.raw.execute(
            "INSERT INTO search_document (project_id, kind, id, words)"
            f" SELECT x.project_id, '{kind}', x.id, bus_search_document(x.project_id, '{kind}', x.id, {text})"
            f" FROM {kind} x WHERE x.project_id = {project_id} ORDER BY x.id".encode()
        )


def _find_history(conn: Connection, team: Team) -> History:
    project_id, participation_id = team.project_id, team.agents[0].ctx.participation_id
    unacked_post, surface, last_task, last_seq = conn.fetch_one(
        "SELECT (SELECT max(post_id) FROM delivery WHERE project_id = %(project)s AND participation_id = %(me)s"
        "        AND acked_at IS NULL),"
        " (SELECT max(surface) FROM lease WHERE project_id = %(project)s AND participation_id = %(me)s"
        "  AND ended_at IS NULL),"
        " (SELECT max(id) FROM task WHERE project_id = %(project)s),"
        " (SELECT last_seq FROM project_clock WHERE project_id = %(project)s)",
        {"project": project_id, "me": participation_id},
    )
    return History(team, unacked_post, surface, last_task, last_seq)


def _add_participations(conn: Connection, team: Team) -> None:
    """Add projects with participants, since a call should not read those of the whole service."""
    conn.raw.execute(
        "WITH other_project AS (INSERT INTO project (owner_id, name, name_key)"
        "                       SELECT pj.owner_id, 'other-' || n, 'other-' || n"
        "                       FROM project pj, generate_series(1, %s) AS n WHERE pj.id = %s RETURNING id, owner_id),"
        " other_participant AS (INSERT INTO participant (owner_id, label, kind)"
        "                      SELECT pj.owner_id, 'other-' || pj.id || '-' || n, 'agent'"
        "                      FROM other_project pj, generate_series(1, %s) AS n RETURNING id)"
        " INSERT INTO participation (project_id, participant_id)"
        " SELECT pj.id, pt.id FROM other_project pj, other_participant pt WHERE pt.id %% %s = pj.id %% %s",
        (_OTHER_PROJECTS, team.project_id, _OTHER_PARTICIPANTS_EACH, _OTHER_PROJECTS, _OTHER_PROJECTS),
    )


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
    ("read_posts", {"before": "{half}"}),
    ("read_posts", {"to_me": True}),
    ("read_posts", {"to_me": True, "unacked_only": True}),
    ("read_posts", {"to_me": True, "before": "{half}"}),
    ("read_posts", {"unacked_only": True}),
    ("read_posts", {"to_lane": "lane-1"}),
    ("read_posts", {"to_lane": "lane-1", "unacked_only": True}),
    ("read_posts", {"to_lane": "empty-lane"}),
    ("read_posts", {"tag": "tag-5"}),
    ("read_posts", {"tag": "no-such-tag"}),
    ("read_posts", {"ref": "PR 30"}),
    ("read_posts", {"ref": "no such ref"}),
    ("read_posts", {"reply_to": 5}),
    ("read_posts", {"text": "recovery"}),
    ("read_posts", {"text": "recovery", "before": "{half}"}),
    ("read_posts", {"text": '"error recovery" part'}),
    ("read_posts", {"text": "PR 30"}),
    ("read_posts", {"text": "nowhere"}),
    ("read_posts", {"text": "recovery nowhere"}),
    ("post", {"to_actor": _ACTOR, "body": "x", "ref": "PR 1", "reply_to": "{waiting}"}),
    ("post", {"to_lane": "lane-1", "body": "x", "idempotency_key": "{key}"}),
    ("ack", {"post_id": "{waiting}"}),
    ("query_events", {}),
    ("query_events", {"limit": 1000}),
    ("query_events", {"before": "{half}"}),
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
    ("list_tasks", {"text": "part"}),
    ("list_tasks", {"text": "nowhere"}),
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


def _build_calls(history: History, call: tuple[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Return a call with its preparation, with existing things in place of placeholders."""
    placeholders: dict[str, Any] = {
        _ACTOR: history.team.agents[1].label,
        "{waiting}": history.unacked_post,
        "{surface}": history.surface,
        "{task}": history.last_task,
        "{other task}": history.last_task - 1,
        "{half}": history.last_seq // 2,
        "{key}": f"key-{next(_numbers)}",
    }

    def fill(value: Any) -> Any:
        if isinstance(value, list):
            return [fill(item) for item in value]
        return placeholders.get(value, value) if isinstance(value, str) else value

    return [
        (name, {key: fill(value) for key, value in arguments.items()})
        for name, arguments in [*_PREPARATION.get(call[0], []), call]
    ]


@pytest.mark.parametrize("call", _CALLS, ids=_name)
def test_a_call_reads_in_proportion_to_its_answer(scenario: Scenario, call: tuple[str, dict[str, Any]]) -> None:
    plans = scenario.plans
    for _ in range(_REPETITIONS):
        nodes = plans.nodes_of(scenario.team, _build_calls(scenario.history, call))
        assert nodes, "no plan was collected"
        for node in nodes:
            if node.table in _LARGE_TABLES:
                assert node.kind != "Seq Scan", node
            assert node.rows <= _bound(*call), node
    pages, pages_of_shorter = (
        plans.pages_of(history.team, _build_calls(history, call))
        for history in (scenario.history, scenario.shorter_history)
    )
    assert pages <= _MAX_PAGE_GROWTH * pages_of_shorter + _PAGE_TOLERANCE


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
