"""Invites for one person or for an existing participant; the encrypted one-time store.

Deploy order: before the code that uses it; the previous version does not use any of it.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_UP = """
ALTER TABLE invite
    ADD COLUMN participant_id BIGINT,
    ADD COLUMN email TEXT,
    ADD CONSTRAINT invite_participant_id_fkey FOREIGN KEY (participant_id) REFERENCES participant (id),
    ADD CONSTRAINT invite_email_check CHECK (char_length(email) BETWEEN 3 AND 254),
    ADD CONSTRAINT invite_chosen_check CHECK (participant_id IS NULL OR uses = 1);
CREATE INDEX invite_participant_id_idx ON invite (participant_id);

ALTER TABLE invite_redemption ADD COLUMN accepted_by TEXT;

CREATE TABLE sealed (
    lookup BYTEA NOT NULL,
    box BYTEA NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT sealed_pkey PRIMARY KEY (lookup),
    CONSTRAINT sealed_lookup_check CHECK (octet_length(lookup) = 32),
    CONSTRAINT sealed_box_check CHECK (octet_length(box) <= 16384)
);
CREATE INDEX sealed_expires_at_idx ON sealed (expires_at);
COMMENT ON TABLE sealed IS
    'Answers kept for a while, each under a key that only whoever fetches it again can derive.';
"""

_DOWN = """
DROP TABLE sealed;
ALTER TABLE invite_redemption DROP COLUMN accepted_by;
ALTER TABLE invite DROP COLUMN participant_id, DROP COLUMN email;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
