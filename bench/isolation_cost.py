"""`python -m bench.isolation_cost`: what a second isolation of projects, in the database, costs PostgreSQL.

Copies of one database differ only in how they isolate: composite foreign keys, row security on writes, or row security
on reads and writes. One connection each makes the same calls, in alternating rounds, and the CPU time of its server
process is read from the kernel. docs/decisions/0044-application-role.md has the result.
"""

import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import click
import psycopg

from bench import fixtures
from bench.environment import free_port
from bench.fixtures import Agent
from bus.coordination import ledger, posts, sequences
from bus.db import Connection, Database, migrate
from bus.tables import COORDINATION_TABLES
from cli.embedded import account, postgres

_ROLE, _PASSWORD = "isolation_cost", "isolation_cost"
_TABLES = sorted(table.name for table in COORDINATION_TABLES)
_SCOPE = "llm_bus.project_scope"
_POST_BODY = "The parser now keeps comments; please look at the error recovery in the second commit. " * 3
_WRITE_CHECK = f"coalesce(current_setting('{_SCOPE}', true), '') IN ('', project_id::text)"
# As a comparison of numbers it can be the condition of an index.
_READ_CHECK = f"project_id = nullif(current_setting('{_SCOPE}', true), '')::bigint"
_REFERENCES = {
    "post": ("participation_id", "to_participation_id"),
    "delivery": ("participation_id",),
    "lease": ("participation_id",),
    "task": ("participation_id",),
    "presence": ("participation_id",),
    "cursor": ("participation_id",),
    "idempotency": ("participation_id",),
}
_REMOVE_SQL = ";".join(
    f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY; DROP POLICY IF EXISTS project_scope ON {table};"
    f"DROP POLICY IF EXISTS read_all ON {table}"
    for table in _TABLES
)


def _foreign_keys_sql(tables: dict[str, tuple[str, ...]]) -> str:
    return "ALTER TABLE participation ADD UNIQUE (project_id, id);" + ";".join(
        f"ALTER TABLE {table} ADD FOREIGN KEY (project_id, {column}) REFERENCES participation (project_id, id)"
        for table, columns in tables.items()
        for column in columns
    )


def _policies_sql(policies: str) -> str:
    return ";".join(
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; {policies.format(table=table)}" for table in _TABLES
    )


_VARIANTS = {
    "none": "",
    "foreign keys": _foreign_keys_sql(_REFERENCES),
    "foreign keys, ledger too": _foreign_keys_sql(_REFERENCES | {"event": ("participation_id",)}),
    "row security on writes": _policies_sql(
        f"CREATE POLICY project_scope ON {{table}} USING ({_WRITE_CHECK});"
        "CREATE POLICY read_all ON {table} FOR SELECT USING (true)"
    ),
    "row security on all": _policies_sql(f"CREATE POLICY project_scope ON {{table}} USING ({_READ_CHECK})"),
}
_SETS_SCOPE = ("row security on writes", "row security on all")


def _operations(agent: Agent, other: Agent) -> dict[str, Callable[[Connection], object]]:
    return {
        "claim": lambda conn: sequences.claim(conn, agent.ctx, "adr"),
        "post": lambda conn: posts.create(conn, agent.ctx, _POST_BODY, to_actor=other.label),
        "read_posts": lambda conn: posts.list_posts(conn, agent.ctx, to_me=True, limit=10),
        "query_events ref": lambda conn: ledger.query_events(conn, agent.ctx, ref="PR-7", limit=10),
    }


def _cpu_nanoseconds(backend: int) -> int:
    return int(Path(f"/proc/{backend}/schedstat").read_text("ascii").split()[0])


def _run_as_caller_scope_sql(source: str) -> str:
    """Return the function bus_authenticate with the statement that sets the scope of the transaction."""
    return source.replace(
        "    IF v_suspended AND",
        f"    v_scope := set_config('{_SCOPE}', project_id::text, true);\n    IF v_suspended AND",
    ).replace("DECLARE\n", "DECLARE\n    v_scope text;\n")


