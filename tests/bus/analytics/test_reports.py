"""Project reports, compared with values computed by hand for small ledgers."""

from datetime import datetime, timedelta

import pytest

from bus.analytics import reports
from bus.analytics.reports import EventTypeShare
from bus.coordination import leases, posts, presence, sequences, surfacing, tasks
from bus.db import Connection
from bus.errors import BusError
from bus.tenancy import projects
from bus.tenancy.projects import Project
from tests import factories
from tests.factories import Agent


def test_an_empty_project_has_a_report_without_shares(conn: Connection, project: Project) -> None:
    report = reports.build_report(conn, project.id)
    assert report.projects == (f"{project.owner}/{project.name}",)
    assert (report.agents, report.events, report.mix, report.claimed) == (0, 0, (), {})
    assert (report.handoffs, report.leases, report.collisions, report.claims, report.tasks_shipped) == (0,) * 5
    assert report.handoff_and_ack_share is report.acked_share is report.anchored_share is None
    assert report.ack_median_seconds is report.ack_p90_seconds is None
    assert report.first_event_at is report.last_event_at is None


def test_a_project_that_does_not_exist_has_no_report(conn: Connection) -> None:
    with pytest.raises(BusError) as caught:
        reports.build_report(conn, 2**40)
    assert caught.value.code == "not_found"


def test_a_project_without_posts_has_no_share_of_acked_posts(conn: Connection, ada: Agent) -> None:
    sequences.claim(conn, ada.ctx, "adr")
    report = reports.build_report(conn, ada.ctx.project_id)
    assert (report.events, report.claims, report.handoff_and_ack_share) == (1, 1, 0.0)
    assert report.acked_share is report.anchored_share is report.ack_median_seconds is None
    assert report.first_event_at == report.last_event_at is not None


def test_the_mix_counts_every_type_most_frequent_first(conn: Connection, ada: Agent, bob: Agent) -> None:
    for _ in range(3):
        sequences.claim(conn, ada.ctx, "migration")
    sequences.claim(conn, bob.ctx, "adr")
    sequences.claim(conn, bob.ctx, "adr")
    first = posts.create(conn, ada.ctx, "hello", to_actor="bob").post_id
    posts.create(conn, ada.ctx, "hello again", to_actor="bob")
    posts.ack(conn, bob.ctx, [first])
    report = reports.build_report(conn, ada.ctx.project_id)
    assert report.mix == (
        EventTypeShare("claim", 5, 5 / 8),
        EventTypeShare("post", 2, 2 / 8),
        EventTypeShare("ack", 1, 1 / 8),
    )
    assert report.handoff_and_ack_share == 3 / 8
    assert list(report.claimed.items()) == [("migration", 3), ("adr", 2)]
    assert report.agents == 2


def test_only_acks_by_other_participants_count(conn: Connection, ada: Agent, bob: Agent, root: Agent) -> None:
    sent = [
        posts.create(conn, ada.ctx, "hello", to_actor="bob", ref=ref).post_id for ref in ("PR-1", "PR-2", None, "PR-4")
    ]
    posts.ack(conn, ada.ctx, [sent[0]])
    posts.ack(conn, bob.ctx, [sent[1]])
    posts.ack(conn, root.ctx, [sent[1], sent[2]])
    report = reports.build_report(conn, ada.ctx.project_id)
    assert (report.handoffs, report.acked, report.acked_share) == (4, 2, 0.5)
    assert (report.anchored, report.anchored_share) == (3, 0.75)


def test_the_time_to_ack_is_from_the_post_to_its_first_ack_by_another(conn: Connection, ada: Agent, bob: Agent) -> None:
    ack_seconds = (0.25, 2.0, 4.0, 30.0, 250.0)
    for seconds in ack_seconds:
        post = posts.create(conn, ada.ctx, "hello", to_actor="bob").post_id
        posts.ack(conn, bob.ctx, [post])
        _set_ack_time(conn, ada.ctx.project_id, post, seconds)
    posts.create(conn, ada.ctx, "never acked", to_actor="bob")
    report = reports.build_report(conn, ada.ctx.project_id)
    # The median of five values is the third; the 90th percentile is at 0.6 between the fourth and the fifth.
    assert report.ack_median_seconds == 4.0
    assert report.ack_p90_seconds == pytest.approx(30.0 + 0.6 * 220.0)


def test_the_time_to_surface_is_from_the_post_until_each_recipient_first_sees_it(
    conn: Connection, ada: Agent, bob: Agent
) -> None:
    for seconds in (1.0, 3.0, 5.0):
        post = posts.create(conn, ada.ctx, "hello", to_actor="bob").post_id
        surfacing.mark_surfaced(conn, {(bob.ctx.project_id, bob.ctx.participation_id, post): 0.0})
        conn.execute(
            "UPDATE delivery d SET surfaced_at = o.created_at + make_interval(secs => %s) FROM post o"
            " WHERE o.project_id = d.project_id AND o.id = d.post_id AND o.id = %s AND o.project_id = %s",
            (seconds, post, ada.ctx.project_id),
        )
    posts.create(conn, ada.ctx, "never shown", to_actor="bob")
    report = reports.build_report(conn, ada.ctx.project_id)
    assert report.surface_median_seconds == 3.0
    assert report.surface_p90_seconds == pytest.approx(4.6)


