"""Sessions of agents: their cursors, shown posts, leases, tasks and presence.

Deploy order: before the code that uses it; the previous version writes no session, and its functions stay callable.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_KEY = ("project_id", "participation_id")
_SESSION_COLUMNS = {
    "event": ["session_key TEXT"],
    "delivery": ["acked_session TEXT", "offered_until TIMESTAMPTZ", "offered_session TEXT"],
    "lease": ["session_key TEXT"],
    "task": ["session_key TEXT"],
    "presence": ["waiting_until TIMESTAMPTZ", "listening_until TIMESTAMPTZ"],
    "waiter": ["session_key TEXT"],
}


def _key_columns() -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False) for name in _KEY]


def upgrade() -> None:
    for table, columns in _SESSION_COLUMNS.items():
        op.execute(f"ALTER TABLE {table} {', '.join(f'ADD COLUMN {column}' for column in columns)}")
    op.create_table(
        "agent_session",
        *_key_columns(),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("token_id", sa.BigInteger),
        sa.Column("status", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("last_seen", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("ended_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("waiting_since", sa.TIMESTAMP(timezone=True)),
        sa.Column("waiting_until", sa.TIMESTAMP(timezone=True)),
        sa.Column("listening_until", sa.TIMESTAMP(timezone=True)),
        sa.Column("hooks_until", sa.TIMESTAMP(timezone=True)),
        sa.CheckConstraint("char_length(key) BETWEEN 1 AND 128", name="key"),
        sa.CheckConstraint("char_length(status) BETWEEN 0 AND 140", name="status"),
        postgresql_with={"fillfactor": 50},
    )
    op.create_index(
        "agent_session_live_idx", "agent_session", [*_KEY, "key"], postgresql_where=sa.text("ended_at IS NULL")
    )
    op.create_table(
        "session_cursor",
        *_key_columns(),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("ack_seq", sa.BigInteger),
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "session_post",
        *_key_columns(),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("post_id", sa.BigInteger, primary_key=True, autoincrement=False),
    )
    op.create_index(
        "task_session_idx", "task", [*_KEY, "session_key"], postgresql_where=sa.text("session_key IS NOT NULL")
    )
    op.execute("DROP INDEX lease_live_holder_key")
    op.execute(
        "CREATE UNIQUE INDEX lease_live_holder_key ON lease (project_id, participation_id, surface, session_key)"
        " NULLS NOT DISTINCT WHERE ended_at IS NULL"
    )


def downgrade() -> None:
    # A participation keeps the newest of its sessions' leases on a surface.
    op.execute(
        "UPDATE lease l SET ended_at = clock_timestamp(), ended_by = 'release' WHERE l.ended_at IS NULL AND EXISTS ("
        "SELECT FROM lease n WHERE n.project_id = l.project_id AND n.participation_id = l.participation_id"
        " AND n.surface = l.surface AND n.ended_at IS NULL AND n.id > l.id)"
    )
    op.execute("DROP INDEX lease_live_holder_key")
    op.execute("DROP INDEX task_session_idx")
    for table in ("session_post", "session_cursor", "agent_session"):
        op.drop_table(table)
    for table, columns in _SESSION_COLUMNS.items():
        names = [column.split()[0] for column in columns]
        op.execute(f"ALTER TABLE {table} {', '.join(f'DROP COLUMN {name}' for name in names)}")
    op.execute(
        "CREATE UNIQUE INDEX lease_live_holder_key ON lease (project_id, participation_id, surface)"
        " WHERE ended_at IS NULL"
    )
