"""Tables of coordination. Every key leads with `project_id`, so that the schema can be distributed.

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
from bus.rules.enums import EVENT_TYPES, LEASE_MODES, TASK_STATUSES, WAKE_KINDS

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

post = sa.Table(
    "post",
    metadata,
    primary_key_column("project_id"),
    primary_key_column("id"),
    sa.Column("participation_id", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("to_lane", sa.Text),
    sa.Column("to_participation_id", sa.BigInteger),
    sa.Column("to_actor", sa.Text),
    sa.Column("subject", sa.Text),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("ref", sa.Text),
    sa.Column("tag", sa.Text),
    sa.Column("reply_to", sa.BigInteger),
    sa.Column("recipients", sa.Integer, nullable=False),
    sa.Column("ack_due_at", TIMESTAMPTZ),
    sa.Column("created_at", TIMESTAMPTZ, nullable=False),
    sa.Column("acked_at", TIMESTAMPTZ),
    # The time of the next escalation step, and the number of steps taken; see bus/coordination/escalation.py.
    sa.Column("escalate_at", TIMESTAMPTZ),
    sa.Column("escalation", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
    sa.CheckConstraint("to_lane IS NOT NULL OR to_participation_id IS NOT NULL", "addressed"),
    sa.CheckConstraint(length_check("body", 8000), "body"),
    sa.CheckConstraint(length_check("subject", 200), "subject"),
    sa.CheckConstraint(length_check("ref", 200), "ref"),
    sa.CheckConstraint(length_check("tag", 64), "tag"),
    sa.CheckConstraint(length_check("to_lane", 64), "to_lane"),
)
sa.Index(
    "post_lane_idx",
    post.c.project_id,
    post.c.to_lane,
    post.c.id,
    postgresql_where=post.c.to_lane.is_not(None),
)
sa.Index("post_ref_idx", post.c.project_id, post.c.ref, post.c.id, postgresql_where=post.c.ref.is_not(None))
sa.Index("post_tag_idx", post.c.project_id, post.c.tag, post.c.id, postgresql_where=post.c.tag.is_not(None))
sa.Index(
    "post_reply_idx",
    post.c.project_id,
    post.c.reply_to,
    post.c.id,
    postgresql_where=post.c.reply_to.is_not(None),
)
sa.Index("post_unacked_idx", post.c.project_id, post.c.id, postgresql_where=post.c.acked_at.is_(None))
sa.Index(
    "post_unacked_lane_idx",
    post.c.project_id,
    post.c.to_lane,
    post.c.id,
    postgresql_where=sa.and_(post.c.to_lane.is_not(None), post.c.acked_at.is_(None)),
)
sa.Index(
    "post_due_idx",
    post.c.project_id,
    post.c.ack_due_at,
    postgresql_where=sa.and_(post.c.ack_due_at.is_not(None), post.c.acked_at.is_(None)),
)

sa.Index(
    "post_escalate_idx",
    post.c.project_id,
    post.c.escalate_at,
    postgresql_where=sa.and_(post.c.escalate_at.is_not(None), post.c.acked_at.is_(None)),
)

delivery = sa.Table(
    "delivery",
    metadata,
    primary_key_column("project_id"),
    primary_key_column("participation_id"),
    primary_key_column("post_id"),
    sa.Column("addressed", sa.Boolean, nullable=False, server_default=sa.text("true")),
    sa.Column("surfaced_at", TIMESTAMPTZ),
    sa.Column("acked_at", TIMESTAMPTZ),
    # The session that acked first.
    sa.Column("acked_session", sa.Text),
    # Until then the post is not offered to other waiting sessions of its recipient; see sql/session_offers.sql.
    sa.Column("offered_until", TIMESTAMPTZ),
    sa.Column("offered_session", sa.Text),
    # How its recipient could be reached when the post was written, and the client that it had used last; both null
    # where it received the post later, as a new member of the lane.
    sa.Column("wake", sa.Text),
    sa.Column("client", sa.Text),
    sa.CheckConstraint(one_of_check("wake", WAKE_KINDS), "wake"),
    comment="One row per recipient; `addressed` is false for an ack of a post that was addressed to others.",
)
sa.Index("delivery_post_idx", delivery.c.project_id, delivery.c.post_id)
sa.Index(
    "delivery_unacked_idx",
    delivery.c.project_id,
    delivery.c.participation_id,
    delivery.c.post_id,
    postgresql_where=delivery.c.acked_at.is_(None),
)

seen_delivery = sa.Table(
    "seen_delivery",
    metadata,
    primary_key_column("project_id"),
    primary_key_column("participation_id"),
    primary_key_column("post_id"),
    comment="Deliveries that were shown since the last rollup, which counts them.",
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

task = sa.Table(
    "task",
    metadata,
    primary_key_column("project_id"),
    primary_key_column("id"),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("detail", sa.Text),
    sa.Column("lane", sa.Text),
    sa.Column("participation_id", sa.BigInteger),
    sa.Column("owner", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    sa.Column("open_blockers", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created_at", TIMESTAMPTZ, nullable=False),
    sa.Column("updated_at", TIMESTAMPTZ, nullable=False),
    sa.Column("ref", sa.Text),
    # Until then the task is not offered to other waiting callers; an offer reserves nothing.
    sa.Column("offered_until", TIMESTAMPTZ),
    # The session that started it, while it is in progress or blocked.
    sa.Column("session_key", sa.Text),
    sa.CheckConstraint(length_check("title", 200), "title"),
    sa.CheckConstraint(length_check("detail", 4000), "detail"),
    sa.CheckConstraint(length_check("lane", 64), "lane"),
    sa.CheckConstraint(length_check("ref", 200), "ref"),
    sa.CheckConstraint(one_of_check("status", TASK_STATUSES), "status"),
    sa.CheckConstraint("priority BETWEEN 0 AND 4", "priority"),
    sa.CheckConstraint("open_blockers >= 0", "open_blockers"),
    sa.CheckConstraint("status = 'open' OR participation_id IS NOT NULL", "assignee"),
    sa.CheckConstraint("status <> 'blocked' OR open_blockers > 0", "blocked"),
    sa.CheckConstraint("status NOT IN ('in_progress', 'done') OR open_blockers = 0", "unblocked"),
)
sa.Index("task_status_idx", task.c.project_id, task.c.status, task.c.id)
sa.Index("task_owner_idx", task.c.project_id, task.c.participation_id, task.c.id)
sa.Index(
    "task_session_idx",
    task.c.project_id,
    task.c.participation_id,
    task.c.session_key,
    postgresql_where=task.c.session_key.is_not(None),
)
sa.Index("task_lane_idx", task.c.project_id, task.c.lane, task.c.id)
sa.Index(
    "task_ready_idx",
    task.c.project_id,
    task.c.priority,
    task.c.id,
    postgresql_where=sa.text("status IN ('open', 'assigned') AND open_blockers = 0"),
)

task_blocker = sa.Table(
    "task_blocker",
    metadata,
    primary_key_column("project_id"),
    primary_key_column("task_id"),
    primary_key_column("id"),
    sa.Column("on_task_id", sa.BigInteger),
    sa.Column("reason", sa.Text),
    sa.Column("created_at", TIMESTAMPTZ, nullable=False),
    sa.Column("resolved_at", TIMESTAMPTZ),
    sa.CheckConstraint("on_task_id IS NOT NULL OR reason IS NOT NULL", "why"),
    sa.CheckConstraint("on_task_id <> task_id", "self"),
    sa.CheckConstraint(length_check("reason", 500), "reason"),
)
sa.Index(
    "task_blocker_open_idx",
    task_blocker.c.project_id,
    task_blocker.c.on_task_id,
    task_blocker.c.task_id,
    postgresql_where=task_blocker.c.resolved_at.is_(None),
)

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
