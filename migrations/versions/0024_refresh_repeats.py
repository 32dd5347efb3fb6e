"""Columns of client_grant by which a refresh token that was just replaced gets the same successor again.

Deploy order: before the code that uses it; the previous version does not use it.
"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE client_grant ADD COLUMN replaced_sha256 BYTEA, ADD COLUMN replaced_salt BYTEA,"
        " ADD COLUMN replaced_at TIMESTAMP WITH TIME ZONE,"
        " ADD CONSTRAINT client_grant_replaced_sha256_check"
        " CHECK (octet_length(replaced_sha256) = 32 AND octet_length(replaced_salt) = 32)"
    )


def downgrade() -> None:
    op.execute(
        "ALTER TABLE client_grant DROP COLUMN replaced_sha256, DROP COLUMN replaced_salt, DROP COLUMN replaced_at"
    )
