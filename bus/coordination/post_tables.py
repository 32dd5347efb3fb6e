"""Tables of posts and their deliveries. Every key leads with `project_id`, as in tables.py."""

import sqlalchemy as sa

from bus.db.columns import TIMESTAMPTZ, length_check, metadata, one_of_check, primary_key_column
from bus.rules.enums import WAKE_KINDS

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
