"""Tables of ledger, sequences, leases, presence, cursors and search.

Every key of coordination leads with `project_id`, so that the schema can be distributed.

The ledger has no foreign key to hot rows: measured, it cost 14 to 21 % of claim throughput.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA, JSONB, TSVECTOR

from bus.db.columns import (
    EMPTY_DEFAULT,
    TIMESTAMPTZ,
    created_at_column,
    length_check,
    metadata,
    one_of_check,
    primary_key_column,
)
from bus.rules.enums import EVENT_TYPES, LEASE_MODES

event = sa.Table(
    "event",
    metadata,
    primary_key_column("project_id"),
    primary_key_column("seq"),
    sa.Column("at", TIMESTAMPTZ, nullable=False),
    sa.Column("participation_id", sa.BigInteger),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("payload", JSONB, nullable=False),
    # The session of the participation that wrote it; null where the caller named none.
    sa.Column("session_key", sa.Text),
    sa.CheckConstraint(one_of_check("type", EVENT_TYPES), "type"),
    sa.CheckConstraint("seq > 0", "seq"),
)
_payload_sequence = sa.text("(payload ->> 'sequence')")
_payload_number = sa.text("((payload ->> 'number')::bigint)")
_payload_ref = sa.text("(payload ->> 'ref')")
_payload_tag = sa.text("(payload ->> 'tag')")
sa.Index("event_type_idx", event.c.project_id, event.c.type, event.c.seq)
sa.Index("event_actor_idx", event.c.project_id, event.c.participation_id, event.c.type, event.c.seq)
sa.Index(
    "event_sequence_idx",
    event.c.project_id,
    _payload_sequence,
    event.c.type,
    event.c.seq,
    postgresql_where=sa.text("type IN ('claim', 'seed')"),
)
sa.Index(
    "event_number_idx",
    event.c.project_id,
    _payload_number,
    event.c.seq,
    postgresql_where=sa.text("type = 'claim'"),
)
sa.Index(
    "event_ref_idx",
    event.c.project_id,
    _payload_ref,
    event.c.type,
    event.c.seq,
    postgresql_where=sa.text("(payload ->> 'ref') IS NOT NULL"),
)
sa.Index(
    "event_tag_idx",
    event.c.project_id,
    _payload_tag,
    event.c.type,
    event.c.seq,
    postgresql_where=sa.text("(payload ->> 'tag') IS NOT NULL"),
)
_payload_task = sa.text("((payload ->> 'task_id')::bigint)")
sa.Index(
    "event_task_idx",
    event.c.project_id,
    _payload_task,
    event.c.seq,
    postgresql_where=sa.text("(payload ->> 'task_id') IS NOT NULL"),
)

sequence = sa.Table(
    "sequence",
    metadata,
    primary_key_column("project_id"),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("current", sa.BigInteger, nullable=False),
    sa.Column("prefix", sa.Text, nullable=False, server_default=EMPTY_DEFAULT),
    sa.Column("pad", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("claimed", sa.BigInteger),
    sa.Column("claimed_as", sa.Text),
    sa.Column("claimed_by", sa.Text),
    sa.Column("claimed_at", TIMESTAMPTZ),
    sa.CheckConstraint("name ~ '^[a-z0-9_-]{1,64}$'", "name"),
    sa.CheckConstraint("current BETWEEN 0 AND 9007199254740991", "current"),
    sa.CheckConstraint(length_check("prefix", 16, 0), "prefix"),
    sa.CheckConstraint("pad BETWEEN 0 AND 12", "pad"),
    postgresql_with={"fillfactor": 50},
)

lease = sa.Table(
    "lease",
    metadata,
    primary_key_column("project_id"),
    primary_key_column("id"),
    sa.Column("surface", sa.Text, nullable=False),
    # In the C collation the paths under a directory are one range of the index.
    sa.Column("prefix", sa.Text(collation="C"), nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("participation_id", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("note", sa.Text),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("acquired_at", TIMESTAMPTZ, nullable=False),
    sa.Column("expires_at", TIMESTAMPTZ, nullable=False),
    sa.Column("ended_at", TIMESTAMPTZ),
    sa.Column("ended_by", sa.Text),
    sa.Column("session_key", sa.Text),
    sa.CheckConstraint(length_check("surface", 200), "surface"),
    sa.CheckConstraint(one_of_check("mode", LEASE_MODES), "mode"),
    sa.CheckConstraint("ended_by IN ('release', 'expiry')", "ended_by"),
    sa.CheckConstraint("(ended_at IS NULL) = (ended_by IS NULL)", "ended"),
    sa.CheckConstraint(length_check("note", 500), "note"),
)
sa.Index(
    "lease_live_holder_key",
    lease.c.project_id,
    lease.c.participation_id,
    lease.c.surface,
    lease.c.session_key,
    unique=True,
    postgresql_nulls_not_distinct=True,
    postgresql_where=lease.c.ended_at.is_(None),
)
sa.Index(
    "lease_live_prefix_idx",
    lease.c.project_id,
    lease.c.prefix,
    lease.c.id,
    postgresql_where=lease.c.ended_at.is_(None),
)
sa.Index("lease_due_idx", lease.c.project_id, lease.c.expires_at, postgresql_where=lease.c.ended_at.is_(None))
sa.Index("lease_live_idx", lease.c.project_id, lease.c.id, postgresql_where=lease.c.ended_at.is_(None))

presence = sa.Table(
    "presence",
    metadata,
    primary_key_column("project_id"),
    primary_key_column("participation_id"),
    sa.Column("lane", sa.Text),
    sa.Column("status", sa.Text, nullable=False, server_default=EMPTY_DEFAULT),
    sa.Column("registered_at", TIMESTAMPTZ),
    sa.Column("last_seen", TIMESTAMPTZ, nullable=False),
    # When the absence was recorded; null again after the next sighting.
    sa.Column("lapsed_at", TIMESTAMPTZ),
    # How calls without a session can be woken: the time until which the gateway's last report holds.
    sa.Column("waiting_until", TIMESTAMPTZ),
    sa.Column("listening_until", TIMESTAMPTZ),
    # The program of the last call that named one (bus/rules/client_names.py).
    sa.Column("client", sa.Text),
    sa.CheckConstraint(length_check("lane", 64), "lane"),
    sa.CheckConstraint(length_check("status", 140, 0), "status"),
    postgresql_with={"fillfactor": 50},
)
# Without last_seen, so that a sighting remains a HOT update.
sa.Index(
    "presence_here_idx",
    presence.c.project_id,
    presence.c.participation_id,
    postgresql_where=presence.c.lapsed_at.is_(None),
)
sa.Index("presence_lane_idx", presence.c.project_id, presence.c.lane)

cursor = sa.Table(
    "cursor",
    metadata,
    primary_key_column("project_id"),
    primary_key_column("participation_id"),
    sa.Column("seq", sa.BigInteger, nullable=False),
    postgresql_with={"fillfactor": 50},
)

ack_cursor = sa.Table(
    "ack_cursor",
    metadata,
    primary_key_column("project_id"),
    primary_key_column("participation_id"),
    sa.Column("seq", sa.BigInteger, nullable=False),
    postgresql_with={"fillfactor": 50},
    comment="Last ack event that a participation has received through a long poll.",
)

waiter = sa.Table(
    "waiter",
    metadata,
    primary_key_column("project_id"),
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("participation_id", sa.BigInteger, nullable=False),
    sa.Column("surface", sa.Text, nullable=False),
    sa.Column("alive_until", TIMESTAMPTZ, nullable=False),
    sa.Column("told_at", TIMESTAMPTZ),
    sa.Column("session_key", sa.Text),
    sa.CheckConstraint(length_check("surface", 200), "surface"),
    comment="Queue of callers that wait for a leased surface; the first one is answered first.",
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    primary_key_column("project_id"),
    primary_key_column("participation_id"),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("fingerprint", BYTEA, nullable=False),
    sa.Column("result", JSONB),
    created_at_column(),
    sa.CheckConstraint(length_check("key", 64), "key"),
)
sa.Index("idempotency_age_idx", idempotency.c.project_id, idempotency.c.created_at)

search_document = sa.Table(
    "search_document",
    metadata,
    primary_key_column("project_id"),
    sa.Column("kind", sa.Text, primary_key=True),
    primary_key_column("id"),
    sa.Column("words", TSVECTOR, nullable=False),
    sa.CheckConstraint("kind IN ('post', 'task')", "kind"),
    comment="The words of posts and tasks, and the ranges of ids that they are in.",
)
sa.Index(
    "search_document_words_idx",
    search_document.c.words,
    postgresql_using="gin",
    # Without a list of pending entries, which each search would read.
    postgresql_with={"fastupdate": "off"},
)
