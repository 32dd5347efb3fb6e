"""How long posts waited until seen and acked: recorded with the delivery, the same in the rollups and in the report."""

from dataclasses import astuple

from bus.analytics import project_metrics, report_cache, reports, rollups
from bus.analytics.delivery_times import DeliveryStats, DeliveryTimes
from bus.analytics.project_metrics import PERIODS
from bus.coordination import give_back, posts, presence, sessions, surfacing
from bus.coordination.sessions import WakeReport
from bus.db import Connection, Database
from bus.tenancy.projects import Project
from tests.factories import Agent, make_agent, make_project


def _metrics(conn: Connection, project: Project) -> DeliveryStats:
    while rollups.roll_up_batch(conn, project.id):
        pass
    return project_metrics.get_project_metrics(conn, project.id, PERIODS["24h"]).delivery_stats


def _age(conn: Connection, project: Project, post_id: int, seconds: float) -> None:
    """Let a post be older, instead of waiting."""
    conn.execute(
        "UPDATE post SET created_at = created_at - make_interval(secs => %s) WHERE project_id = %s AND id = %s",
        (seconds, project.id, post_id),
    )


def _show(conn: Connection, agent: Agent, post_id: int) -> None:
    surfacing.mark_surfaced(conn, {(agent.ctx.project_id, agent.ctx.participation_id, post_id): 0.0})


def _counts(groups: tuple[DeliveryTimes, ...]) -> dict[str, tuple[int, int, int]]:
    return {times.group: (times.delivered, times.seen, times.acked) for times in groups}


