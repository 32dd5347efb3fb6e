"""Confirmed e-mail addresses for overdue handoffs, and one digest for each.

Present addresses are unconfirmed, except an owner's own; the first overdue handoff sends them a confirmation.

Deploy order: before the code that uses it; the previous version does not use any of it.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_UP = """
CREATE TABLE mail_address (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    owner_id BIGINT NOT NULL,
    email TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    requested_at TIMESTAMP WITH TIME ZONE,
    confirmed_at TIMESTAMP WITH TIME ZONE,
    unsubscribed_at TIMESTAMP WITH TIME ZONE,
    next_digest_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT mail_address_pkey PRIMARY KEY (id),
    CONSTRAINT mail_address_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES owner (id),
    CONSTRAINT mail_address_email_check CHECK (char_length(email) BETWEEN 3 AND 254)
);
COMMENT ON TABLE mail_address IS
    'Addresses to which an owner sends overdue handoffs, with the consent of their holders.';
CREATE UNIQUE INDEX mail_address_owner_id_email_key ON mail_address (owner_id, lower(email));
CREATE INDEX mail_address_email_idx ON mail_address (lower(email));
INSERT INTO mail_address (owner_id, email, confirmed_at)
    SELECT p.owner_id, min(p.escalation_email),
        CASE WHEN lower(min(p.escalation_email)) = lower(o.email) THEN clock_timestamp() END
    FROM project p JOIN owner o ON o.id = p.owner_id WHERE p.escalation_email IS NOT NULL
    GROUP BY p.owner_id, lower(p.escalation_email), o.email;

CREATE INDEX notice_email_idx ON notice (owner_id, created_at) WHERE channel = 'email';
ALTER TABLE notice DROP CONSTRAINT notice_kind_check;
ALTER TABLE notice ADD CONSTRAINT notice_kind_check
    CHECK (kind IN ('escalation', 'low_balance', 'delinquent', 'suspended', 'test', 'confirm_address'));
"""

_DOWN = """
DELETE FROM notice WHERE kind = 'confirm_address';
ALTER TABLE notice DROP CONSTRAINT notice_kind_check;
ALTER TABLE notice ADD CONSTRAINT notice_kind_check
    CHECK (kind IN ('escalation', 'low_balance', 'delinquent', 'suspended', 'test'));
DROP INDEX notice_email_idx;
DROP TABLE mail_address;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
