"""Sign-in: identities, sessions, login links and pending sign-ups; also shared keys and service totals.

Deploy order: before the code that uses it; the previous version does not use any of it.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE identity (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    owner_id BIGINT NOT NULL,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    email TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    last_used_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT identity_pkey PRIMARY KEY (id),
    CONSTRAINT identity_issuer_check CHECK (char_length(issuer) BETWEEN 1 AND 255),
    CONSTRAINT identity_subject_check CHECK (char_length(subject) BETWEEN 1 AND 255),
    CONSTRAINT identity_issuer_subject_key UNIQUE (issuer, subject),
    CONSTRAINT identity_owner_id_fkey FOREIGN KEY(owner_id) REFERENCES owner (id)
);
CREATE INDEX identity_owner_id_idx ON identity (owner_id);
COMMENT ON TABLE identity IS 'Who an owner is elsewhere. `email` is null unless the issuer says that it is verified.';

CREATE TABLE sign_up (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    sha256 BYTEA NOT NULL,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    email TEXT NOT NULL,
    login TEXT DEFAULT '' NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT sign_up_pkey PRIMARY KEY (id),
    CONSTRAINT sign_up_sha256_check CHECK (octet_length(sha256) = 32),
    CONSTRAINT sign_up_sha256_key UNIQUE (sha256)
);
COMMENT ON TABLE sign_up IS 'People whom a provider vouched for and who have not chosen their handle yet.';

CREATE TABLE session (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    owner_id BIGINT NOT NULL,
    sha256 BYTEA NOT NULL,
    method TEXT NOT NULL,
    address TEXT DEFAULT '' NOT NULL,
    agent TEXT DEFAULT '' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    last_used_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT session_pkey PRIMARY KEY (id),
    CONSTRAINT session_sha256_check CHECK (octet_length(sha256) = 32),
    CONSTRAINT session_owner_id_fkey FOREIGN KEY(owner_id) REFERENCES owner (id),
    CONSTRAINT session_sha256_key UNIQUE (sha256)
);
CREATE INDEX session_owner_id_idx ON session (owner_id);
COMMENT ON TABLE session IS 'Browsers that are signed in. A session that ended is deleted.';

CREATE TABLE login_link (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    owner_id BIGINT NOT NULL,
    sha256 BYTEA NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    used_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT login_link_pkey PRIMARY KEY (id),
    CONSTRAINT login_link_sha256_check CHECK (octet_length(sha256) = 32),
    CONSTRAINT login_link_owner_id_fkey FOREIGN KEY(owner_id) REFERENCES owner (id),
    CONSTRAINT login_link_sha256_key UNIQUE (sha256)
);
CREATE INDEX login_link_owner_id_idx ON login_link (owner_id);
COMMENT ON TABLE login_link IS 'Links that sign somebody in once.';

CREATE TABLE secret (
    name TEXT NOT NULL,
    value BYTEA NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT secret_pkey PRIMARY KEY (name)
);
COMMENT ON TABLE secret IS 'Keys that every process of the service has to share and that nobody set.';

CREATE TABLE event_count (
    project_id BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    counts JSONB NOT NULL,
    CONSTRAINT event_count_pkey PRIMARY KEY (project_id)
);
COMMENT ON TABLE event_count IS
    'How many events of each type a project had up to `seq`; stays when the project is deleted.';

CREATE TABLE service_stats (
    "only" BOOLEAN NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    body JSONB NOT NULL,
    CONSTRAINT service_stats_pkey PRIMARY KEY ("only"),
    CONSTRAINT service_stats_only_check CHECK ("only")
);
COMMENT ON TABLE service_stats IS
    'The counts that everybody is answered with until they are too old: one row.';
"""


def upgrade() -> None:
    op.execute(_TABLES)


def downgrade() -> None:
    op.execute("DROP TABLE service_stats, event_count, secret, login_link, session, sign_up, identity")