def test_a_delivery_keeps_how_its_recipient_could_be_reached(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    listener, hooked, idle, absent = (make_agent(conn, project, name, lane="core") for name in "cdef")
    bobs = bob.ctx.with_session("0193-bob")
    sessions.report_wake(
        conn,
        [
            WakeReport((bobs.participation_id, bobs.session), waiting=True, listening=True),
            WakeReport((listener.ctx.participation_id, None), waiting=False, listening=True),
        ],
    )
    sessions.look(conn, hooked.ctx.with_session("0193-hooks"), hooks=True)
    clients = {bob.ctx.participation_id: "codex", idle.ctx.participation_id: "gemini-cli"}
    presence.record_seen(conn, dict.fromkeys([*clients, hooked.ctx.participation_id], 0.0), clients)
    # A later sighting without a name keeps the client.
    presence.record_seen(conn, {bob.ctx.participation_id: 0.0})
    created = posts.create(conn, ada.ctx, "x", to_lane="core", to_actor="bob")
    rows = conn.fetch_all(
        "SELECT participation_id, wake, client FROM delivery WHERE project_id = %s AND post_id = %s",
        (project.id, created.post_id),
    )
    assert {row[0]: row[1:] for row in rows} == {
        bob.ctx.participation_id: ("waiting", "codex"),
        listener.ctx.participation_id: ("listening", None),
        hooked.ctx.participation_id: ("hooks", None),
        idle.ctx.participation_id: ("none", "gemini-cli"),
        absent.ctx.participation_id: ("none", None),
    }
    assert created.reach == {
        "now": [bob.actor, listener.actor],
        "next_step": [hooked.actor],
        "next_turn": [idle.actor, absent.actor],
    }


def test_times_are_grouped_by_reachability_and_by_client(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    presence.record_seen(conn, {bob.ctx.participation_id: 0.0}, {bob.ctx.participation_id: "codex"})
    sessions.report_wake(conn, [WakeReport((bob.ctx.participation_id, None), waiting=True, listening=False)])
    carol = make_agent(conn, project, "carol")
    for age, agent, is_acked in ((10.0, bob, True), (20.0, bob, False), (7200.0, carol, True), (0.0, carol, False)):
        post_id = posts.create(conn, ada.ctx, "x", to_actor=agent.label).post_id
        _age(conn, project, post_id, age)
        if age:
            _show(conn, agent, post_id)
        if is_acked:
            posts.ack(conn, agent.ctx, [post_id])
    stats = _metrics(conn, project)
    assert _counts(stats.by_wake) == {"waiting": (2, 2, 1), "none": (2, 1, 1)}
    assert _counts(stats.by_client) == {"codex": (2, 2, 1), "unknown": (2, 1, 1)}
    assert [times.group for times in stats.by_wake] == ["waiting", "none"]
    waiting, idle = stats.by_wake
    assert (waiting.seen_median_seconds, waiting.ack_p90_seconds) == (15.0, 10.0)
    # Rollups keep two digits, reports three.
    assert idle.seen_median_seconds == idle.ack_median_seconds == 7200.0
    assert reports.build_report(conn, project.id).delivery_times == stats


def test_the_rollups_equal_the_report_for_every_batch_size(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    for number in range(6):
        post_id = posts.create(conn, ada.ctx, "x", to_lane="core", to_actor="bob").post_id
        _age(conn, project, post_id, 10.0 * number)
        if number % 2:
            _show(conn, bob, post_id)
        if number % 3:
            posts.ack(conn, bob.ctx, [post_id])
    stats = _metrics(conn, project)
    assert _counts(stats.by_wake) == {"none": (6, 5, 4)}
    for limit in (1, 2, 3, 7):
        conn.execute(
            "INSERT INTO seen_delivery SELECT project_id, participation_id, post_id FROM delivery"
            " WHERE project_id = %s AND surfaced_at IS NOT NULL",
            (project.id,),
        )
        conn.raw.execute("DELETE FROM tally")
        conn.raw.execute("DELETE FROM tally_mark")
        while rollups.roll_up_batch(conn, project.id, limit=limit):
            pass
        assert _metrics(conn, project) == stats, limit
    assert astuple(reports.build_report(conn, project.id).delivery_times) == astuple(stats)


def test_a_post_that_was_shown_is_counted_once(conn: Connection, project: Project, ada: Agent, bob: Agent) -> None:
    post_id = posts.create(conn, ada.ctx, "x", to_actor="bob").post_id
    assert _counts(_metrics(conn, project).by_wake) == {"none": (1, 0, 0)}
    assert rollups.list_projects_behind(conn) == []
    _show(conn, bob, post_id)
    # The answer did not reach the client, and the next one did.
    give_back.unmark_surfaced(conn, bob.ctx, [post_id])
    assert _counts(_metrics(conn, project).by_wake) == {"none": (1, 0, 0)}
    for _ in range(2):
        _show(conn, bob, post_id)
    assert rollups.list_projects_behind(conn) == [project.id]
    assert _counts(_metrics(conn, project).by_wake) == {"none": (1, 1, 0)}
    posts.ack(conn, bob.ctx, [post_id])
    for _ in range(2):
        _show(conn, bob, post_id)
        posts.ack(conn, bob.ctx, [post_id])
        assert _counts(_metrics(conn, project).by_wake) == {"none": (1, 1, 1)}


def test_an_ack_without_a_showing_means_seen(conn: Connection, project: Project, ada: Agent, bob: Agent) -> None:
    post_id = posts.create(conn, ada.ctx, "x", to_actor="bob").post_id
    _age(conn, project, post_id, 60.0)
    posts.ack(conn, bob.ctx, [post_id])
    (times,) = _metrics(conn, project).by_wake
    assert (times.seen, times.acked, times.seen_median_seconds) == (1, 1, 60.0)
    # A flush that is late counts nothing more.
    _show(conn, bob, post_id)
    assert _metrics(conn, project).by_wake == (times,)


def test_a_delivery_to_a_later_member_of_a_lane_is_in_no_group(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    post_id = posts.create(conn, ada.ctx, "x", to_lane="ops").post_id
    presence.register(conn, bob.ctx, "ops")
    _show(conn, bob, post_id)
    posts.ack(conn, bob.ctx, [post_id])
    assert _metrics(conn, project) == reports.build_report(conn, project.id).delivery_times == DeliveryStats()


def test_mail_that_a_hook_shows_is_seen(conn: Connection, project: Project, ada: Agent, bob: Agent) -> None:
    session = bob.ctx.with_session("0193-bob")
    sessions.look(conn, session, hooks=True)
    posts.create(conn, ada.ctx, "x", to_actor="bob")
    sessions.look(conn, session, mail=True, announce=False)
    assert _counts(_metrics(conn, project).by_wake) == {"hooks": (1, 0, 0)}
    assert sessions.look(conn, session, mail=True).unshown == 1
    assert _counts(_metrics(conn, project).by_wake) == {"hooks": (1, 1, 0)}


def test_projects_do_not_count_each_others_deliveries(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    other = make_project(conn)
    carol, dave = (make_agent(conn, other, name) for name in ("carol", "dave"))
    for sender, recipient in ((ada, bob), (carol, dave), (carol, dave)):
        post_id = posts.create(conn, sender.ctx, "x", to_actor=recipient.label).post_id
        _show(conn, recipient, post_id)
    assert _counts(_metrics(conn, project).by_wake) == {"none": (1, 1, 0)}
    assert _counts(_metrics(conn, other).by_wake) == {"none": (2, 2, 0)}


def test_a_cached_report_keeps_the_times_of_deliveries(database_url: str) -> None:
    database = Database(database_url, pool_size=1)
    with database.transaction() as conn:
        project = make_project(conn)
        ada, bob = (make_agent(conn, project, name) for name in ("ada", "bob"))
        posts.ack(conn, bob.ctx, [posts.create(conn, ada.ctx, "x", to_actor="bob").post_id])
    with database.connection() as conn:
        built = report_cache.get_report(conn, project.id).report
        assert built is not None
        assert built.delivery_times.by_wake
        assert report_cache.get_report(conn, project.id).report == built
        # As the previous version has stored it.
        conn.execute("UPDATE report SET body = body - 'delivery_times'")
        cached = report_cache.get_report(conn, project.id).report
        assert cached is not None
        assert cached.delivery_times == DeliveryStats()
    database.close()
