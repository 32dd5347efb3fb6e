"""Escalation of overdue posts in three steps, each taken once, until the first ack.

At its deadline a post gets an `escalate` event. After the project's escalation pause it is delivered to the
project-admins, and after another pause the project's webhook and e-mail address are notified.
"""

from dataclasses import dataclass
from datetime import datetime

from bus.coordination.transactions import SystemTransaction
from bus.db import Connection
from bus.notifications import mail_addresses, outbox

ESCALATION_STEPS = ("record_event", "deliver_to_admins", "notify_owner")
BATCH_SIZE = 200
_MAX_PROJECTS = 200


@dataclass(frozen=True, slots=True)
class _OverduePost:
    id: int
    participation_id: int
    actor: str
    to_lane: str | None
    to_actor: str | None
    subject: str | None
    ref: str | None
    ack_due_at: datetime
    steps_taken: int


def list_projects_with_overdue_posts(conn: Connection, after_project_id: int = 0) -> list[int]:
    """List the projects after `after_project_id`, by id, that have a step to take."""
    rows = conn.fetch_all(
        "SELECT DISTINCT o.project_id FROM post o WHERE o.escalate_at <= statement_timestamp() AND o.acked_at IS NULL"
        " AND o.project_id > %s ORDER BY 1 LIMIT %s",
        (after_project_id, _MAX_PROJECTS),
    )
    return [project_id for (project_id,) in rows]


def escalate_overdue_posts(conn: Connection, project_id: int) -> int:
    """Take the next step for each overdue post that is due for one; at most BATCH_SIZE posts.

    Returns:
        The number of steps taken.
    Locks: the project clock, which an ack takes as well; then the posts.
    """
    transaction = SystemTransaction(conn, project_id)
    overdue_posts = conn.fetch_all_as(
        _OverduePost,
        "SELECT id, participation_id, actor, to_lane, to_actor, subject, ref, ack_due_at, escalation AS steps_taken"
        " FROM post WHERE project_id = %s AND escalate_at <= clock_timestamp() AND acked_at IS NULL"
        " ORDER BY id LIMIT %s",
        (project_id, BATCH_SIZE),
    )
    for post in overdue_posts:
        step = ESCALATION_STEPS[post.steps_taken]
        if transaction.is_closed:
            # Nothing is delivered in a closed project, so escalation ends here.
            step = ESCALATION_STEPS[-1]
        elif step == "record_event":
            transaction.record_event(
                post.participation_id,
                post.actor,
                "escalate",
                post_id=post.id,
                to_lane=post.to_lane,
                to_actor=post.to_actor,
                ref=post.ref,
            )
        elif step == "deliver_to_admins":
            if _deliver_to_admins(conn, project_id, post):
                conn.notify_on_commit(project_id, "inbox")
        else:
            _enqueue_notification(conn, project_id, post)
        conn.execute(
            "UPDATE post o SET escalation = %(steps_taken)s, escalate_at = CASE WHEN %(is_last)s THEN NULL"
            "  ELSE clock_timestamp() + make_interval(secs => pj.escalation_pause_seconds) END"
            " FROM project pj WHERE pj.id = o.project_id AND o.project_id = %(project)s AND o.id = %(post)s",
            {
                "steps_taken": ESCALATION_STEPS.index(step) + 1,
                "is_last": step == ESCALATION_STEPS[-1],
                "project": project_id,
                "post": post.id,
            },
        )
    transaction.finish()
    return len(overdue_posts)


def _deliver_to_admins(conn: Connection, project_id: int, post: _OverduePost) -> int:
    """Deliver a post to the project-admins who have not received it; returns the number of new deliveries."""
    return conn.execute(
        "INSERT INTO delivery (project_id, participation_id, post_id)"
        " SELECT p.project_id, p.id, %(post)s FROM participation p"
        " JOIN participant pt ON pt.id = p.participant_id AND pt.removed_at IS NULL"
        " WHERE p.project_id = %(project)s AND p.is_admin AND p.removed_at IS NULL AND p.id <> %(sender)s"
        # The owner acts in the web, without a token.
        "  AND (pt.label = '' OR EXISTS (SELECT FROM token t WHERE t.participation_id = p.id"
        "   AND bus_token_is_live(t.revoked_at, t.expires_at)))"
        " ORDER BY p.id ON CONFLICT DO NOTHING",
        {"project": project_id, "post": post.id, "sender": post.participation_id},
    )


def _enqueue_notification(conn: Connection, project_id: int, post: _OverduePost) -> None:
    owner_id, name, email, is_suspended = conn.fetch_one(
        "SELECT pj.owner_id, pj.name, pj.escalation_email, o.suspended_at IS NOT NULL"
        " FROM project pj JOIN owner o ON o.id = pj.owner_id WHERE pj.id = %s",
        (project_id,),
    )
    if is_suspended:
        # The step counts as taken; a message about it would be outdated when the suspension is lifted.
        return
    content = {
        "project": name,
        "post_id": post.id,
        "sender": post.actor,
        "to_lane": post.to_lane,
        "to_actor": post.to_actor,
        "subject": post.subject,
        "ref": post.ref,
        "ack_due_at": post.ack_due_at.isoformat(),
    }
    outbox.enqueue(conn, "escalation", owner_id=owner_id, project_id=project_id, **content)
    if email is not None:
        mail_addresses.add_to_digest(conn, owner_id, email, {"project_id": project_id, **content})
