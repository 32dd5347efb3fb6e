"""Usage of owners by day, project, participant and event type; audit rows of the service itself.

Deploy order: before the code that uses it. The previous version continues to bill; a trigger itemises its entries.
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
        -- The audit log stays complete: rows without an owner get the id of an owner that does not exist.
        ALTER TABLE audit DISABLE TRIGGER USER;
        UPDATE audit SET owner_id = 0 WHERE owner_id IS NULL;
        ALTER TABLE audit ENABLE TRIGGER USER;
        ALTER TABLE audit ALTER COLUMN owner_id SET NOT NULL;
        """
    )


def _run(script: str) -> None:
    # Executed by the driver, since SQLAlchemy would read the colons of casts as parameters.
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(script.encode())
