"""Invites record the participation and the token that created them, and end with the rights of either.

Open invites whose creator cannot be found are revoked.

Deploy order: before the code that uses it; the previous version does not use it.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# The tokens of earlier creators are not known; null leaves the check of the token out.
_UP = """
ALTER TABLE invite ADD COLUMN created_by_participation_id BIGINT;
ALTER TABLE invite ADD COLUMN created_by_token_id BIGINT;

UPDATE invite i SET created_by_participation_id = p.id
FROM participation p
JOIN participant pt ON pt.id = p.participant_id
JOIN owner o ON o.id = pt.owner_id
WHERE p.project_id = i.project_id AND pt.label <> '' AND i.created_by = o.handle || '/' || pt.label;

UPDATE invite SET revoked_at = clock_timestamp()
WHERE revoked_at IS NULL AND created_by_participation_id IS NULL AND position('/' in created_by) > 0;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(
        "ALTER TABLE invite DROP COLUMN created_by_token_id; ALTER TABLE invite DROP COLUMN created_by_participation_id"
    )
