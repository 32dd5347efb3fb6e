"""Overdue posts are escalated step by step, each step once, until the first ack."""

from typing import Any

from bus.coordination import escalation, ledger, posts
from bus.db import Connection, Database
from bus.notifications import mail_addresses, outbox
from bus.tenancy import owner_participation, projects, tokens
from bus.tenancy.projects import Project
from tests.concurrency import run_concurrently, successes
from tests.factories import Agent, make_agent, make_project


def _make_steps_due(conn: Connection) -> None:
    conn.execute("UPDATE post SET escalate_at = clock_timestamp() WHERE escalate_at IS NOT NULL")


def _overdue(conn: Connection, sender: Agent, **to: Any) -> int:
    post_id = posts.create(conn, sender.ctx, "please", ack_within_seconds=60, ref="PR 7", subject="Look", **to).post_id
    _make_steps_due(conn)
    return post_id


def _inbox(conn: Connection, agent: Agent) -> list[int]:
    return [post.post_id for post in posts.list_posts(conn, agent.ctx, to_me=True, unacked_only=True).posts]


def test_each_step_is_taken_once_in_order(
    conn: Connection, project: Project, root: Agent, ada: Agent, bob: Agent
) -> None:
    hook = outbox.add_webhook(conn, project.owner_id, "https://example.org/hook", project_id=project.id, actor="cli")
    conn.execute("UPDATE project SET escalation_email = 'lead@example.org' WHERE id = %s", (project.id,))
    mail_addresses.confirm(conn, mail_addresses.register(conn, project.owner_id, "lead@example.org"))
    assert escalation.list_projects_with_overdue_posts(conn) == []
    post_id = _overdue(conn, ada, to_actor="bob")
    assert escalation.list_projects_with_overdue_posts(conn) == [project.id]

    assert escalation.escalate_overdue_posts(conn, project.id) == 1
    (event,) = ledger.query_events(conn, bob.ctx, type="escalate").events
    assert event.actor == ada.actor
    assert event.payload == {"post_id": post_id, "to_lane": None, "to_actor": bob.actor, "ref": "PR 7"}
    assert _inbox(conn, root) == []
    # Not before the pause has passed.
    assert escalation.escalate_overdue_posts(conn, project.id) == 0

    _make_steps_due(conn)
    assert escalation.escalate_overdue_posts(conn, project.id) == 1
    assert _inbox(conn, root) == [post_id]
    assert "inbox" in conn.pending_topics[project.id]
    assert outbox.list_log_entries(conn, project.owner_id) == []

    _make_steps_due(conn)
    assert escalation.escalate_overdue_posts(conn, project.id) == 1
    log_entries = outbox.list_log_entries(conn, project.owner_id)
    assert {(one.channel, one.target) for one in log_entries} == {("webhook", hook.url), ("email", "lead@example.org")}

    _make_steps_due(conn)
    assert escalation.list_projects_with_overdue_posts(conn) == []
    assert escalation.escalate_overdue_posts(conn, project.id) == 0
    assert len(ledger.query_events(conn, bob.ctx, type="escalate").events) == 1


def test_an_ack_ends_the_escalation(conn: Connection, project: Project, root: Agent, ada: Agent, bob: Agent) -> None:
    post_id = _overdue(conn, ada, to_actor="bob")
    escalation.escalate_overdue_posts(conn, project.id)
    posts.ack(conn, bob.ctx, [post_id])
    _make_steps_due(conn)
    assert escalation.list_projects_with_overdue_posts(conn) == []
    assert escalation.escalate_overdue_posts(conn, project.id) == 0
    assert _inbox(conn, root) == []


def test_a_post_without_a_deadline_is_never_overdue(conn: Connection, project: Project, ada: Agent, bob: Agent) -> None:
    posts.create(conn, ada.ctx, "no deadline", to_actor="bob")
    _make_steps_due(conn)
    assert escalation.list_projects_with_overdue_posts(conn) == []


def test_an_admin_does_not_receive_its_own_post_or_one_it_has(conn: Connection, project: Project, root: Agent) -> None:
    other = make_agent(conn, project, "other", is_admin=True)
    post_id = _overdue(conn, root, to_actor="other")
    for _ in escalation.ESCALATION_STEPS:
        escalation.escalate_overdue_posts(conn, project.id)
        _make_steps_due(conn)
    assert _inbox(conn, root) == []
    assert _inbox(conn, other) == [post_id]
    (mine,) = posts.list_posts(conn, root.ctx).posts
    assert mine.deliveries is not None
    assert mine.deliveries.queued + mine.deliveries.surfaced == 1


def test_a_project_admin_without_a_live_token_receives_no_escalation(
    conn: Connection, project: Project, root: Agent, ada: Agent, bob: Agent
) -> None:
    other = make_agent(conn, project, "other", is_admin=True)
    tokens.revoke_all(conn, project.id, root.label, actor="cli")
    post_id = _overdue(conn, ada, to_actor="bob")
    for _ in escalation.ESCALATION_STEPS:
        escalation.escalate_overdue_posts(conn, project.id)
        _make_steps_due(conn)
    rows = conn.fetch_all("SELECT participation_id FROM delivery WHERE post_id = %s", (post_id,))
    recipients = {participation_id for (participation_id,) in rows}
    assert {bob.ctx.participation_id, other.ctx.participation_id} <= recipients
    assert root.ctx.participation_id not in recipients


def test_an_overdue_post_is_delivered_to_the_owner_who_acts_in_the_web(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    owner = owner_participation.get_or_create_owner_context(conn, project.owner_id, project.id)
    post_id = _overdue(conn, ada, to_actor="bob")
    for _ in escalation.ESCALATION_STEPS:
        escalation.escalate_overdue_posts(conn, project.id)
        _make_steps_due(conn)
    (seen,) = posts.list_posts(conn, owner, to_me=True, unacked_only=True).posts
    assert seen.post_id == post_id


def test_nothing_is_escalated_in_an_archived_project(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    _overdue(conn, ada, to_actor="bob")
    projects.archive(conn, project.id, actor="test")
    escalation.escalate_overdue_posts(conn, project.id)
    assert escalation.list_projects_with_overdue_posts(conn) == []
    assert ledger.query_events(conn, bob.ctx, type="escalate").events == []


def test_concurrent_acks_and_steps_are_consistent(db: Database) -> None:
    """In either order nothing is escalated after the ack, and no step is taken twice."""
    for _ in range(20):
        with db.transaction() as conn:
            project = make_project(conn)
            ada, bob = make_agent(conn, project, "ada"), make_agent(conn, project, "bob")
            post_id = _overdue(conn, ada, to_actor="bob")
        outcomes = run_concurrently(
            db,
            lambda conn, bob=bob, post_id=post_id: posts.ack(conn, bob.ctx, [post_id]),
            *([lambda conn, project=project: escalation.escalate_overdue_posts(conn, project.id)] * 3),
        )
        assert successes(outcomes) == outcomes
        with db.transaction() as conn:
            events = list(reversed(ledger.query_events(conn, bob.ctx, last_n=10).events))
        kinds = [event.type for event in events if event.type in ("ack", "escalate")]
        assert kinds in (["ack"], ["escalate", "ack"]), kinds
