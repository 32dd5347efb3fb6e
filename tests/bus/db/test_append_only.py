"""The ledger and the audit log are append-only for every role; only a purge deletes events."""

import psycopg
import pytest

from bus.coordination import leases
from bus.db import Connection, Database
from bus.errors import NotAuthenticated
from bus.operations import project_purge
from bus.tables import COORDINATION_TABLES, TENANCY_TABLES
from bus.tenancy import audit, participant_queries, participations, projects
from tests import scenarios, servers
from tests.assertions import assert_refused

_CHANGES = {
    "update": "UPDATE {} SET actor = 'x'",
    "an update of no row": "UPDATE {} SET actor = 'x' WHERE false",
    "delete": "DELETE FROM {}",
    "delete one": "DELETE FROM {0} WHERE ctid = (SELECT min(ctid) FROM {0})",
    "truncate": "TRUNCATE {}",
    "truncate cascade": "TRUNCATE {} CASCADE",
    "truncate with others": "TRUNCATE presence, {}",
    "merge update": "MERGE INTO {} AS t USING (SELECT 1) AS one ON true WHEN MATCHED THEN UPDATE SET actor = 'x'",
    "merge delete": "MERGE INTO {} AS t USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE",
}


@pytest.mark.parametrize("table", ["event", "audit"])
@pytest.mark.parametrize("change", _CHANGES)
def test_a_change_is_refused_even_to_the_owner_of_the_table(conn: Connection, table: str, change: str) -> None:
    scenarios.create_scenario(conn)
    conn.raw.execute("RESET ROLE")
    (owner_or_super,) = conn.fetch_one(
        "SELECT rolsuper OR pg_get_userbyid(relowner) = current_user FROM pg_roles, pg_class"
        " WHERE rolname = current_user AND relname = %s",
        (table,),
    )
    assert owner_or_super
    before = conn.fetch_one(f"SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t")
    assert before[0] > 0
    with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"), conn.raw.transaction():
        conn.raw.execute(_CHANGES[change].format(table))
    assert conn.fetch_one(f"SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t") == before


def test_an_upsert_cannot_change_the_ledger(conn: Connection) -> None:
    scene = scenarios.create_scenario(conn)
    with pytest.raises(psycopg.errors.RestrictViolation), servers.as_owner(conn):
        conn.raw.execute(
            "INSERT INTO event (project_id, seq, at, actor, type, payload)"
            " VALUES (%s, 1, now(), 'x', 'claim', '{}')"
            " ON CONFLICT ON CONSTRAINT event_pkey DO UPDATE SET actor = 'x'",
            (scene.project.id,),
        )


def test_a_purge_mark_without_an_audit_row_allows_no_delete(conn: Connection) -> None:
    scene = scenarios.create_scenario(conn)
    conn.raw.execute("UPDATE project SET purging_at = now() WHERE id = %s", (scene.project.id,))
    with pytest.raises(psycopg.errors.RestrictViolation), servers.as_owner(conn):
        conn.raw.execute("DELETE FROM event WHERE project_id = %s", (scene.project.id,))


def test_a_purge_of_one_project_allows_no_delete_in_another(conn: Connection) -> None:
    doomed, kept = scenarios.create_scenario(conn), scenarios.create_scenario(conn)
    project_purge.begin_purge(conn, doomed.project.id, actor="cli")
    with pytest.raises(psycopg.errors.RestrictViolation), servers.as_owner(conn):
        conn.raw.execute("DELETE FROM event WHERE project_id IN (%s, %s)", (doomed.project.id, kept.project.id))


def test_a_purge_that_was_not_begun_deletes_nothing(conn: Connection) -> None:
    scene = scenarios.create_scenario(conn)
    assert project_purge.purge_step(conn, scene.project.id)
    assert conn.fetch_one("SELECT count(*) > 0 FROM event WHERE project_id = %s", (scene.project.id,)) == (True,)


