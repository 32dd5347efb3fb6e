"""Time-driven work: expiry and escalation, credits and metering, job runs, webhooks and e-mails.

Deploy order: before the code that uses it; the previous version does not use any of it.
"""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _run(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    _run(
        """
        DROP TABLE notice, webhook, job_run, metering, meter_mark, price, credit_entry, credit_account;
        ALTER TABLE invite DROP COLUMN expired_at;
        ALTER TABLE project DROP COLUMN gone_window_seconds, DROP COLUMN escalation_pause_seconds,
            DROP COLUMN escalation_email;
        ALTER TABLE presence DROP COLUMN lapsed_at;
        DROP INDEX lease_due_idx;
        ALTER TABLE post DROP COLUMN escalate_at, DROP COLUMN escalation;
        """
    )


def _run(script: str) -> None:
    # Executed by the driver, since SQLAlchemy would read the colons of casts as parameters.
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(script.encode())
