"""`storage`: the bytes on disk that a ledger takes, by table, with everything that jobs derive from it."""

from bench import synthetic_history
from bench.environment import Environment
from bench.fixtures import make_teams
from bench.scenario import Harness, Result
from bus.analytics import rollups
from bus.coordination import text_search

_TEAM_SIZE = 20
_MIB = 2**20
# Smaller tables together are one line.
_MIN_SHARE = 0.01


def run(harness: Harness) -> Result:
    """Bytes on disk of a history, by table: heap, indexes and TOAST, after rollups and the search index."""
    result = Result()
    events = harness.effort.storage_events
    (team,) = make_teams(harness.environment.database, 1, _TEAM_SIZE)
    before = _measure(harness.environment)
    synthetic_history.write(harness.environment.database, team, events)
    _run_jobs(harness.environment, team.project_id)
    grown = {name: size - before.get(name, 0) for name, size in _measure(harness.environment).items()}
    total = sum(grown.values())
    result.figures |= {"events": events, "bytes": total, "bytes_per_event": round(total / events), "tables": grown}
    shown = sorted((name for name in grown if grown[name] >= total * _MIN_SHARE), key=lambda name: -grown[name])
    lines = [[name, f"{grown[name] / _MIB:.1f}", f"{grown[name] / events:.0f}"] for name in shown]
    others = total - sum(grown[name] for name in shown)
    lines.append(["others", f"{others / _MIB:.1f}", f"{others / events:.0f}"])
    result.tables.append((["table", "MiB", "bytes an event"], lines))
    result.lines.append(
        f"{events:,} events take {total / _MIB:.1f} MiB, {total / events:.0f} bytes each; a plain dump and the"
        " write-ahead log are not counted"
    )
    return result


def _run_jobs(environment: Environment, project_id: int) -> None:
    """Bring rollups and search index up to date, as the workers do."""
    for step in (rollups.roll_up_batch, text_search.index_batch):
        while True:
            with environment.database.transaction() as conn:
                if not step(conn, project_id):
                    break
    with environment.database.connection() as conn:
        conn.raw.execute("SET statement_timeout = 0")
        conn.raw.execute("VACUUM ANALYZE")
        conn.raw.execute("RESET statement_timeout")


def _measure(environment: Environment) -> dict[str, int]:
    with environment.database.connection() as conn:
        rows = conn.fetch_all("SELECT relname::text, pg_total_relation_size(relid) FROM pg_stat_user_tables")
    return {name: int(size) for name, size in rows}
