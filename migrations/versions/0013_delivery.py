"""Delivery of messages in turns: the destination of each message, and circuit breakers.

Deploy order: before the code that uses it. Messages that the previous version queues have no destination and are
delivered all the same.
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_UP = """
ALTER TABLE notice ADD COLUMN destination TEXT DEFAULT '' NOT NULL;
UPDATE notice SET destination =
    CASE channel WHEN 'email' THEN 'mail server' ELSE lower(substring(target FROM '^[^:]+://[^/?#]*')) END
    WHERE due_at IS NOT NULL;
DROP INDEX notice_due_idx;
CREATE INDEX notice_due_idx ON notice (owner_id, destination, due_at) WHERE due_at IS NOT NULL;

CREATE TABLE circuit_breaker (
    owner_id BIGINT NOT NULL,
    destination TEXT NOT NULL,
    failures INTEGER NOT NULL,
    failed_since TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    open_until TIMESTAMP WITH TIME ZONE NOT NULL,
    last_error TEXT NOT NULL,
    CONSTRAINT circuit_breaker_pkey PRIMARY KEY (owner_id, destination)
);
COMMENT ON TABLE circuit_breaker IS
    'Destinations that did not answer; their messages wait until open_until, then one of them is a probe.';
"""

_DOWN = """
DROP TABLE circuit_breaker;
DROP INDEX notice_due_idx;
ALTER TABLE notice DROP COLUMN destination;
CREATE INDEX notice_due_idx ON notice (due_at) WHERE due_at IS NOT NULL;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
