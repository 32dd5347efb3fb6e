"""Patterns of references of a project.

Deploy order: before the code that uses it; the previous version does not use it.
"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE project ADD COLUMN ref_patterns JSONB DEFAULT '[]' NOT NULL,
            ADD CONSTRAINT project_ref_patterns_check CHECK (jsonb_typeof(ref_patterns) = 'array');
        COMMENT ON COLUMN project.ref_patterns IS 'Pairs of a pattern of RE2 and the address of its references.';
        """
    )


def downgrade() -> None:
    op.execute("ALTER TABLE project DROP COLUMN ref_patterns")
