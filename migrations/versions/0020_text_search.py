"""Full text search: the words of posts and tasks, which the job index_texts writes.

Deploy order: before the code that uses it; the previous version does not use it.
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE search_document (
            project_id BIGINT NOT NULL,
            kind TEXT NOT NULL,
            id BIGINT NOT NULL,
            words TSVECTOR NOT NULL,
            CONSTRAINT search_document_pkey PRIMARY KEY (project_id, kind, id),
            CONSTRAINT search_document_kind_check CHECK (kind IN ('post', 'task'))
        );
        COMMENT ON TABLE search_document IS 'The words of posts and tasks, and the ranges of ids that they are in.';
        -- Without a list of pending entries, which each search would read.
        CREATE INDEX search_document_words_idx ON search_document USING gin (words) WITH (fastupdate = off);
        ALTER TABLE search_document ENABLE ROW LEVEL SECURITY;
        CREATE POLICY project_scope ON search_document USING (
            coalesce(current_setting('llm_bus.project_scope', true), '') IN ('', project_id::text));
        CREATE POLICY read_all ON search_document FOR SELECT USING (true);
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE search_document")
