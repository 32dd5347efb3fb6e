"""Projects whose paths ignore case.

Deploy order: before the code that uses it; the previous version does not use it.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE project ADD COLUMN case_insensitive_paths BOOLEAN DEFAULT false NOT NULL")


def downgrade() -> None:
    op.execute("ALTER TABLE project DROP COLUMN case_insensitive_paths")
