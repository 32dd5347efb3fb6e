"""`growth`: the latency of every tool in a project of a thousand events and in one of a million.

The projects share a database and are called in turn, call by call, over one connection each. Other load of the machine
therefore affects all of them alike, and the ratio shows the cost of history alone.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

from bench import synthetic_history
from bench.checks import require, verify_ledgers
from bench.client import Client
from bench.environment import checkpoint_and_pause
from bench.fixtures import Team, make_teams
from bench.scenario import Harness, Result, Row
from bench.stats import LatencySummary, summarize_latencies

_TEAM_SIZE = 5
_BLOCK_COUNT = 4
_counter = count(1)
TimedCall: TypeAlias = Callable[..., dict[str, Any]]
"""Calls a tool, records the latency under a name, and returns the structured content."""


@dataclass(frozen=True)
class ProjectClients:
    """A project with a history, and connections of its first two agents; `admin` is project-admin."""

    team: Team
    events: int
    admin: Client
    teammate: Client


_READ_CALLS: dict[str, dict[str, Any]] = {
    "whoami": {},
    "list_participants": {},
    "whats_new, looking": {"advance_cursor": False},
    "whats_new, since": {"since": 100, "limit": 50},
    "read_posts": {},
    "read_posts, inbox": {"to_me": True, "unacked_only": True},
    "read_posts, to_me": {"to_me": True},
    "read_posts, unacked": {"unacked_only": True},
    "read_posts, lane": {"to_lane": "lane-1", "limit": 10},
    "read_posts, lane unacked": {"to_lane": "lane-1", "unacked_only": True, "limit": 10},
    "read_posts, tag": {"tag": "tag-5", "limit": 5},
    "read_posts, ref": {"ref": "PR 30"},
    "query_events": {},
    "query_events, type": {"type": "claim", "limit": 20},
    "query_events, rare type": {"type": "escalate"},
    "query_events, actor": {"actor": "{mate}", "limit": 20},
    "query_events, sequence": {"sequence": "seq-1", "limit": 2},
    "query_events, number": {"sequence": "seq-1", "number": 1},
    "query_events, ref": {"ref": "PR 30"},
    "query_events, tag": {"tag": "tag-5", "limit": 5},
    "query_events, since": {"since": "{recently}", "limit": 20},
    "latest_claims": {},
    "list_sequences": {},
    "who_holds": {},
    "who_holds, surface": {"surface": "src/part_1.py"},
    "list_tasks": {},
    "list_tasks, ready": {"ready": True},
    "who_is_active": {},
}


def run(harness: Harness) -> Result:
    """Write the histories, call every tool in each project in turn, and compare the latencies."""
    result = Result()
    sizes = harness.effort.sizes
    projects = []
    for team, events in zip(make_teams(harness.environment.database, len(sizes), _TEAM_SIZE), sizes, strict=True):
        started_at = time.monotonic()
        synthetic_history.write(harness.environment.database, team, events)
        result.lines.append(f"{events:,} events written in {time.monotonic() - started_at:.0f} s")
        # Two agents on two gateways, as in a team.
        admin, teammate = (
            Client(address, agent.token)
            for address, agent in zip(harness.environment.addresses, (team.agents[0], team.agents[1]), strict=True)
        )
        projects.append(ProjectClients(team, events, admin, teammate))
    checkpoint_and_pause(harness.environment)
    latencies: dict[str, dict[int, list[float]]] = {}
    _measure(harness, projects, latencies)
    summaries = {
        tool: {size: _best_block(seconds) for size, seconds in by_size.items()} for tool, by_size in latencies.items()
    }
    _report(result, sizes, summaries)
    for project in projects:
        project.admin.close()
        project.teammate.close()
    total = verify_ledgers(harness.environment.database, [project.team.project_id for project in projects])
    result.checked.append(f"{total} events contiguous")
    return result


def _best_block(seconds: list[float]) -> LatencySummary:
    """Return the percentiles of the best quarter of a measurement, since other load of the machine varies."""
    size = max(1, len(seconds) // _BLOCK_COUNT)
    blocks = [summarize_latencies(seconds[start : start + size]) for start in range(0, size * _BLOCK_COUNT, size)]
    return min(blocks, key=lambda block: block.p50)


def _measure(harness: Harness, projects: list[ProjectClients], latencies: dict[str, dict[int, list[float]]]) -> None:
    is_recording = False

    def make_timed_call(project: ProjectClients) -> TimedCall:
        def call(name: str, tool: str, client: Client, **arguments: Any) -> dict[str, Any]:
            response = client.call(tool, **arguments)
            content = response.structured_content
            if is_recording:
                latencies.setdefault(name, {}).setdefault(project.events, []).append(response.seconds)
            return content

        return call

    calls = [make_timed_call(project) for project in projects]
    # The first rounds warm caches and prepare statements; they are not recorded.
    for round_number in range(-max(8, harness.effort.samples // 10), harness.effort.samples):
        is_recording = round_number >= 0
        # One step at a time in every project, so that a burst of other load affects all sizes.
        rounds = [_call_every_tool(project, call) for project, call in zip(projects, calls, strict=True)]
        for _ in zip(*rounds, strict=True):
            continue


def _call_every_tool(project: ProjectClients, call: TimedCall) -> Iterator[None]:
    """Call every tool once, and yield after each call. Undoes its writes where possible."""
    admin, teammate = project.admin, project.teammate
    teammate_label = project.team.agents[1].label
    placeholders = {"{mate}": teammate_label, "{recently}": _recent_timestamp(project)}
    for name, arguments in _READ_CALLS.items():
        filled = {
            key: placeholders.get(value, value) if isinstance(value, str) else value for key, value in arguments.items()
        }
        call(name, name.partition(",")[0], admin, **filled)
        yield
    number = next(_counter)
    call("claim", "claim", admin, sequence="seq-1")
    yield
    call("claim, with a key", "claim", admin, sequence="seq-1", idempotency_key=f"key-{number}")
    yield
    call("seed_sequence", "seed_sequence", admin, sequence="seeded", current=number)
    yield
    post = call("post", "post", admin, body="Please look at this one.", to_actor=teammate_label, ref="PR 1")
    yield
    call("ack", "ack", teammate, post_id=post["post_id"])
    yield
    lane_post = call(
        "post, to a lane", "post", admin, body="Please look at this one.", to_lane=project.team.agents[1].lane
    )
    yield
    teammate.call("ack", post_id=lane_post["post_id"])
    call("lease", "lease", admin, surface=f"src/new_{number}.py")
    yield
    call("release", "release", admin, surface=f"src/new_{number}.py")
    yield
    call("register", "register", admin, lane=project.team.agents[0].lane, status=f"round {number}")
    yield
    call("whats_new", "whats_new", admin)
    yield
    yield from _call_task_tools(project, call, number)
    label = f"newcomer-{number}"
    call("admin_provision", "admin_provision", admin, participant_name=label)
    yield
    call("admin_rotate", "admin_rotate", admin, participant_name=label)
    yield
    call("admin_revoke", "admin_revoke", admin, participant_name=label)
    yield
    call("create_invite", "create_invite", admin)
    yield


def _call_task_tools(project: ProjectClients, call: TimedCall, number: int) -> Iterator[None]:
    admin = project.admin
    task_id = call("task_create", "task_create", admin, title=f"Round {number}")["task_id"]
    yield
    call("task_assign", "task_assign", admin, task_id=task_id, owner=project.team.agents[0].label)
    yield
    call("task_start", "task_start", admin, task_id=task_id)
    yield
    call("task_block", "task_block", admin, task_id=task_id, reason="waiting for a review")
    yield
    call("task_resolve", "task_resolve", admin, task_id=task_id)
    yield
    call("task_ship", "task_ship", admin, task_id=task_id, ref="PR 1")
    yield
    # Replaces the task that is taken next, so that the number of tasks stays constant.
    admin.call("task_create", title=f"Round {number}, next")
    next_task = call("task_next", "task_next", admin)["task"]
    require(next_task is not None, "task_next returned no task")
    admin.call("task_ship", task_id=next_task["task_id"])
    yield


def _recent_timestamp(project: ProjectClients) -> str:
    # Before the last 20 events of the history, which are 20 seconds apart.
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 400))


def _report(result: Result, sizes: tuple[int, ...], summaries: dict[str, dict[int, LatencySummary]]) -> None:
    ratios = {}
    for tool, by_size in summaries.items():
        ratios[tool] = round(by_size[sizes[-1]].p50 / by_size[sizes[0]].p50, 3)
    result.figures |= {
        "sizes": list(sizes),
        "ratios": ratios,
        "p50": _values_by_size(summaries, lambda summary: summary.p50),
        "p99": _values_by_size(summaries, lambda summary: summary.p99),
    }
    for size in sizes:
        result.rows.append(_make_mean_row(size, [by_size[size] for by_size in summaries.values()]))
    titles = ["tool", *(f"{size:,} p50" for size in sizes), *(f"{size:,} p99" for size in sizes), "ratio"]
    rows = [
        [
            tool,
            *(f"{by_size[size].p50:.2f}" for size in sizes),
            *(f"{by_size[size].p99:.2f}" for size in sizes),
            f"{ratios[tool]:.2f}",
        ]
        for tool, by_size in summaries.items()
    ]
    result.tables.append((titles, rows))


def _values_by_size(
    summaries: dict[str, dict[int, LatencySummary]], get_value: Callable[[LatencySummary], float]
) -> dict[str, dict[str, float]]:
    return {
        tool: {str(size): get_value(summary) for size, summary in by_size.items()}
        for tool, by_size in summaries.items()
    }


def _make_mean_row(size: int, summaries: list[LatencySummary]) -> Row:
    """Create the row of a size: the mean of all tools."""
    tool_count = len(summaries)
    mean = LatencySummary(
        count=sum(summary.count for summary in summaries),
        p50=round(sum(summary.p50 for summary in summaries) / tool_count, 3),
        p95=round(sum(summary.p95 for summary in summaries) / tool_count, 3),
        p99=round(sum(summary.p99 for summary in summaries) / tool_count, 3),
        max=max(summary.max for summary in summaries),
    )
    return Row("growth", f"{size:,} events, mean of tools", 1, 0.0, [0.0], mean, {}, 0.0)
