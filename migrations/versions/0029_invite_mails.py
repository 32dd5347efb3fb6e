"""E-mails with the link of an invite for a person.

Deploy order: before the code that uses it; the previous version does not use any of it.
"""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

_UP = """
ALTER TABLE invite ADD COLUMN mail_id BIGINT, ADD COLUMN mailed_sha256 BYTEA,
    ADD CONSTRAINT invite_mailed_sha256_key UNIQUE (mailed_sha256),
    ADD CONSTRAINT invite_mailed_sha256_check CHECK (octet_length(mailed_sha256) = 32);
ALTER TABLE notice DROP CONSTRAINT notice_kind_check;
ALTER TABLE notice ADD CONSTRAINT notice_kind_check
    CHECK (kind IN ('escalation', 'low_balance', 'delinquent', 'suspended', 'test', 'confirm_address', 'invite'));
CREATE INDEX notice_invite_target_idx ON notice (lower(target), created_at) WHERE kind = 'invite';
"""

_DOWN = """
DROP INDEX notice_invite_target_idx;
DELETE FROM notice WHERE kind = 'invite';
ALTER TABLE notice DROP CONSTRAINT notice_kind_check;
ALTER TABLE notice ADD CONSTRAINT notice_kind_check
    CHECK (kind IN ('escalation', 'low_balance', 'delinquent', 'suspended', 'test', 'confirm_address'));
ALTER TABLE invite DROP COLUMN mail_id, DROP COLUMN mailed_sha256;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
