"""Bytes that the bus adds to an agent's context: instructions, the start of a session, the results of each tool.

It counts the text that a client passes to its model, not HTTP. It measures two projects: a typical one, and one in
which every field is as long and every page as full as the bus allows.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.client import Client, Response
from bench.fixtures import Team, make_teams
from bench.requests import Address
from bus import limits
from bus.coordination import leases, posts, presence, sequences, tasks
from bus.db import Connection, Database

BUDGET_PATH = Path(__file__).with_name("budget.json")
ORIGINAL_SIZES = {"tools/list": 12_371, "whats_new, 100 events": 16_400, "inbox of 50 posts": 30_000}
"""Sizes of the original service, whose list had 27 tools."""

_INBOX_SIZE = 50
_FULL_PROJECT_SIZE = 200
_POST_BODY = (
    "The parser now keeps comments. Please look at the error recovery in the second commit before you go on with the"
    " formatter, since both touch the token stream; tests for nested blocks are still missing. Run `make test` first:"
    " two of the older tests fail on main too, for another reason, and I have opened a task for that."
)


@dataclass(frozen=True)
class ContextSizes:
    """Sizes in bytes.

    Attributes:
        initial: of the texts at the start of a session, by name.
        typical: of results in a typical project, by tool.
        largest: of results in a full project, by tool.
    """

    initial: dict[str, int]
    typical: dict[str, int]
    largest: dict[str, int]

    def as_budget(self) -> dict[str, int]:
        """Return all sizes by the names in the budget."""
        return {
            **self.initial,
            **{f"{tool}, usual": size for tool, size in self.typical.items()},
            **{f"{tool}, largest": size for tool, size in self.largest.items()},
        }


def load_budget() -> dict[str, int]:
    """Load the maximum of each size."""
    budget: dict[str, int] = json.loads(BUDGET_PATH.read_text(encoding="utf-8"))
    return budget


def measure_context_sizes(database: Database, address: Address) -> ContextSizes:
    """Set up both projects and measure them.

    Args:
        address: a gateway over this database.
    """
    (typical_team,) = make_teams(database, 1, 8)
    (full_team,) = make_teams(database, 1, 4, lane_count=1)
    with database.transaction() as conn:
        populate_typical_project(conn, typical_team)
    with database.transaction() as conn:
        _populate_full_project(conn, full_team)
    with Client(address, typical_team.agents[0].token) as admin, Client(address, typical_team.agents[1].token) as other:
        initial = {
            "tools/list of a project-admin": _tool_list_size(admin),
            "tools/list of others": _tool_list_size(other),
            "instructions": len(_fetch_instructions(address, typical_team.agents[1].token).encode()),
        }
        typical = _measure_typical(admin, other, typical_team)
        initial["whats_new, 100 events"] = typical["whats_new"]
        initial["inbox of 50 posts"] = typical["read_posts"]
        initial["a session's start"] = (
            initial["tools/list of others"] + initial["instructions"] + typical["whats_new"] + typical["read_posts"]
        )
    with Client(address, full_team.agents[0].token) as admin:
        largest = _measure_largest(admin, full_team)
    return ContextSizes(initial, typical, largest)


def _text_size(response: Response) -> int:
    return len(response.text.encode())


def _tool_list_size(client: Client) -> int:
    tools = client.request("tools/list").result["tools"]
    return len(json.dumps({"tools": tools}, separators=(",", ":"), ensure_ascii=False).encode())


def _fetch_instructions(address: Address, token: str) -> str:
    with Client(address, token, "legacy") as client:
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        return str(client.request("initialize", **params).result["instructions"])


def populate_typical_project(conn: Connection, team: Team) -> None:
    """Create a project after a week of work; the second agent has a full inbox and 100 unread events.

    A cursor begins 100 events before the end of the ledger, so the first rows of the set-up lie before it.
    """
    admin, reader, *others = team.agents
    for number in range(8):
        sequences.claim(conn, others[number % len(others)].ctx, f"seq-{number}", note="for the parser")
    for number, agent in enumerate(others):
        presence.register(conn, agent.ctx, agent.lane, status=f"formatter, step {number}")
        leases.acquire(conn, agent.ctx, f"src/parser/part_{number}.py", note="error recovery")
    for number in range(20):
        task = tasks.create(conn, admin.ctx, f"Part {number} of the parser", detail=_POST_BODY[:200], lane=admin.lane)
        if number % 3 == 0:
            tasks.start(conn, others[number % len(others)].ctx, task.task_id)
    for number in range(_INBOX_SIZE):
        sender = others[number % len(others)].ctx
        post = posts.create(
            conn, sender, _POST_BODY, to_actor=reader.label, subject=f"Parser, part {number}", ref=f"PR {number}"
        )
        # Every post is followed by another act of an agent, most often an ack.
        if number % 5 == 0:
            sequences.claim(conn, sender, f"seq-{number % 8}", note="for the parser")
        elif number % 5 == 1:
            presence.register(conn, sender, "parser", status=f"formatter, step {number}")
        else:
            posts.ack(conn, admin.ctx, [post.post_id])


def _populate_full_project(conn: Connection, team: Team) -> None:
    """Create a project in which every field has its maximum length and every list exceeds a page."""
    me, *others = team.agents
    for number in range(_FULL_PROJECT_SIZE):
        other = others[number % len(others)]
        mark = f"{number:04}"
        posts.create(
            conn,
            other.ctx,
            _pad_to_length(limits.MAX_BODY_LENGTH, mark),
            to_actor=me.label,
            to_lane=me.lane,
            subject=_pad_to_length(limits.MAX_SUBJECT_LENGTH, mark),
            ref=_pad_to_length(limits.MAX_REF_LENGTH, mark),
            tag=_pad_to_length(limits.MAX_LABEL_LENGTH, mark),
        )
        sequences.seed(conn, me.ctx, f"{mark}-{'s' * 59}", 1, prefix="P" * limits.MAX_PREFIX_LENGTH, pad=limits.MAX_PAD)
        sequences.claim(conn, me.ctx, f"{mark}-{'s' * 59}", note=_pad_to_length(limits.MAX_NOTE_LENGTH, mark))
        leases.acquire(
            conn,
            other.ctx,
            _pad_to_length(limits.MAX_SURFACE_LENGTH, mark),
            note=_pad_to_length(limits.MAX_NOTE_LENGTH, mark),
        )
        tasks.create(
            conn,
            me.ctx,
            _pad_to_length(limits.MAX_TITLE_LENGTH, mark),
            detail=_pad_to_length(limits.MAX_DETAIL_LENGTH, mark),
            lane=_pad_to_length(limits.MAX_LABEL_LENGTH, mark),
        )
    for agent in others:
        presence.register(
            conn,
            agent.ctx,
            _pad_to_length(limits.MAX_LABEL_LENGTH, "l"),
            status=_pad_to_length(limits.MAX_STATUS_LENGTH, "s"),
        )


def _pad_to_length(length: int, prefix: str) -> str:
    return f"{prefix}-{'x' * (length - len(prefix) - 1)}"


def _measure_typical(admin: Client, other: Client, team: Team) -> dict[str, int]:
    recipient = team.agents[2].label
    sizes = {
        "whats_new": _text_size(other.call("whats_new")),
        "read_posts": _text_size(other.call("read_posts", to_me=True, unacked_only=True)),
    }
    calls: dict[str, dict[str, Any]] = {
        "whoami": {},
        "list_participants": {},
        "claim": {"sequence": "seq-1"},
        "seed_sequence": {"sequence": "seeded", "current": 41, "prefix": "ADR-", "pad": 4},
        "latest_claims": {},
        "list_sequences": {},
        "lease": {"surface": "src/parser/part_1.py"},
        "release": {"surface": "src/parser/part_1.py"},
        "who_holds": {},
        "query_events": {},
        "list_tasks": {},
        "register": {"lane": "parser", "status": "error recovery"},
        "who_is_active": {},
        "admin_provision": {"participant_name": "newcomer"},
        "admin_rotate": {"participant_name": "newcomer"},
        "admin_revoke": {"participant_name": "newcomer"},
        "create_invite": {},
    }
    sizes |= {tool: _text_size(admin.call(tool, **arguments)) for tool, arguments in calls.items()}
    post = admin.call("post", body=_POST_BODY, to_actor=recipient, ref="PR 17")
    sizes["post"] = _text_size(post)
    sizes["ack"] = _text_size(admin.call("ack", post_id=post.structured_content["post_id"]))
    return sizes | _measure_task_tools(admin, team.agents[0].label, "Part 17")


def _measure_task_tools(admin: Client, admin_label: str, title: str) -> dict[str, int]:
    created = admin.call("task_create", title=title)
    task_id = created.structured_content["task_id"]
    calls: dict[str, Callable[[], Response]] = {
        "task_assign": lambda: admin.call("task_assign", task_id=task_id, owner=admin_label),
        "task_start": lambda: admin.call("task_start", task_id=task_id),
        "task_block": lambda: admin.call("task_block", task_id=task_id, reason="waiting for a review"),
        "task_resolve": lambda: admin.call("task_resolve", task_id=task_id),
        "task_ship": lambda: admin.call("task_ship", task_id=task_id, ref="PR 17"),
        "task_next": lambda: admin.call("task_next"),
    }
    return {"task_create": _text_size(created), **{tool: _text_size(call()) for tool, call in calls.items()}}


def _measure_largest(admin: Client, team: Team) -> dict[str, int]:
    """Measure the largest result of each tool whose results vary: the fullest page that it returns."""
    calls: dict[str, dict[str, Any]] = {
        "whats_new": {"limit": 500, "since": 0},
        "read_posts": {"limit": 200},
        "query_events": {"limit": 1000},
        "latest_claims": {},
        "list_sequences": {},
        "who_holds": {},
        "list_tasks": {"limit": 200},
        "list_participants": {},
        "who_is_active": {},
        "lease": {"surface": "**", "note": _pad_to_length(limits.MAX_NOTE_LENGTH, "n")},
        "claim": {"sequence": f"0001-{'s' * 59}", "note": _pad_to_length(limits.MAX_NOTE_LENGTH, "n")},
        "task_next": {},
    }
    sizes = {tool: _text_size(admin.call(tool, **arguments)) for tool, arguments in calls.items()}
    sizes["read_posts, default page"] = _text_size(admin.call("read_posts"))
    # Not read_posts: its pages end early if bodies are long.
    events = admin.call("query_events", type="post", limit=limits.MAX_POSTS_PER_ACK).structured_content["events"]
    sizes["ack"] = _text_size(admin.call("ack", post_ids=[event["id"] for event in events]))
    return sizes