def _prepare(server: postgres.PostgresServer, events: int) -> list[Agent]:
    migrate.migrate(server.url)
    with closing(Database(server.url, pool_size=1)) as database:
        teams = fixtures.make_teams(database, 4, 4)
        for team in teams:
            first, second = team.agents[:2]
            with database.connection() as conn:
                for number in range(events):
                    sequences.claim(conn, first.ctx, "adr")
                    if number % 10 == 0:
                        posts.create(conn, second.ctx, _POST_BODY, to_actor=first.label, ref=f"PR-{number % 1000}")
    with psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute(_REMOVE_SQL.encode())
        conn.execute(f"CREATE ROLE {_ROLE} LOGIN PASSWORD '{_PASSWORD}'".encode())
        conn.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {_ROLE}".encode())
        conn.execute("VACUUM ANALYZE")
    return teams[0].agents


def _create_variant(server: postgres.PostgresServer, name: str) -> str:
    """Create the database of a variant and return its URL for the role that is subject to its rules."""
    database_name = f"variant_{list(_VARIANTS).index(name)}"
    with psycopg.connect(server.maintenance_url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {database_name} TEMPLATE {postgres.DATABASE_NAME}".encode())
    owner_url = server.url.removesuffix(postgres.DATABASE_NAME) + database_name
    with psycopg.connect(owner_url, autocommit=True) as conn:
        row = conn.execute("SELECT pg_get_functiondef('bus_authenticate'::regproc)").fetchone()
        assert row is not None
        definition = "\n".join(line for line in row[0].splitlines() if "v_scope" not in line)
        if name in _SETS_SCOPE:
            definition = _run_as_caller_scope_sql(definition)
        conn.execute(definition.encode())
        conn.execute(_VARIANTS[name].encode())
    credentials, _, rest = owner_url.removeprefix("postgresql://").rpartition("@")
    assert credentials
    return f"postgresql://{_ROLE}:{_PASSWORD}@{rest}"


def _measure(urls: dict[str, str], agents: list[Agent], rounds: int, calls: int) -> dict[str, dict[str, list[float]]]:
    """Return the microseconds per call of each operation in each round, by variant."""
    operations = _operations(*agents[:2])
    samples: dict[str, dict[str, list[float]]] = {name: {operation: [] for operation in operations} for name in urls}
    with ExitStack() as stack:
        connections = {}
        for name, url in urls.items():
            database = stack.enter_context(closing(Database(url, pool_size=1, index_scans_only=True)))
            connections[name] = stack.enter_context(database.connection())
        names = list(urls)
        # The first rounds fill the caches and prepare the statements.
        for round_number in range(-2, rounds):
            for name in names[round_number % len(names) :] + names[: round_number % len(names)]:
                conn = connections[name]
                backend = conn.raw.info.backend_pid
                for operation, call in operations.items():
                    before = _cpu_nanoseconds(backend)
                    for _ in range(calls):
                        call(conn)
                    if round_number >= 0:
                        samples[name][operation].append((_cpu_nanoseconds(backend) - before) / calls / 1000)
    return samples


@click.command()
@click.option("--rounds", default=200, show_default=True)
@click.option("--calls", default=25, show_default=True, help="Calls of each operation in a round.")
@click.option("--events", default=3000, show_default=True, help="Events that each project has before.")
def command(rounds: int, calls: int, events: int) -> None:
    """Print PostgreSQL's CPU per call in the shortest tenth of the rounds, and ratios to no isolation."""
    folder = Path(tempfile.mkdtemp(prefix="llm-bus-bench-"))
    folder.chmod(0o711)
    server = postgres.launch(
        folder / "postgres",
        port=free_port(),
        log_path=folder / "postgres.log",
        account=account.choose_account(folder),
        ephemeral=True,
    )
    try:
        postgres.wait_until_ready(server)
        agents = _prepare(server, events)
        samples = _measure({name: _create_variant(server, name) for name in _VARIANTS}, agents, rounds, calls)
    finally:
        postgres.stop(server)
        shutil.rmtree(folder, ignore_errors=True)
    for operation in _operations(*agents[:2]):
        for name, by_operation in samples.items():
            ratios = [
                mine / base for mine, base in zip(by_operation[operation], samples["none"][operation], strict=True)
            ]
            low, middle, high = statistics.quantiles(ratios, n=4)
            # Other load of the machine only adds to the time of a call, so the shortest rounds are the least disturbed.
            shortest, base_shortest = (
                statistics.mean(sorted(rounds_of[operation])[: max(1, rounds // 10)])
                for rounds_of in (by_operation, samples["none"])
            )
            print(
                f"{operation:17} {name:25} {shortest:7.1f} us  {shortest / base_shortest:.3f}"
                f"  median {middle:.3f} ({low:.3f} to {high:.3f})"
            )


if __name__ == "__main__":
    sys.exit(command())
