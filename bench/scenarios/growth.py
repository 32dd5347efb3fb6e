"""`growth`: what every tool costs in a project of a thousand events and in one of a million.

The projects stand in one database and are called in turn, call by call, over one connection each. What else the
machine does thus falls on all of them alike, and the ratio says what history alone costs.
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
"""Calls a tool under a name, notes how long it took, and returns the answer's content."""


@dataclass(frozen=True)
class ProjectClients:
    """A project with a history, and connections of its first two agents: `me` is project-admin."""

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
    """Write the histories, call every tool in each of them in turn, and compare."""
    result = Result()
    sizes = harness.effort.sizes
    places = []
    for team, events in zip(make_teams(harness.environment.database, len(sizes), _TEAM_SIZE), sizes, strict=True):
        started = time.monotonic()
        synthetic_history.write(harness.environment.database, team, events)
        result.lines.append(f"{events:,} events written in {time.monotonic() - started:.0f} s")
        # Two agents on two gateways, as in a team.
        me, mate = (
            Client(address, agent.token)
            for address, agent in zip(harness.environment.addresses, (team.agents[0], team.agents[1]), strict=True)
        )
        places.append(ProjectClients(team, events, me, mate))
    checkpoint_and_pause(harness.environment)
    taken: dict[str, dict[int, list[float]]] = {}
    _measure(harness, places, taken)
    summaries = {tool: {size: _best_block(some) for size, some in by.items()} for tool, by in taken.items()}
    _report(result, sizes, summaries)
    for place in places:
        place.admin.close()
        place.teammate.close()
    total = verify_ledgers(harness.environment.database, [place.team.project_id for place in places])
    result.checked.append(f"{total} events contiguous")
    return result


def _best_block(seconds: list[float]) -> LatencySummary:
    """The percentiles of the best quarter of a measurement: the machine's other work comes and goes."""
    size = max(1, len(seconds) // _BLOCK_COUNT)
    blocks = [summarize_latencies(seconds[start : start + size]) for start in range(0, size * _BLOCK_COUNT, size)]
    return min(blocks, key=lambda block: block.p50)


def _measure(harness: Harness, projects: list[ProjectClients], latencies: dict[str, dict[int, list[float]]]) -> None:
    noting = False

    def timed(place: ProjectClients) -> TimedCall:
        def call(name: str, tool: str, client: Client, **arguments: Any) -> dict[str, Any]:
            answer = client.call(tool, **arguments)
            content = answer.structured_content
            if noting:
                latencies.setdefault(name, {}).setdefault(place.events, []).append(answer.seconds)
            return content

        return call

    calls = [timed(place) for place in projects]
    # Caches are warm and statements prepared before anything counts.
    for round_ in range(-max(8, harness.effort.samples // 10), harness.effort.samples):
        noting = round_ >= 0
        # One step at a time in every project, so that a burst of other work on the machine hits all sizes.
        rounds = [_call_every_tool(place, call) for place, call in zip(projects, calls, strict=True)]
        for _ in zip(*rounds, strict=True):
            continue


def _call_every_tool(project: ProjectClients, call: TimedCall) -> Iterator[None]:
    """One round of every tool; yields after each call. What it writes it also takes back where it can."""
    me, mate = project.admin, project.teammate
    mate_name = project.team.agents[1].label
    known = {"{mate}": mate_name, "{recently}": _recent_timestamp(project)}
    for name, arguments in _READ_CALLS.items():
        filled = {key: known.get(value, value) if isinstance(value, str) else value for key, value in arguments.items()}
        call(name, name.partition(",")[0], me, **filled)
        yield
    number = next(_counter)
    call("claim", "claim", me, sequence="seq-1")
    yield
    call("claim, with a key", "claim", me, sequence="seq-1", idempotency_key=f"key-{number}")
    yield
    call("seed_sequence", "seed_sequence", me, sequence="seeded", current=number)
    yield
    posted = call("post", "post", me, body="Please look at this one.", to_actor=mate_name, ref="PR 1")
    yield
    call("ack", "ack", mate, post_id=posted["post_id"])
    yield
    to_lane = call("post, to a lane", "post", me, body="Please look at this one.", to_lane=project.team.agents[1].lane)
    yield
    mate.call("ack", post_id=to_lane["post_id"])
    call("lease", "lease", me, surface=f"src/new_{number}.py")
    yield
    call("release", "release", me, surface=f"src/new_{number}.py")
    yield
    call("register", "register", me, lane=project.team.agents[0].lane, status=f"round {number}")
    yield
    call("whats_new", "whats_new", me)
    yield
    yield from _call_task_tools(project, call, number)
    label = f"newcomer-{number}"
    call("admin_provision", "admin_provision", me, participant_name=label)
    yield
    call("admin_rotate", "admin_rotate", me, participant_name=label)
    yield
    call("admin_revoke", "admin_revoke", me, participant_name=label)
    yield
    call("create_invite", "create_invite", me)
    yield


def _call_task_tools(project: ProjectClients, call: TimedCall, number: int) -> Iterator[None]:
    me = project.admin
    task = call("task_create", "task_create", me, title=f"Round {number}")["task_id"]
    yield
    call("task_assign", "task_assign", me, task_id=task, owner=project.team.agents[0].label)
    yield
    call("task_start", "task_start", me, task_id=task)
    yield
    call("task_block", "task_block", me, task_id=task, reason="waiting for a review")
    yield
    call("task_resolve", "task_resolve", me, task_id=task)
    yield
    call("task_ship", "task_ship", me, task_id=task, ref="PR 1")
    yield
    # Another one in place of the one that is taken next, so that the board stays as long as it is.
    me.call("task_create", title=f"Round {number}, next")
    taken = call("task_next", "task_next", me)["task"]
    require(taken is not None, "task_next found nothing")
    me.call("task_ship", task_id=taken["task_id"])
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
        "p50": {tool: {str(size): one.p50 for size, one in by.items()} for tool, by in summaries.items()},
        "p99": {tool: {str(size): one.p99 for size, one in by.items()} for tool, by in summaries.items()},
    }
    for size in sizes:
        result.rows.append(_make_mean_row(size, [one[size] for one in summaries.values()]))
    titles = ["tool", *(f"{size:,} p50" for size in sizes), *(f"{size:,} p99" for size in sizes), "ratio"]
    lines = [
        [
            tool,
            *(f"{by[size].p50:.2f}" for size in sizes),
            *(f"{by[size].p99:.2f}" for size in sizes),
            f"{ratios[tool]:.2f}",
        ]
        for tool, by in summaries.items()
    ]
    result.tables.append((titles, lines))


def _make_mean_row(size: int, summaries: list[LatencySummary]) -> Row:
    """One line of the table for a size: the mean of what the tools took."""
    count_ = len(summaries)
    mean = LatencySummary(
        count=sum(one.count for one in summaries),
        p50=round(sum(one.p50 for one in summaries) / count_, 3),
        p95=round(sum(one.p95 for one in summaries) / count_, 3),
        p99=round(sum(one.p99 for one in summaries) / count_, 3),
        max=max(one.max for one in summaries),
    )
    return Row("growth", f"{size:,} events, mean of tools", 1, 0.0, [0.0], mean, {}, 0.0)
