"""`soak`: many calls; whether rate, memory and tables stay as they were."""

import subprocess
import sys
import time
from dataclasses import dataclass

from bench import cpu
from bench.checks import verify_ledgers, verify_posts
from bench.environment import Environment, checkpoint_and_pause
from bench.fixtures import assign_round_robin, make_teams
from bench.load import Window
from bench.scenario import Harness, Result, make_row
from bench.workloads import MixedWorkload

_SETTLE_SECONDS = 3.0
_WINDOW_SECONDS = 60.0
_MIB = 2**20
# Tables whose number of rows does not grow with the calls; the others are reported in bytes for each row.
_BOUNDED_TABLES = ("project_clock", "sequence", "cursor", "presence")
_GROWING_TABLES = ("event", "post", "delivery", "lease", "task")


@dataclass(frozen=True)
class _TableSize:
    """The size of a table: heap and indexes in bytes, rows, dead rows, and updates with the share of HOT ones."""

    heap: int
    indexes: int
    rows: int
    dead: int
    updates: int
    hot_updates: int


def run(harness: Harness) -> Result:
    """The mix again, for many calls: rate, memory of a gateway, tables and indexes, at the start and at the end."""
    result = Result()
    teams = make_teams(harness.environment.database, 4, 8)
    agents = assign_round_robin(teams, 32)
    trial = harness.run_workload(MixedWorkload(agents), 32, windows=1)
    posted, acked = dict(trial.workload_results["posted"]), set(trial.workload_results["acked"])
    # The expected duration of half of the calls.
    half = min(harness.effort.soak_calls / 2 / trial.best_window.rate, harness.effort.soak_seconds / 2)
    window_count = max(1, round(half / _WINDOW_SECONDS))
    checkpoint_and_pause(harness.environment)
    sizes_before = _measure_tables(harness.environment)
    windows: list[Window] = []
    memory_mib = []
    for seed in (2, 3):
        workload = MixedWorkload(agents, seed=seed)
        load_result = harness.run_workload(workload, 32, warmup=0.0, windows=window_count, seconds=half / window_count)
        windows += load_result.windows
        posted |= load_result.workload_results["posted"]
        acked |= load_result.workload_results["acked"]
        time.sleep(_SETTLE_SECONDS)
        memory_mib.append(harness.environment.gateway_memory / len(harness.environment.gateways) / _MIB)
    sizes_after = _measure_tables(harness.environment)
    result.rows.append(make_row("soak", "mixed", 32, windows))
    rates = [round(window.rate, 1) for window in windows]
    result.figures |= {
        "calls": sum(window.calls for window in windows),
        "rates": rates,
        "window_seconds": round(half / window_count, 1),
        "last_to_first": round(rates[-1] / rates[0], 3),
        "costs": [_cost_of_call(window) for window in windows],
        "middle_mib": round(memory_mib[0], 2),
        "end_mib": round(memory_mib[1], 2),
        "bare_mib": round(_measure_baseline_memory() / _MIB, 2),
        "tables_before": {name: vars(size) for name, size in sizes_before.items()},
        "tables_after": {name: vars(size) for name, size in sizes_after.items()},
    }
    result.lines.append(
        f"a gateway uses {memory_mib[0]:.1f} MiB after the first half of {result.figures['calls']:,} calls and"
        f" {memory_mib[1]:.1f} after the second; a process with the same imports {result.figures['bare_mib']:.1f}"
    )
    result.lines.append(
        f"calls per second in each {half / window_count:.0f} s: {', '.join(f'{rate:.0f}' for rate in rates)};"
        f" CPU us per call: {', '.join(f'{cost:.0f}' for cost in result.figures['costs'])}"
    )
    result.tables.append(_table_of_sizes(sizes_before, sizes_after))
    post_count = verify_posts(harness.environment.database, posted, acked)
    event_count = verify_ledgers(harness.environment.database, [team.project_id for team in teams])
    result.checked.append(f"{post_count} posts stored, {event_count} events contiguous")
    return result


def _cost_of_call(window: Window) -> float:
    """Return the CPU of gateways and PostgreSQL for each call, in microseconds."""
    used = sum(window.cpu.get(group, 0.0) for group in ("gateway", "postgres"))
    return round(used / max(1, window.calls) * 1e6, 1)


def _measure_tables(environment: Environment) -> dict[str, _TableSize]:
    """Measure the tables, once the statistics of the idle backends have arrived."""
    time.sleep(_SETTLE_SECONDS)
    with environment.database.connection() as conn:
        rows = conn.fetch_all(
            "SELECT relname, pg_relation_size(relid), pg_indexes_size(relid), n_live_tup, n_dead_tup, n_tup_upd,"
            " n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = ANY (%s)",
            ([*_BOUNDED_TABLES, *_GROWING_TABLES],),
        )
    return {name: _TableSize(*values) for name, *values in rows}


def _table_of_sizes(before: dict[str, _TableSize], after: dict[str, _TableSize]) -> tuple[list[str], list[list[str]]]:
    titles = ["table", "heap KiB", "at the end", "index KiB", "at the end", "bytes a row", "at the end", "dead", "HOT"]
    lines = []
    for name in (*_BOUNDED_TABLES, *_GROWING_TABLES):
        first, last = before[name], after[name]
        updates = last.updates - first.updates
        lines.append(
            [
                name,
                *(f"{size / 1024:.0f}" for size in (first.heap, last.heap, first.indexes, last.indexes)),
                *(f"{(size.heap + size.indexes) / max(1, size.rows):.0f}" for size in (first, last)),
                f"{last.dead}",
                f"{(last.hot_updates - first.hot_updates) / updates:.0%}" if updates else "",
            ]
        )
    return titles, lines


def _measure_baseline_memory() -> int:
    """Measure the bytes of an idle process with the imports of a gateway."""
    program = "import sys, uvloop, mcp_gateway.__main__; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return cpu.private_memory(process.pid)
