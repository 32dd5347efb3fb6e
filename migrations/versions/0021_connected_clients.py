"""Connected clients: OAuth clients, what owners let them do, and access tokens as further tokens.

Deploy order: before the code that uses it; the previous version does not use it.
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_UP = """
ALTER TABLE token ADD COLUMN parent_id BIGINT;
ALTER TABLE token ADD CONSTRAINT token_parent_id_fkey
    FOREIGN KEY (parent_id) REFERENCES token (id) ON DELETE CASCADE;
CREATE INDEX token_parent_id_idx ON token (parent_id) WHERE parent_id IS NOT NULL;

CREATE TABLE client_grant (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    owner_id BIGINT NOT NULL,
    token_id BIGINT NOT NULL,
    client_id TEXT NOT NULL,
    client_name TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    resource TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    ends_at TIMESTAMP WITH TIME ZONE,
    code_sha256 BYTEA NOT NULL,
    code_challenge TEXT NOT NULL,
    code_used_at TIMESTAMP WITH TIME ZONE,
    family_sha256 BYTEA,
    refresh_sha256 BYTEA,
    CONSTRAINT client_grant_pkey PRIMARY KEY (id),
    CONSTRAINT client_grant_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES owner (id),
    CONSTRAINT client_grant_token_id_fkey FOREIGN KEY (token_id) REFERENCES token (id) ON DELETE CASCADE,
    CONSTRAINT client_grant_token_id_key UNIQUE (token_id),
    CONSTRAINT client_grant_code_sha256_key UNIQUE (code_sha256),
    CONSTRAINT client_grant_family_sha256_key UNIQUE (family_sha256),
    CONSTRAINT client_grant_code_sha256_check CHECK (octet_length(code_sha256) = 32),
    CONSTRAINT client_grant_refresh_sha256_check
        CHECK (octet_length(family_sha256) = 32 AND octet_length(refresh_sha256) = 32),
    CONSTRAINT client_grant_client_id_check CHECK (char_length(client_id) BETWEEN 1 AND 2048),
    CONSTRAINT client_grant_client_name_check CHECK (char_length(client_name) BETWEEN 1 AND 64),
    CONSTRAINT client_grant_redirect_uri_check CHECK (char_length(redirect_uri) BETWEEN 1 AND 2048)
);
COMMENT ON TABLE client_grant IS
    'Connected clients: what an owner has let an OAuth client do, and the state of its code and refresh token.';
CREATE INDEX client_grant_owner_id_idx ON client_grant (owner_id);

CREATE TABLE oauth_client (
    client_id TEXT NOT NULL,
    is_registered BOOLEAN NOT NULL,
    name TEXT NOT NULL,
    redirect_uris TEXT[] NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT oauth_client_pkey PRIMARY KEY (client_id),
    CONSTRAINT oauth_client_client_id_check CHECK (char_length(client_id) BETWEEN 1 AND 2048),
    CONSTRAINT oauth_client_name_check CHECK (char_length(name) BETWEEN 1 AND 64)
);
COMMENT ON TABLE oauth_client IS
    'OAuth clients: registered ones, and copies of the documents of those whose id is an address.';
CREATE INDEX oauth_client_expires_at_idx ON oauth_client (expires_at);
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("DROP TABLE oauth_client, client_grant; DELETE FROM token WHERE parent_id IS NOT NULL")
    op.execute("ALTER TABLE token DROP COLUMN parent_id")
