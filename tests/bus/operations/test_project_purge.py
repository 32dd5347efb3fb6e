"""The purge of a project: every table is either emptied of its rows, or kept for a reason."""

import re

from bus.billing import metering
from bus.coordination import digest, long_poll, posts, sequences
from bus.db import Connection
from bus.db.columns import metadata
from bus.operations import project_purge
from bus.tables import COORDINATION_TABLES
from tests.scenarios import create_scenario

_KEPT_TABLES = {
    # Of owners, who outlive their projects.
    "owner", "owner_handle", "participant", "participant_name", "identity", "session", "sign_up", "login_link",
    "secret", "sealed",
    "mail_address", "circuit_breaker",
    # Bills, messages to the owner, and the record of the purge itself.
    "credit_account", "credit_entry", "credit_usage", "notice", "audit",
    # Of the service.
    "oauth_client", "device_authorization", "event_count", "service_stats", "service_sample", "price", "metering",
    "job", "job_run", "job_request", "process",
}  # fmt: skip


def _list_deleted_tables(conn: Connection) -> set[str]:
    """The tables that the purge names, and those whose rows a foreign key deletes with them."""
    (source,) = conn.fetch_one("SELECT prosrc FROM pg_proc WHERE proname = 'bus_purge_step'")
    (in_batches,) = re.findall(r"IN ARRAY ARRAY\[(.*?)\]", source, re.DOTALL)
    deleted = set(re.findall(r"'(\w+)'", in_batches)) | set(re.findall(r"DELETE FROM (\w+)", source))
    remaining = len(metadata.tables)
    while remaining != len(deleted):
        remaining = len(deleted)
        deleted |= {
            table.name
            for table in metadata.tables.values()
            for key in table.foreign_keys
            if key.ondelete == "CASCADE" and key.column.table.name in deleted
        }
    return deleted


def test_a_purge_deletes_the_rows_of_every_table_that_is_not_kept(conn: Connection) -> None:
    deleted = _list_deleted_tables(conn)
    assert deleted & _KEPT_TABLES == set()
    assert deleted | _KEPT_TABLES == set(metadata.tables)
    assert {table.name for table in COORDINATION_TABLES} <= deleted


def test_a_purge_deletes_positions_of_readers_and_waiting_calls(conn: Connection) -> None:
    scenario = create_scenario(conn)
    caller, teammate, project_id = scenario.caller.ctx, scenario.teammate.ctx, scenario.project.id
    metering.set_metering_enabled(conn, True)
    sequences.claim(conn, caller, "adr", idempotency_key="k")
    digest.read_digest(conn, caller)
    long_poll.begin_wait(conn, caller, "lease", surface="src/theirs.py")
    posts.ack(conn, caller, [scenario.post_id])
    assert long_poll.poll(conn, long_poll.begin_wait(conn, teammate, "acks")) is not None

    def list_filled_tables() -> set[str]:
        return {
            table.name
            for table in COORDINATION_TABLES
            if conn.fetch_one_or_none(f"SELECT 1 FROM {table.name} WHERE project_id = %s LIMIT 1", (project_id,))
        }

    filled = list_filled_tables()
    assert filled >= {"event", "delivery", "lease", "cursor", "ack_cursor", "waiter", "idempotency", "presence"}
    while not project_purge.begin_purge(conn, project_id, actor="cli"):
        pass
    # A step deletes from one table at most.
    assert any(project_purge.purge_step(conn, project_id) for _ in range(2 * len(metadata.tables)))
    assert list_filled_tables() == set()
