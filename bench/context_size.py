"""What an agent pays in its own context: bytes of what it is told, of a session's start, of each tool's answers.

The bytes counted are those of the text that a client hands to its model, not of HTTP. Measured in two projects: one as
agents leave it, and one in which every field is as long and every page as full as the bus allows.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.client import Answer, Client
from bench.fixtures import Team, make_teams
from bench.requests import Address
from bus import limits
from bus.coordination import leases, posts, presence, sequences, tasks
from bus.db import Connection, Database

BUDGET = Path(__file__).with_name("budget.json")
ORIGINAL = {"tools/list": 12_371, "whats_new, 100 events": 16_400, "inbox of 50 posts": 30_000}
"""What the original service's answers took; its list had 27 tools."""

_INBOX = 50
_FULL = 200
_BODY = (
    "The parser now keeps comments. Please look at the error recovery in the second commit before you go on with the"
    " formatter, since both touch the token stream; tests for nested blocks are still missing. Run `make test` first:"
    " two of the older tests fail on main too, for another reason, and I have opened a task for that."
)


@dataclass(frozen=True)
class Sizes:
    """Bytes, by what they are the size of. `usual` and `largest` are by tool."""

    told: dict[str, int]
    usual: dict[str, int]
    largest: dict[str, int]

    def flat(self) -> dict[str, int]:
        """All of them under one name each, as the budget has them."""
        return {
            **self.told,
            **{f"{tool}, usual": size for tool, size in self.usual.items()},
            **{f"{tool}, largest": size for tool, size in self.largest.items()},
        }


def budget() -> dict[str, int]:
    """The most bytes that each may take."""
    found: dict[str, int] = json.loads(BUDGET.read_text(encoding="utf-8"))
    return found


def measure(database: Database, address: Address) -> Sizes:
    """Set up both projects and ask for everything in them.

    Args:
        address: a gateway over that database.
    """
    (lived_in,) = make_teams(database, 1, 8)
    (full,) = make_teams(database, 1, 4, lanes=1)
    with database.write() as conn:
        _live_in(conn, lived_in)
    with database.write() as conn:
        _fill(conn, full)
    with Client(address, lived_in.agents[0].token) as admin, Client(address, lived_in.agents[1].token) as other:
        told = {
            "tools/list of a project-admin": _list_size(admin),
            "tools/list of others": _list_size(other),
            "instructions": len(_instructions(address, lived_in.agents[1].token).encode()),
        }
        usual = _usual(admin, other, lived_in)
        told["whats_new, 100 events"] = usual["whats_new"]
        told["inbox of 50 posts"] = usual["read_posts"]
        told["a session's start"] = (
            told["tools/list of others"] + told["instructions"] + usual["whats_new"] + usual["read_posts"]
        )
    with Client(address, full.agents[0].token) as admin:
        largest = _largest(admin, full)
    return Sizes(told, usual, largest)


def _size(answer: Answer) -> int:
    return len(answer.text.encode())


def _list_size(client: Client) -> int:
    tools = client.request("tools/list").result["tools"]
    return len(json.dumps({"tools": tools}, separators=(",", ":"), ensure_ascii=False).encode())


def _instructions(address: Address, token: str) -> str:
    with Client(address, token, "legacy") as client:
        who = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        return str(client.request("initialize", **who).result["instructions"])


def _live_in(conn: Connection, team: Team) -> None:
    """A project as a week of work leaves it; the second agent finds a full inbox and 100 events to catch up with.

    A cursor begins 100 events before the end of the ledger, so what was set up first lies before it.
    """
    me, reader, *others = team.agents
    for number in range(8):
        sequences.claim(conn, others[number % len(others)].ctx, f"seq-{number}", note="for the parser")
    for number, agent in enumerate(others):
        presence.register(conn, agent.ctx, agent.lane, status=f"formatter, step {number}")
        leases.acquire(conn, agent.ctx, f"src/parser/part_{number}.py", note="error recovery")
    for number in range(20):
        made = tasks.create(conn, me.ctx, f"Part {number} of the parser", detail=_BODY[:200], lane=me.lane)
        if number % 3 == 0:
            tasks.start(conn, others[number % len(others)].ctx, made.task_id)
    for number in range(_INBOX):
        sender = others[number % len(others)].ctx
        sent = posts.create(
            conn, sender, _BODY, to_actor=reader.label, subject=f"Parser, part {number}", ref=f"PR {number}"
        )
        # Every post is followed by what else agents do, most often an ack.
        if number % 5 == 0:
            sequences.claim(conn, sender, f"seq-{number % 8}", note="for the parser")
        elif number % 5 == 1:
            presence.register(conn, sender, "parser", status=f"formatter, step {number}")
        else:
            posts.ack(conn, me.ctx, [sent.post_id])


