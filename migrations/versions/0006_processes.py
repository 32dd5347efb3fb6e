"""The process registry and samples of ledger growth.

Deploy order: before the code that uses it; the previous version does not use any of it.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_UP = """
CREATE TABLE process (
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    version TEXT NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL,
    seen_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    settings JSONB NOT NULL,
    figures JSONB NOT NULL,
    CONSTRAINT process_pkey PRIMARY KEY (id),
    CONSTRAINT process_kind_check CHECK (kind IN ('web', 'gateway', 'serve', 'worker', 'beat')),
    CONSTRAINT process_id_check CHECK (char_length(id) BETWEEN 1 AND 64),
    CONSTRAINT process_host_check CHECK (char_length(host) BETWEEN 1 AND 255)
) WITH (fillfactor = 50);
COMMENT ON TABLE process IS
    'Processes of the service, each written by itself; one that was not seen for a minute is gone.';

CREATE TABLE service_sample (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    standing BIGINT NOT NULL,
    written BIGINT NOT NULL,
    CONSTRAINT service_sample_pkey PRIMARY KEY (id)
);
CREATE INDEX service_sample_at_idx ON service_sample (at);
COMMENT ON TABLE service_sample IS
    'How many events were ever written, from time to time; `written` never falls.';
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("DROP TABLE service_sample, process")