def test_leases_that_overlap_another_are_collisions(conn: Connection, ada: Agent, bob: Agent) -> None:
    leases.acquire(conn, ada.ctx, "src/api")
    leases.acquire(conn, ada.ctx, "src/api")
    leases.acquire(conn, bob.ctx, "docs")
    leases.acquire(conn, bob.ctx, "src/api/app.py", ttl=timedelta(minutes=5))
    leases.release(conn, ada.ctx, "*")
    leases.acquire(conn, bob.ctx, "src")
    report = reports.build_report(conn, ada.ctx.project_id)
    # A renewal is no new lease; bob's last lease overlapped none.
    assert (report.leases, report.collisions) == (4, 1)


def test_shipped_tasks_are_counted(conn: Connection, ada: Agent) -> None:
    for _ in range(3):
        task = tasks.create(conn, ada.ctx, "a task").task_id
        tasks.start(conn, ada.ctx, task)
    tasks.ship(conn, ada.ctx, task)
    assert reports.build_report(conn, ada.ctx.project_id).tasks_shipped == 1


def test_only_participants_with_events_count_as_agents(conn: Connection, ada: Agent, bob: Agent, root: Agent) -> None:
    presence.register(conn, ada.ctx, "core")
    presence.register(conn, bob.ctx, "core")
    assert reports.build_report(conn, ada.ctx.project_id).agents == 2


def test_a_combined_report_counts_several_projects_as_one(conn: Connection) -> None:
    owner = factories.make_owner(conn)
    both = [factories.make_project(conn, owner=owner) for _ in range(2)]
    ack_seconds = [(1.0, 2.0, 3.0), (100.0,)]
    for project, delays in zip(both, ack_seconds, strict=True):
        sender = factories.make_agent(conn, project, "everywhere")
        reader = factories.make_agent(conn, project)
        sequences.claim(conn, sender.ctx, "adr")
        for seconds in delays:
            post = posts.create(conn, sender.ctx, "hello", to_actor=reader.label, ref="PR-1").post_id
            posts.ack(conn, reader.ctx, [post])
            _set_ack_time(conn, project.id, post, seconds)
    whole = reports.build_combined_report(conn, [project.id for project in both])
    parts = [reports.build_report(conn, project.id) for project in both]
    assert whole.projects == tuple(f"{owner.handle}/{project.name}" for project in both)
    assert (whole.events, whole.handoffs, whole.claims) == (10, 4, 2)
    assert whole.claimed == {"adr": 2}
    # One agent works in both projects.
    assert (whole.agents, [part.agents for part in parts]) == (3, [2, 2])
    assert (whole.ack_median_seconds, [part.ack_median_seconds for part in parts]) == (2.5, [2.0, 100.0])
    assert whole.first_event_at == parts[0].first_event_at
    assert whole.last_event_at == parts[1].last_event_at


def test_other_projects_do_not_count(conn: Connection, ada: Agent) -> None:
    elsewhere = factories.make_agent(conn)
    sequences.claim(conn, elsewhere.ctx, "adr")
    sequences.claim(conn, ada.ctx, "adr")
    report = reports.build_report(conn, ada.ctx.project_id)
    assert (report.events, report.agents, report.claimed) == (1, 1, {"adr": 1})


def test_an_archived_project_is_still_reported(conn: Connection, ada: Agent) -> None:
    sequences.claim(conn, ada.ctx, "adr")
    projects.archive(conn, ada.ctx.project_id, actor="test")
    assert reports.build_report(conn, ada.ctx.project_id).events == 1


def test_a_long_ledger_is_read_in_windows(
    conn: Connection, ada: Agent, bob: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        sequences.claim(conn, ada.ctx, f"sequence-{number % 2}")
        post = posts.create(conn, ada.ctx, "hello", to_actor="bob", ref="PR-1" if number % 2 else None).post_id
        posts.ack(conn, bob.ctx, [post])
        _set_ack_time(conn, ada.ctx.project_id, post, float(number))
    at_once = reports.build_report(conn, ada.ctx.project_id)
    for window in (1, 2, 5, 20, 21):
        monkeypatch.setattr(reports, "_WINDOW_SIZE", window)
        assert reports.build_report(conn, ada.ctx.project_id) == at_once
    assert (at_once.events, at_once.acked, at_once.anchored, at_once.claims) == (21, 7, 3, 7)
    assert at_once.ack_median_seconds == 3.0


def test_only_the_sequences_with_the_most_claims_are_listed(
    conn: Connection, ada: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "MAX_SEQUENCES", 2)
    for name in ("a", "b", "b", "c", "c", "c"):
        sequences.claim(conn, ada.ctx, name)
    report = reports.build_report(conn, ada.ctx.project_id)
    assert list(report.claimed.items()) == [("c", 3), ("b", 2)]
    assert report.claims == 6


def _set_ack_time(conn: Connection, project_id: int, post: int, seconds: float) -> None:
    """Set the time from a post to its ack, instead of sleeping for minutes."""
    (at,) = conn.fetch_one("SELECT created_at FROM post WHERE project_id = %s AND id = %s", (project_id, post))
    assert isinstance(at, datetime)
    conn.execute(
        "UPDATE post SET acked_at = %s WHERE project_id = %s AND id = %s",
        (at + timedelta(seconds=seconds), project_id, post),
    )
