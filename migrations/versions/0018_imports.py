"""Imports: the state of imported projects, former ids, and tokens in the form of the original.

Deploy order: before the code that uses it; the previous version does not use it.
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_UP = """
ALTER TABLE token ADD COLUMN legacy BOOLEAN DEFAULT false NOT NULL;
CREATE TABLE project_import (
    project_id BIGINT NOT NULL,
    original_id BIGINT NOT NULL,
    rows_read BIGINT DEFAULT 0 NOT NULL,
    last_seq BIGINT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT project_import_pkey PRIMARY KEY (project_id),
    CONSTRAINT project_import_finished_check CHECK ((last_seq IS NULL) = (finished_at IS NULL))
);
COMMENT ON TABLE project_import IS
    'Projects that were imported from the original; such a project is archived until its import is complete.';
CREATE TABLE imported_id (
    project_id BIGINT NOT NULL,
    kind TEXT NOT NULL,
    original_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    CONSTRAINT imported_id_pkey PRIMARY KEY (project_id, kind, original_id),
    CONSTRAINT imported_id_kind_check CHECK (kind IN ('event', 'post', 'task', 'beads', 'agent_mail')),
    CONSTRAINT imported_id_original_id_check CHECK (char_length(original_id) BETWEEN 1 AND 200)
);
COMMENT ON TABLE imported_id IS
    'The number here of an event, a post or a task that had another id where it was imported from.';
"""
_TABLES = ("imported_id", "project_import")


def upgrade() -> None:
    op.execute(_UP)
    for table in _TABLES:
        op.execute(
            f"""
            ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY project_scope ON {table} USING (
                coalesce(current_setting('llm_bus.project_scope', true), '') IN ('', project_id::text));
            CREATE POLICY read_all ON {table} FOR SELECT USING (true);
            """
        )


def downgrade() -> None:
    op.execute("DROP TABLE project_import; DROP TABLE imported_id; ALTER TABLE token DROP COLUMN legacy;")
