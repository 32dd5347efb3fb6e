"""The first schema: tenancy, coordination, and the triggers that keep the ledger append-only.

Deploy order: before the code that uses it.
"""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = Path(__file__).with_suffix(".sql")

_GUARDS = """
CREATE FUNCTION guard_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;

-- Only a project whose purge was begun, and so audited, may lose its events.
CREATE FUNCTION guard_purge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM (SELECT DISTINCT project_id FROM gone) AS g
        WHERE NOT EXISTS (SELECT FROM project p WHERE p.id = g.project_id AND p.purging_at IS NOT NULL)
           OR NOT EXISTS (SELECT FROM audit a WHERE a.project_id = g.project_id AND a.action = 'project.purge')
    ) THEN
        RAISE EXCEPTION 'event is append-only: DELETE is refused' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER event_update BEFORE UPDATE OR TRUNCATE ON event
    FOR EACH STATEMENT EXECUTE FUNCTION guard_append_only();
CREATE TRIGGER event_delete AFTER DELETE ON event REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION guard_purge();
CREATE TRIGGER audit_update BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION guard_append_only();
"""


def upgrade() -> None:
    _run(_TABLES.read_text(encoding="utf-8"))
    _run(_GUARDS)


def downgrade() -> None:
    _run(
        """
        DROP TABLE idempotency, cursor, presence, task_blocker, task, lease, delivery, post, sequence, event,
            project_clock, audit, invite_redemption, invite, token, participation, participant_name, participant,
            project, owner;
        DROP FUNCTION guard_append_only(), guard_purge();
        """
    )


def _run(script: str) -> None:
    # Executed by the driver, since SQLAlchemy would read the colons of casts as parameters.
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(script.encode())
