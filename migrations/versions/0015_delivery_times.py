"""Reachability and client of a recipient when a post was written, and the deliveries shown since the last rollup.

Deploy order: before the code that uses it; the previous version writes none of it. Deliveries that exist have neither.
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_UP = """
ALTER TABLE delivery ADD COLUMN wake TEXT, ADD COLUMN client TEXT;
ALTER TABLE delivery ADD CONSTRAINT delivery_wake_check CHECK (wake IN ('waiting', 'listening', 'hooks', 'none'));
ALTER TABLE presence ADD COLUMN client TEXT;

CREATE TABLE seen_delivery (
    project_id BIGINT NOT NULL,
    participation_id BIGINT NOT NULL,
    post_id BIGINT NOT NULL,
    CONSTRAINT seen_delivery_pkey PRIMARY KEY (project_id, participation_id, post_id)
);
COMMENT ON TABLE seen_delivery IS 'Deliveries that were shown since the last rollup, which counts them.';

ALTER TABLE tally DROP CONSTRAINT tally_figure_check;
ALTER TABLE tally ADD CONSTRAINT tally_figure_check CHECK (figure IN (
    'events', 'anchored', 'waits', 'leases', 'contended', 'to_lane', 'to_actor', 'delivered', 'seen', 'acked'));
"""

_DOWN = """
DELETE FROM tally WHERE figure IN ('delivered', 'seen', 'acked');
ALTER TABLE tally DROP CONSTRAINT tally_figure_check;
ALTER TABLE tally ADD CONSTRAINT tally_figure_check CHECK (figure IN (
    'events', 'anchored', 'waits', 'leases', 'contended', 'to_lane', 'to_actor'));
DROP TABLE seen_delivery;
ALTER TABLE presence DROP COLUMN client;
ALTER TABLE delivery DROP COLUMN wake, DROP COLUMN client;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
