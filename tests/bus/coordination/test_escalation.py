"""Overdue handoffs climb a ladder, each step once, until somebody acks."""

from bus.coordination import escalation, ledger, posts
from bus.db import Connection, Database
from bus.notifications import outbox
from bus.tenancy import participations, projects
from bus.tenancy.projects import Project
from tests.concurrency import run_concurrently, successes
from tests.factories import Agent, make_agent, make_project


def _pass_time(conn: Connection) -> None:
    conn.execute("UPDATE post SET escalate_at = clock_timestamp() WHERE escalate_at IS NOT NULL")


def _overdue(conn: Connection, sender: Agent, **to: str) -> int:
    post_id = posts.create(conn, sender.ctx, "please", ack_within_seconds=60, ref="PR 7", subject="Look", **to).post_id
    _pass_time(conn)
    return post_id


def _inbox(conn: Connection, agent: Agent) -> list[int]:
    return [post.post_id for post in posts.list_posts(conn, agent.ctx, to_me=True, unacked_only=True).posts]


def test_the_ladder_is_climbed_once_step_by_step(
    conn: Connection, project: Project, root: Agent, ada: Agent, bob: Agent
) -> None:
    hook = outbox.add_webhook(conn, project.owner_id, "https://example.org/hook", project_id=project.id, actor="cli")
    conn.execute("UPDATE project SET escalation_email = 'lead@example.org' WHERE id = %s", (project.id,))
    assert escalation.list_projects_with_overdue_posts(conn) == []
    post_id = _overdue(conn, ada, to_actor="bob")
    assert escalation.list_projects_with_overdue_posts(conn) == [project.id]

    assert escalation.escalate_overdue_posts(conn, project.id) == 1
    (event,) = ledger.query_events(conn, bob.ctx, type="escalate").events
    assert event.actor == ada.actor
    assert event.payload == {"post_id": post_id, "to_lane": None, "to_actor": bob.actor, "ref": "PR 7"}
    assert _inbox(conn, root) == []
    # Not before its pause is over.
    assert escalation.escalate_overdue_posts(conn, project.id) == 0

    _pass_time(conn)
    assert escalation.escalate_overdue_posts(conn, project.id) == 1
    assert _inbox(conn, root) == [post_id]
    assert "inbox" in conn.pending_topics[project.id]
    assert outbox.list_log_entries(conn, project.owner_id) == []

    _pass_time(conn)
    assert escalation.escalate_overdue_posts(conn, project.id) == 1
    told = outbox.list_log_entries(conn, project.owner_id, project_id=project.id)
    assert {(one.channel, one.target) for one in told} == {("webhook", hook.url), ("email", "lead@example.org")}

    _pass_time(conn)
    assert escalation.list_projects_with_overdue_posts(conn) == []
    assert escalation.escalate_overdue_posts(conn, project.id) == 0
    assert len(ledger.query_events(conn, bob.ctx, type="escalate").events) == 1


def test_an_ack_ends_it(conn: Connection, project: Project, root: Agent, ada: Agent, bob: Agent) -> None:
    post_id = _overdue(conn, ada, to_actor="bob")
    escalation.escalate_overdue_posts(conn, project.id)
    posts.ack(conn, bob.ctx, [post_id])
    _pass_time(conn)
    assert escalation.list_projects_with_overdue_posts(conn) == []
    assert escalation.escalate_overdue_posts(conn, project.id) == 0
    assert _inbox(conn, root) == []


def test_a_post_without_a_deadline_is_never_overdue(conn: Connection, project: Project, ada: Agent, bob: Agent) -> None:
    posts.create(conn, ada.ctx, "whenever", to_actor="bob")
    _pass_time(conn)
    assert escalation.list_projects_with_overdue_posts(conn) == []


def test_a_lead_is_not_told_of_its_own_post_nor_twice(conn: Connection, project: Project, root: Agent) -> None:
    other = make_agent(conn, project, "other", is_admin=True)
    post_id = _overdue(conn, root, to_actor="other")
    for _ in escalation.ESCALATION_STEPS:
        escalation.escalate_overdue_posts(conn, project.id)
        _pass_time(conn)
    assert _inbox(conn, root) == []
    assert _inbox(conn, other) == [post_id]
    (mine,) = posts.list_posts(conn, root.ctx).posts
    assert mine.deliveries is not None
    assert mine.deliveries.queued + mine.deliveries.surfaced == 1


def test_the_owner_who_acts_in_the_web_is_a_lead(conn: Connection, project: Project, ada: Agent, bob: Agent) -> None:
    owner = participations.get_or_create_owner_context(conn, project.owner_id, project.id)
    post_id = _overdue(conn, ada, to_actor="bob")
    for _ in escalation.ESCALATION_STEPS:
        escalation.escalate_overdue_posts(conn, project.id)
        _pass_time(conn)
    (seen,) = posts.list_posts(conn, owner, to_me=True, unacked_only=True).posts
    assert seen.post_id == post_id


def test_in_an_archived_project_nothing_is_escalated(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    _overdue(conn, ada, to_actor="bob")
    projects.archive(conn, project.id, actor="test")
    escalation.escalate_overdue_posts(conn, project.id)
    assert escalation.list_projects_with_overdue_posts(conn) == []
    assert ledger.query_events(conn, bob.ctx, type="escalate").events == []


def test_an_ack_and_a_step_at_one_moment_agree(db: Database) -> None:
    """Whichever is first: once acked nothing is escalated, and no step is taken twice."""
    for _ in range(20):
        with db.transaction() as conn:
            project = make_project(conn)
            ada, bob = make_agent(conn, project, "ada"), make_agent(conn, project, "bob")
            post_id = _overdue(conn, ada, to_actor="bob")
        found = run_concurrently(
            db,
            lambda conn, bob=bob, post_id=post_id: posts.ack(conn, bob.ctx, [post_id]),
            *([lambda conn, project=project: escalation.escalate_overdue_posts(conn, project.id)] * 3),
        )
        assert successes(found) == found
        with db.transaction() as conn:
            events = list(reversed(ledger.query_events(conn, bob.ctx, last_n=10).events))
        kinds = [event.type for event in events if event.type in ("ack", "escalate")]
        assert kinds in (["ack"], ["escalate", "ack"]), kinds
