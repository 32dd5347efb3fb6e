"""Rollups: hourly and daily counts with their watermark, and the cached report of each project.

Deploy order: before the code that uses it; the previous version does not use any of it.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_UP = """
CREATE TABLE tally (
    project_id BIGINT NOT NULL,
    grain TEXT NOT NULL,
    figure TEXT NOT NULL,
    start TIMESTAMP WITH TIME ZONE NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    other TEXT COLLATE "C" DEFAULT '' NOT NULL,
    n BIGINT NOT NULL,
    CONSTRAINT tally_pkey PRIMARY KEY (project_id, grain, figure, start, key, other),
    CONSTRAINT tally_grain_check CHECK (grain IN ('hour', 'day')),
    CONSTRAINT tally_figure_check CHECK (
        figure IN ('events', 'anchored', 'waits', 'leases', 'contended', 'to_lane', 'to_actor')),
    CONSTRAINT tally_n_check CHECK (n > 0)
) WITH (fillfactor = 80);
COMMENT ON TABLE tally IS
    'Counts by hour and by day; what `key` and `other` are depends on `figure` (bus/tallies.py).';

CREATE TABLE tally_mark (
    project_id BIGINT NOT NULL,
    tallied_seq BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT tally_mark_pkey PRIMARY KEY (project_id),
    CONSTRAINT tally_mark_tallied_seq_check CHECK (tallied_seq >= 0)
) WITH (fillfactor = 50);
COMMENT ON TABLE tally_mark IS
    'Up to which event a project has been counted; moved by the transaction that counts.';

CREATE TABLE report (
    project_id BIGINT NOT NULL,
    seq BIGINT,
    body JSONB,
    made_at TIMESTAMP WITH TIME ZONE,
    took_seconds DOUBLE PRECISION,
    busy_until TIMESTAMP WITH TIME ZONE,
    CONSTRAINT report_pkey PRIMARY KEY (project_id),
    CONSTRAINT report_made_check CHECK ((body IS NULL) = (seq IS NULL) AND (body IS NULL) = (made_at IS NULL))
);
COMMENT ON TABLE report IS 'The last report of a project, since making one reads its whole ledger.';
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("DROP TABLE tally, tally_mark, report")
