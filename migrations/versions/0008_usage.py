"""Usage: what owners used by day, project, participant and type; a place in the audit log for the service's own acts.

Deploy order: before the code that uses it. The code before it goes on billing: what it bills is itemised by a trigger.
"""

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _run(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    _run(
        """
        DROP TRIGGER credit_entry_itemise ON credit_entry;
        DROP FUNCTION itemise_usage();
        DROP TABLE credit_usage;
        DROP INDEX credit_entry_usage_idx, credit_entry_added_idx;
        ALTER TABLE credit_entry DROP COLUMN itemised;
        ALTER TABLE metering DROP COLUMN grace_hours, DROP COLUMN trial_credits;
        -- The log is kept whole: what was nobody's affair is that of an owner who does not exist.
        ALTER TABLE audit DISABLE TRIGGER USER;
        UPDATE audit SET owner_id = 0 WHERE owner_id IS NULL;
        ALTER TABLE audit ENABLE TRIGGER USER;
        ALTER TABLE audit ALTER COLUMN owner_id SET NOT NULL;
        """
    )


def _run(script: str) -> None:
    # Through the driver: SQLAlchemy would read the colons of casts as parameters.
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(script.encode())
