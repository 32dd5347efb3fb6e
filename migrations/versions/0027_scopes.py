"""The scope of tokens and connected clients; those that exist have all rights.

Deploy order: before the code that uses it; the previous version issues tokens with all rights.
"""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("token", "client_grant"):
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN scope TEXT DEFAULT 'admin' NOT NULL,"
            f" ADD CONSTRAINT {table}_scope_check CHECK (scope IN ('read', 'write', 'admin')) NOT VALID"
        )


def downgrade() -> None:
    # Without the column they would have all rights.
    op.execute("UPDATE token SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE scope <> 'admin'")
    for table in ("client_grant", "token"):
        op.execute(f"ALTER TABLE {table} DROP COLUMN scope")
