"""Device authorizations (RFC 8628): the table, and connections without a redirect.

Deploy order: before the code that uses it; the previous version does not use it.
"""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

_UP = """
CREATE TABLE device_authorization (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    client_id TEXT NOT NULL,
    client_name TEXT NOT NULL,
    resource TEXT NOT NULL,
    scope TEXT NOT NULL,
    device_sha256 BYTEA NOT NULL,
    user_code_sha256 BYTEA NOT NULL,
    interval_seconds INTEGER NOT NULL,
    polled_at TIMESTAMP WITH TIME ZONE,
    is_allowed BOOLEAN,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT device_authorization_pkey PRIMARY KEY (id),
    CONSTRAINT device_authorization_device_sha256_key UNIQUE (device_sha256),
    CONSTRAINT device_authorization_user_code_sha256_key UNIQUE (user_code_sha256),
    CONSTRAINT device_authorization_device_sha256_check
        CHECK (octet_length(device_sha256) = 32 AND octet_length(user_code_sha256) = 32),
    CONSTRAINT device_authorization_client_id_check CHECK (char_length(client_id) BETWEEN 1 AND 2048),
    CONSTRAINT device_authorization_client_name_check CHECK (char_length(client_name) BETWEEN 1 AND 64),
    CONSTRAINT device_authorization_scope_check CHECK (char_length(scope) BETWEEN 0 AND 1000)
);
COMMENT ON TABLE device_authorization IS
    'Requests of OAuth clients on machines without a browser, on which an owner decides elsewhere.';
CREATE INDEX device_authorization_expires_at_idx ON device_authorization (expires_at);
ALTER TABLE client_grant ALTER COLUMN redirect_uri DROP NOT NULL, ALTER COLUMN code_challenge DROP NOT NULL,
    ADD CONSTRAINT client_grant_code_challenge_check
    CHECK ((redirect_uri IS NULL) = (code_challenge IS NULL)) NOT VALID;
ALTER TABLE oauth_client ADD COLUMN uses_device_codes BOOLEAN DEFAULT false NOT NULL;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("DROP TABLE device_authorization")
    op.execute(
        "DELETE FROM token WHERE id IN (SELECT token_id FROM client_grant WHERE redirect_uri IS NULL);"
        "ALTER TABLE client_grant DROP CONSTRAINT client_grant_code_challenge_check,"
        " ALTER COLUMN redirect_uri SET NOT NULL, ALTER COLUMN code_challenge SET NOT NULL;"
        "ALTER TABLE oauth_client DROP COLUMN uses_device_codes"
    )
