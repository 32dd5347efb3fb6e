"""Share links of live boards.

Deploy order: before the code that uses it; the previous version does not use it.
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_UP = """
CREATE TABLE share_link (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    project_id BIGINT NOT NULL,
    sha256 BYTEA NOT NULL,
    hint TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    revoked_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT share_link_pkey PRIMARY KEY (id),
    CONSTRAINT share_link_project_id_fkey FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE,
    CONSTRAINT share_link_sha256_key UNIQUE (sha256),
    CONSTRAINT share_link_sha256_check CHECK (octet_length(sha256) = 32)
);
COMMENT ON TABLE share_link IS
    'Read-only links to the live board of a project, for viewers without an account.';
CREATE INDEX share_link_project_id_idx ON share_link (project_id);
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("DROP TABLE share_link")
