"""`answers`: what a long answer costs the gateway and PostgreSQL, by kilobyte."""

import statistics
from typing import Any

from bench.client import Client
from bench.context_size import populate_typical_project
from bench.cpu import elapsed_seconds, take_snapshot
from bench.fixtures import make_teams
from bench.scenario import Harness, Result

_ROUNDS = 5
_CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "inbox of 50 posts": ("read_posts", {"to_me": True, "unacked_only": True}),
    "whats_new of 100 events": ("whats_new", {"advance_cursor": False}),
    "query_events of 100": ("query_events", {}),
    "who_holds of 6": ("who_holds", {}),
    "list_tasks of 20": ("list_tasks", {}),
    "whoami": ("whoami", {}),
}


def run(harness: Harness) -> Result:
    """CPU of long answers, by kilobyte; one connection, the kinds of calls in turn."""
    result = Result()
    environment = harness.environment
    (team,) = make_teams(environment.database, 1, 8)
    with environment.database.transaction() as conn:
        populate_typical_project(conn, team)
    process_groups = {**environment.process_groups, "gateway": environment.gateway_pids[:1]}
    call_count = max(60, harness.effort.samples)
    costs: dict[str, dict[str, list[float]]] = {name: {"gateway": [], "postgres": []} for name in _CALLS}
    sizes: dict[str, int] = {}
    with Client(environment.addresses[0], team.agents[1].token) as client:
        for _ in range(_ROUNDS):
            for name, (tool, arguments) in _CALLS.items():
                sizes[name] = len(client.call(tool, **arguments).text.encode())
                before = take_snapshot(process_groups)
                for _ in range(call_count):
                    client.call(tool, **arguments)
                used = elapsed_seconds(before, take_snapshot(process_groups))
                for group, values in costs[name].items():
                    values.append(used[group] / call_count * 1e6)
    table = []
    for name, by_group in costs.items():
        gateway, postgres = (round(statistics.median(by_group[group])) for group in ("gateway", "postgres"))
        gateway_per_kilobyte = round(gateway / sizes[name] * 1000, 1)
        result.figures[name] = {
            "bytes": sizes[name],
            "gateway": gateway,
            "postgres": postgres,
            "gateway_per_kilobyte": gateway_per_kilobyte,
        }
        table.append([name, f"{sizes[name]:,}", f"{gateway:,}", f"{postgres:,}", f"{gateway_per_kilobyte}"])
    titles = ["answer", "bytes", "gateway us", "PostgreSQL us", "gateway us per KB"]
    result.tables.append((titles, table))
    return result
