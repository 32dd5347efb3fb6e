"""The dashboard, conversations, task details, project settings and the audit log, as the web reads them."""

from datetime import timedelta

from bus.coordination import conversations, dashboard, leases, posts, presence, surfacing, task_queries, tasks
from bus.db import Connection
from bus.operations import project_purge
from bus.tenancy import audit, owner_participation, participations, projects, tokens
from bus.tenancy.audit import AuditFilter
from bus.tenancy.projects import Project, ProjectSettings
from tests import factories, scenarios
from tests.assertions import assert_refused, database_checksum
from tests.factories import Agent


def test_a_project_overview_counts_participants_tasks_and_leases(conn: Connection, project: Project) -> None:
    scene = scenarios.create_scenario(conn, project)
    owner_participation.get_or_create_owner_context(conn, project.owner_id, project.id)
    (overview,) = dashboard.list_recently_active(conn, project.owner_id)
    (last_seq,) = conn.fetch_one("SELECT last_seq FROM project_clock WHERE project_id = %s", (project.id,))
    assert (overview.id, overview.name, overview.is_archived, overview.event_count) == (
        project.id,
        project.name,
        False,
        last_seq,
    )
    assert (
        overview.unanswered_count
        == conn.fetch_one("SELECT count(*) FROM post WHERE project_id = %s AND acked_at IS NULL", (project.id,))[0]
    )
    assert (overview.participant_count, overview.active_count, overview.open_task_count, overview.lease_count) == (
        2,
        1,
        5,
        2,
    )
    tasks.ship(conn, scene.caller.ctx, scene.running_task_id)
    leases.release(conn, scene.caller.ctx, "*")
    participations.remove(conn, project.id, "mate", actor="cli")
    (overview,) = dashboard.list_projects(conn, project.owner_id)
    assert (
        overview.name_key,
        overview.participant_count,
        overview.active_count,
        overview.open_task_count,
        overview.lease_count,
    ) == (
        project.name,
        1,
        0,
        4,
        0,
    )


def test_projects_are_listed_by_last_activity_and_by_name(conn: Connection) -> None:
    owner = factories.make_owner(conn)
    made = {name: projects.add(conn, owner.id, name, actor="cli") for name in ("a", "b", "c", "d")}
    factories.make_project(conn, "foreign")
    projects.archive(conn, made["c"].id, actor="x")
    presence.register(conn, factories.make_agent(conn, made["b"]).ctx, "core")
    assert [overview.name for overview in dashboard.list_recently_active(conn, owner.id)] == ["b", "d", "a"]
    assert [overview.name for overview in dashboard.list_recently_active(conn, owner.id, limit=1)] == ["b"]
    listed = dashboard.list_projects(conn, owner.id, limit=3)
    assert [(overview.name, overview.is_archived) for overview in listed] == [("a", False), ("b", False), ("c", True)]
    assert [overview.name for overview in dashboard.list_projects(conn, owner.id, after=listed[-1].name_key)] == ["d"]


