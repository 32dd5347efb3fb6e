"""A fingerprint of every table by tenant and project, to detect any change that one tenant makes to another."""

from collections import defaultdict
from functools import cache

from bus.db import Connection
from bus.tables import metadata

# Tables that belong to the service and not to a tenant.
GLOBAL_TABLES = frozenset(
    {
        "job",
        "job_request",
        "job_run",
        "metering",
        "oauth_client",
        "device_authorization",
        "price",
        "process",
        "sealed",
        "secret",
        "service_sample",
    }
    | {"service_stats", "sign_up"}
)
# Of tables that have neither column: how a row `x` leads to a project or an owner.
_OWNER_SQL = {
    "owner": "x.id",
}
_PROJECT_SQL = {
    "project": "x.id",
    "token": "(SELECT p.project_id FROM participation p WHERE p.id = x.participation_id)",
    "invite_redemption": "(SELECT i.project_id FROM invite i WHERE i.id = x.invite_id)",
}
NO_PROJECT = 0
Scope = tuple[int, int]
"""An owner and a project, or NO_PROJECT; (0, 0) for the service."""


Fingerprints = dict[Scope, dict[str, tuple[int, int]]]


def find_unassigned_tables() -> set[str]:
    """Return the tables that are neither global nor lead to a tenant."""
    return {
        table.name
        for table in metadata.tables.values()
        if table.name not in GLOBAL_TABLES | _OWNER_SQL.keys() | _PROJECT_SQL.keys()
        and not {"project_id", "owner_id"} & set(table.columns.keys())
    }


@cache
def _build_sql() -> str:
    selects = []
    for table in metadata.tables.values():
        columns = table.columns.keys()
        project = _PROJECT_SQL.get(table.name) or ("x.project_id" if "project_id" in columns else f"{NO_PROJECT}")
        owner = _OWNER_SQL.get(table.name)
        if owner is None and "owner_id" in columns:
            owner = "x.owner_id"
        if table.name in GLOBAL_TABLES:
            owner, project = "0", "0"
        elif owner is None:
            owner = f"(SELECT j.owner_id FROM project j WHERE j.id = {project})"
        selects.append(
            f"SELECT '{table.name}' AS name, coalesce({owner}, 0) AS owner, coalesce({project}, 0) AS project,"
            f" hashtextextended(x::text, 0)::numeric AS hash FROM {table.name} x"
        )
    rows = " UNION ALL ".join(selects)
    return f"SELECT owner, project, name, count(*), sum(hash) FROM ({rows}) AS r GROUP BY 1, 2, 3"


def take_fingerprints(conn: Connection) -> Fingerprints:
    """Return the number of rows and their hash for each table of each tenant and project."""
    fingerprints: Fingerprints = defaultdict(dict)
    for owner_id, project_id, table, count, checksum in conn.fetch_all(_build_sql()):
        fingerprints[owner_id, project_id][table] = (count, checksum)
    return dict(fingerprints)
