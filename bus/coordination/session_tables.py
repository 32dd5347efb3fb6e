"""Tables of the sessions of participations. Every key leads with `project_id`, as in tables.py."""

import sqlalchemy as sa

from bus.db.columns import EMPTY_DEFAULT, TIMESTAMPTZ, length_check, metadata, primary_key_column

agent_session = sa.Table(
    "agent_session",
    metadata,
    primary_key_column("project_id"),
    primary_key_column("participation_id"),
    sa.Column("key", sa.Text, primary_key=True),
    # The token of the last call: the session ends with it.
    sa.Column("token_id", sa.BigInteger),
    sa.Column("status", sa.Text, nullable=False, server_default=EMPTY_DEFAULT),
    sa.Column("started_at", TIMESTAMPTZ, nullable=False),
    sa.Column("last_seen", TIMESTAMPTZ, nullable=False),
    # Null again after a later call.
    sa.Column("ended_at", TIMESTAMPTZ),
    sa.Column("waiting_since", TIMESTAMPTZ),
    sa.Column("waiting_until", TIMESTAMPTZ),
    sa.Column("listening_until", TIMESTAMPTZ),
    sa.Column("hooks_until", TIMESTAMPTZ),
    sa.CheckConstraint(length_check("key", 128), "key"),
    sa.CheckConstraint(length_check("status", 140, 0), "status"),
    postgresql_with={"fillfactor": 50},
    comment="Sessions of participations that name them. Written in batches, like presence.",
)
# Without last_seen, so that a sighting remains a HOT update.
sa.Index(
    "agent_session_live_idx",
    agent_session.c.project_id,
    agent_session.c.participation_id,
    agent_session.c.key,
    postgresql_where=agent_session.c.ended_at.is_(None),
)

session_cursor = sa.Table(
    "session_cursor",
    metadata,
    primary_key_column("project_id"),
    primary_key_column("participation_id"),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("ack_seq", sa.BigInteger),
    postgresql_with={"fillfactor": 50},
    comment="Last event that a session has read (whats_new), and the last ack that a long poll has returned to it."
    " The key '' holds the furthest event that an ended session has read.",
)

session_post = sa.Table(
    "session_post",
    metadata,
    primary_key_column("project_id"),
    primary_key_column("participation_id"),
    sa.Column("key", sa.Text, primary_key=True),
    primary_key_column("post_id"),
    comment="Posts that a session has been shown.",
)