_ROWS = " UNION ALL ".join(
    f"SELECT '{table.name}', t::text FROM {table.name} t WHERE t.project_id = %(p)s"
    for table in sorted(COORDINATION_TABLES | {t for t in TENANCY_TABLES if "project_id" in t.c}, key=lambda t: t.name)
)


def test_a_purge_removes_a_project_in_bounded_steps_and_no_other(db: Database) -> None:
    with db.transaction() as conn:
        doomed, kept = scenarios.create_scenario(conn), scenarios.create_scenario(conn)
        participations.provision(conn, doomed.caller.ctx, "third")
        leases.release(conn, doomed.caller.ctx, "*")
        others = sorted(conn.fetch_all(_ROWS, {"p": kept.project.id}))
        audited = conn.fetch_one("SELECT count(*) FROM audit WHERE project_id = %s", (doomed.project.id,))[0]
        events = conn.fetch_one("SELECT last_seq FROM project_clock WHERE project_id = %s", (doomed.project.id,))[0]
    with db.transaction() as conn:
        project_purge.begin_purge(conn, doomed.project.id, actor="ada", reason="asked for")

    # From the commit on every call is refused, although most rows still exist.
    with db.connection() as conn, pytest.raises(NotAuthenticated):
        participant_queries.whoami(conn, doomed.caller.ctx)
    with db.transaction() as conn, assert_refused(conn, "not_found"):
        projects.get(conn, doomed.project.id)

    steps = 0
    done = False
    while not done:
        with db.transaction() as conn:
            before = len(conn.fetch_all(_ROWS, {"p": doomed.project.id}))
            done = project_purge.purge_step(conn, doomed.project.id, limit=3)
            assert done or before - len(conn.fetch_all(_ROWS, {"p": doomed.project.id})) <= 3
        steps += 1
        assert steps < 1000
    assert steps > events / 3

    with db.connection() as conn:
        left = conn.fetch_all(_ROWS, {"p": doomed.project.id})
        assert {table for table, _ in left} == {"audit"}
        assert len(left) == audited + 1
        row = conn.fetch_one(
            "SELECT actor, action, subject, detail FROM audit WHERE project_id = %s ORDER BY id DESC LIMIT 1",
            (doomed.project.id,),
        )
        assert row == ("ada", "project.purge", doomed.project.name, {"reason": "asked for", "events": events})
        assert conn.fetch_all("SELECT 1 FROM project WHERE id = %s", (doomed.project.id,)) == []
        assert conn.fetch_all("SELECT 1 FROM token WHERE id = %s", (doomed.caller.ctx.token_id,)) == []
        assert sorted(conn.fetch_all(_ROWS, {"p": kept.project.id})) == others
        participant_queries.whoami(conn, kept.caller.ctx)
        assert project_purge.purge_step(conn, doomed.project.id)


def test_an_audit_row_has_actor_action_subject_and_detail(conn: Connection) -> None:
    scene = scenarios.create_scenario(conn)
    audit.record(conn, scene.project.owner_id, "cli", "noun.verb", "ada/agent", project_id=scene.project.id, extra=[1])
    row = conn.fetch_one(
        "SELECT owner_id, project_id, actor, action, subject, detail FROM audit ORDER BY id DESC LIMIT 1"
    )
    assert row == (scene.project.owner_id, scene.project.id, "cli", "noun.verb", "ada/agent", {"extra": [1]})


def test_every_administrative_call_writes_one_audit_row_of_its_caller(conn: Connection) -> None:
    for name in scenarios.ADMIN_CALLS:
        scene = scenarios.create_scenario(conn)
        count = "SELECT count(*) FROM audit WHERE project_id = %s AND actor = %s"
        params = (scene.project.id, scene.caller.actor)
        assert conn.fetch_one(count, params) == (0,)
        scenarios.WRITE_CALLS[name](conn, scene.caller.ctx, scene)
        assert conn.fetch_one(count, params) == (1,), name
