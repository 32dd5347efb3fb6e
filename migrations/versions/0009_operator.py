"""Operator console: authentication time of sessions, job definitions, requested runs, indexes of the audit log.

Deploy order: before the code that uses it; the previous version does not use any of it.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_UP = """
ALTER TABLE session ADD COLUMN authenticated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp();
UPDATE session SET authenticated_at = CASE WHEN method LIKE 'proxy%' THEN NULL ELSE created_at END;

ALTER TABLE job_run ADD COLUMN asked_by TEXT;

CREATE TABLE job (
    name TEXT NOT NULL,
    about TEXT NOT NULL,
    every_seconds DOUBLE PRECISION NOT NULL,
    rest_seconds DOUBLE PRECISION NOT NULL,
    seen_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT job_pkey PRIMARY KEY (name),
    CONSTRAINT job_name_check CHECK (char_length(name) BETWEEN 1 AND 64)
);
COMMENT ON TABLE job IS 'What jobs the workers have, as they say themselves; the web cannot ask them.';

CREATE TABLE job_request (
    name TEXT NOT NULL,
    asked_by TEXT NOT NULL,
    asked_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT job_request_pkey PRIMARY KEY (name)
);
COMMENT ON TABLE job_request IS
    'Runs that an operator asked for and no worker has begun. One for each job, however often it is asked.';

CREATE INDEX audit_actor_id_idx ON audit (actor, id);
CREATE INDEX audit_action_id_idx ON audit (action, id);
CREATE INDEX audit_at_idx ON audit (at);
"""

_DOWN = """
DROP INDEX audit_at_idx;
DROP INDEX audit_action_id_idx;
DROP INDEX audit_actor_id_idx;
DROP TABLE job_request;
DROP TABLE job;
ALTER TABLE job_run DROP COLUMN asked_by;
ALTER TABLE session DROP COLUMN authenticated_at;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