def _fill(conn: Connection, team: Team) -> None:
    """A project in which everything is as long as it may be and every list longer than a page."""
    me, *others = team.agents
    for number in range(_FULL):
        other = others[number % len(others)]
        mark = f"{number:04}"
        posts.create(
            conn,
            other.ctx,
            _long(limits.BODY, mark),
            to_actor=me.label,
            to_lane=me.lane,
            subject=_long(limits.SUBJECT, mark),
            ref=_long(limits.REF, mark),
            tag=_long(limits.LABEL, mark),
        )
        sequences.seed(conn, me.ctx, f"{mark}-{'s' * 59}", 1, prefix="P" * limits.PREFIX, pad=limits.PAD)
        sequences.claim(conn, me.ctx, f"{mark}-{'s' * 59}", note=_long(limits.NOTE, mark))
        leases.acquire(conn, other.ctx, _long(limits.SURFACE, mark), note=_long(limits.NOTE, mark))
        tasks.create(
            conn,
            me.ctx,
            _long(limits.TITLE, mark),
            detail=_long(limits.DETAIL, mark),
            lane=_long(limits.LABEL, mark),
        )
    for agent in others:
        presence.register(conn, agent.ctx, _long(limits.LABEL, "l"), status=_long(limits.STATUS, "s"))


def _long(length: int, mark: str) -> str:
    return f"{mark}-{'x' * (length - len(mark) - 1)}"


def _usual(admin: Client, other: Client, team: Team) -> dict[str, int]:
    mate = team.agents[2].label
    sizes = {
        "whats_new": _size(other.call("whats_new")),
        "read_posts": _size(other.call("read_posts", to_me=True, unacked_only=True)),
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
    sizes |= {tool: _size(admin.call(tool, **arguments)) for tool, arguments in calls.items()}
    posted = admin.call("post", body=_BODY, to_actor=mate, ref="PR 17")
    sizes["post"] = _size(posted)
    sizes["ack"] = _size(admin.call("ack", post_id=posted.content["post_id"]))
    return sizes | _task_sizes(admin, team.agents[0].label, "Part 17")


def _task_sizes(admin: Client, me: str, title: str) -> dict[str, int]:
    created = admin.call("task_create", title=title)
    task = created.content["task_id"]
    answers: dict[str, Callable[[], Answer]] = {
        "task_assign": lambda: admin.call("task_assign", task_id=task, owner=me),
        "task_start": lambda: admin.call("task_start", task_id=task),
        "task_block": lambda: admin.call("task_block", task_id=task, reason="waiting for a review"),
        "task_resolve": lambda: admin.call("task_resolve", task_id=task),
        "task_ship": lambda: admin.call("task_ship", task_id=task, ref="PR 17"),
        "task_next": lambda: admin.call("task_next"),
    }
    return {"task_create": _size(created), **{tool: _size(answer()) for tool, answer in answers.items()}}


def _largest(admin: Client, team: Team) -> dict[str, int]:
    """The largest answers of the tools whose answers vary: the fullest page that may be asked for."""
    glob = "**"
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
        "lease": {"surface": glob, "note": _long(limits.NOTE, "n")},
        "claim": {"sequence": f"0001-{'s' * 59}", "note": _long(limits.NOTE, "n")},
        "task_next": {},
    }
    sizes = {tool: _size(admin.call(tool, **arguments)) for tool, arguments in calls.items()}
    sizes["read_posts, default page"] = _size(admin.call("read_posts"))
    # Not read_posts: its pages end early where bodies are long.
    posted = admin.call("query_events", type="post", limit=limits.POSTS_PER_ACK).content["events"]
    sizes["ack"] = _size(admin.call("ack", post_ids=[one["id"] for one in posted]))
    return sizes