def test_overdue_posts_contention_blocked_tasks_and_expiring_tokens_need_attention(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    assert not dashboard.list_attention_items(conn, project.owner_id)
    late = posts.create(conn, ada.ctx, "look at this", to_actor="bob", ack_within_seconds=60).post_id
    posts.create(conn, ada.ctx, "in time", to_actor="bob", ack_within_seconds=60)
    met = posts.create(conn, ada.ctx, "met", to_lane="core", ack_within_seconds=60).post_id
    posts.ack(conn, bob.ctx, [met])
    conn.execute(
        "UPDATE post SET ack_due_at = clock_timestamp() WHERE project_id = %s AND id = ANY (%s)",
        (project.id, [late, met]),
    )
    leases.acquire(conn, ada.ctx, "src/api/**")
    leases.acquire(conn, bob.ctx, "src/api/users.py")
    leases.acquire(conn, bob.ctx, "docs")
    task = tasks.create(conn, ada.ctx, "deploy").task_id
    tasks.start(conn, ada.ctx, task)
    tasks.block(conn, ada.ctx, task, "the vendor sleeps")
    soon = tokens.add(conn, project.id, "bob", ttl=timedelta(days=2), actor="x")
    tokens.add(conn, project.id, "bob", ttl=timedelta(days=30), actor="x")
    items = dashboard.list_attention_items(conn, project.owner_id)
    assert [(one.post_id, one.addressed_to, one.subject) for one in items.overdue_posts] == [
        (late, bob.actor, "look at this")
    ]
    assert [(one.surface, set(one.actors)) for one in items.contended_surfaces] == [
        ("src/api/users.py", {ada.actor, bob.actor})
    ]
    assert [(one.task_id, one.reason, one.task_owner) for one in items.blocked_tasks] == [
        (task, "the vendor sleeps", ada.actor)
    ]
    assert [(one.actor, one.participation_id) for one in items.expiring_tokens] == [
        (bob.actor, bob.ctx.participation_id)
    ]
    assert soon.token.endswith(items.expiring_tokens[0].token_hint[-4:])
    assert not dashboard.list_attention_items(conn, factories.make_owner(conn).id)
    projects.archive(conn, project.id, actor="x")
    assert not dashboard.list_attention_items(conn, project.owner_id)


def test_a_conversation_contains_replies_to_replies_oldest_first(
    conn: Connection, project: Project, ada: Agent
) -> None:
    bob = factories.make_agent(conn, project, "bob")
    owner = owner_participation.get_or_create_owner_context(conn, project.owner_id, project.id)
    first = posts.create(conn, ada.ctx, "1", to_actor="bob").post_id
    posts.create(conn, ada.ctx, "another", to_actor="bob")
    second = posts.create(conn, bob.ctx, "2", to_actor="ada", reply_to=first).post_id
    third = posts.create(conn, ada.ctx, "3", to_actor="bob", reply_to=second).post_id
    fourth = posts.create(conn, bob.ctx, "4", to_actor="ada", reply_to=first).post_id
    for start in (first, second, third, fourth):
        assert [post.post_id for post in conversations.list_conversation(conn, owner, start)] == [
            first,
            second,
            third,
            fourth,
        ]
    assert conversations.list_conversation(conn, owner, 10**12) == []
    stranger = factories.make_agent(conn)
    assert conversations.list_conversation(conn, stranger.ctx, first) == []
    assert conversations.get_delivery_progress(conn, stranger.ctx, [first]) == {}


def test_a_long_conversation_is_cut_at_its_newest_posts(conn: Connection, project: Project, ada: Agent) -> None:
    factories.make_agent(conn, project, "bob")
    last = posts.create(conn, ada.ctx, "root", to_actor="bob").post_id
    made = [last]
    for _ in range(130):
        last = posts.create(conn, ada.ctx, "x" * 900, to_actor="bob", reply_to=last).post_id
        made.append(last)
    assert [post.post_id for post in conversations.list_conversation(conn, ada.ctx, last)] == made
    for _ in range(conversations.MAX_POSTS):
        posts.create(conn, ada.ctx, "y", to_actor="bob", reply_to=made[0])
    conversation = conversations.list_conversation(conn, ada.ctx, made[0])
    assert len(conversation) == conversations.MAX_POSTS
    assert conversation[-1].body == "y"


def test_delivery_progress_shows_the_state_of_each_recipient(conn: Connection, project: Project, ada: Agent) -> None:
    b, c, d = (factories.make_agent(conn, project, name, lane="core") for name in "bcd")
    post = posts.create(conn, ada.ctx, "all", to_lane="core", ack_within_seconds=60).post_id
    surfacing.mark_surfaced(conn, {(project.id, c.ctx.participation_id, post): 0.0})
    posts.ack(conn, d.ctx, [post])
    posts.create(conn, b.ctx, "answer", to_actor="ada", reply_to=post)
    progress = conversations.get_delivery_progress(conn, ada.ctx, [post])[post]
    assert [(one.actor, one.state) for one in progress.recipients] == [
        (b.actor, "queued"),
        (c.actor, "surfaced"),
        (d.actor, "acked"),
    ]
    assert (progress.recipient_count, progress.unacked_count, progress.reply_count, progress.is_overdue) == (
        3,
        2,
        1,
        False,
    )
    assert [one.since is None for one in progress.recipients] == [True, False, False]
    assert progress.ack_due_at is not None


def test_tasks_are_counted_by_status_and_read_by_id(conn: Connection, project: Project) -> None:
    scene = scenarios.create_scenario(conn, project)
    owner = owner_participation.get_or_create_owner_context(conn, project.owner_id, project.id)
    assert task_queries.count_by_status(conn, owner) == {
        "open": 1,
        "assigned": 1,
        "in_progress": 2,
        "blocked": 1,
        "done": 0,
    }
    page = task_queries.get_task(conn, owner, scene.blocked_task_id)
    assert (page.title, page.status, page.created_by) == ("task 4", "blocked", scene.caller.actor)
    assert page.blockers[0].reason == "waiting for the vendor"
    with assert_refused(conn, "not_found"):
        task_queries.get_task(conn, factories.make_agent(conn).ctx, scene.blocked_task_id)


def test_a_project_is_renamed_and_its_settings_are_changed(conn: Connection, project: Project) -> None:
    other = projects.add(conn, project.owner_id, "other", actor="cli")
    assert projects.rename(conn, project.id, "better", actor=project.owner)
    assert not projects.rename(conn, project.id, "better", actor=project.owner)
    assert projects.rename(conn, project.id, "Better", actor=project.owner)
    with assert_refused(conn, "conflict"):
        projects.rename(conn, other.id, "BETTER", actor=project.owner)
    assert projects.get_settings(conn, project.id) == ProjectSettings(900, None)
    assert projects.set_settings(conn, project.id, ProjectSettings(60, 3600), actor=project.owner)
    assert not projects.set_settings(conn, project.id, ProjectSettings(60, 3600), actor=project.owner)
    assert projects.get_settings(conn, project.id) == ProjectSettings(60, 3600)
    for bad in (ProjectSettings(59, None), ProjectSettings(86_401, None), ProjectSettings(60, 1)):
        with assert_refused(conn, "invalid_argument"):
            projects.set_settings(conn, project.id, bad, actor=project.owner)
    project_purge.begin_purge(conn, other.id, actor="x")
    for call in (
        lambda: projects.get_settings(conn, other.id),
        lambda: project_purge.get_contents(conn, other.id),
        lambda: projects.rename(conn, other.id, "z", actor="x"),
    ):
        with assert_refused(conn, "not_found"):
            call()


def test_the_contents_that_a_purge_would_delete_are_counted(conn: Connection, project: Project) -> None:
    scenarios.create_scenario(conn, project)
    contents = project_purge.get_contents(conn, project.id)
    (last_seq,) = conn.fetch_one("SELECT last_seq FROM project_clock WHERE project_id = %s", (project.id,))
    assert (contents.event_count, contents.post_count, contents.task_count, contents.sequence_count) == (
        last_seq,
        1,
        5,
        1,
    )
    assert (contents.participant_count, contents.live_token_count, contents.open_invite_count) == (2, 2, 0)


def test_the_audit_log_is_paged_and_limited_to_its_owner(conn: Connection, project: Project) -> None:
    second = projects.add(conn, project.owner_id, "second", actor="cli")
    factories.make_agent(conn, second, "x")
    stranger = factories.make_agent(conn)
    before = database_checksum(conn)
    acts = audit.list_for_owner(conn, project.owner_id)
    assert [act.action for act in acts][:2] == ["participation.grant", "project.add"]
    assert {act.project for act in acts if act.project_id == second.id} == {"second"}
    assert audit.list_for_owner(conn, project.owner_id, limit=1) == acts[:1]
    assert audit.list_for_owner(conn, project.owner_id, before=acts[0].id) == acts[1:]
    assert {
        act.project_id for act in audit.list_for_owner(conn, project.owner_id, AuditFilter(project_id=second.id))
    } == {second.id}
    assert audit.list_for_owner(conn, project.owner_id, AuditFilter(project_id=stranger.ctx.project_id)) == []
    assert database_checksum(conn) == before
