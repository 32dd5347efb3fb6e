"""Rollups: each event counts once, in its own hour and day, with any number of workers and any batch size."""

import random
import threading
from datetime import UTC, datetime, timedelta

import pytest

from bus.analytics import project_metrics, rollups
from bus.analytics.project_metrics import PERIODS
from bus.coordination import leases, ledger, posts, sequences
from bus.db import Connection, Database
from bus.operations import project_purge, retention
from bus.tables import COORDINATION_TABLES
from bus.tenancy import projects
from bus.tenancy.projects import Project
from tests.factories import Agent, make_agent, make_project


def _roll_up_all(conn: Connection, project: Project, limit: int = rollups.BATCH_SIZE) -> None:
    while rollups.roll_up_batch(conn, project.id, limit=limit) >= limit:
        pass


def _counts(conn: Connection, project: Project, metric: str, granularity: str = "day") -> dict[tuple[str, str], int]:
    """Return the totals over all time, by key and other."""
    return {
        (key, other): int(n)
        for key, other, n in conn.fetch_all(
            "SELECT key, other, sum(n) FROM tally WHERE project_id = %s AND grain = %s AND figure = %s GROUP BY 1, 2",
            (project.id, granularity, metric),
        )
    }


def _all_rows(conn: Connection, project: Project) -> list[tuple[object, ...]]:
    return conn.fetch_all(
        "SELECT grain, figure, start, key, other, n FROM tally WHERE project_id = %s ORDER BY 1, 2, 3, 4, 5",
        (project.id,),
    )


def _forget_rollups(conn: Connection, project: Project) -> None:
    """Let the next batches count everything again, also what was shown."""
    conn.raw.execute("DELETE FROM tally")
    conn.raw.execute("DELETE FROM tally_mark")
    conn.execute(
        "INSERT INTO seen_delivery SELECT project_id, participation_id, post_id FROM delivery"
        " WHERE project_id = %s AND surfaced_at IS NOT NULL",
        (project.id,),
    )


def test_events_are_counted_by_hour_and_by_day(
    conn: Connection, project: Project, ada: Agent, bob: Agent, root: Agent
) -> None:
    sent = [
        posts.create(conn, ada.ctx, "x", to_actor="bob", ref="PR 1").post_id,
        posts.create(conn, ada.ctx, "x", to_lane="core").post_id,
        posts.create(conn, bob.ctx, "x", to_lane="core", to_actor="ada").post_id,
    ]
    posts.ack(conn, ada.ctx, sent[:2])
    posts.ack(conn, bob.ctx, sent[:1])
    posts.ack(conn, root.ctx, sent[:1])
    leases.acquire(conn, ada.ctx, "src")
    leases.acquire(conn, bob.ctx, "src/a.py")
    assert rollups.list_projects_behind(conn) == [project.id]
    assert rollups.get_progress(conn, project.id).pending_events == 9
    assert rollups.roll_up_batch(conn, project.id) == 9
    assert rollups.list_projects_behind(conn) == []
    assert rollups.roll_up_batch(conn, project.id) == 0
    for granularity in ("hour", "day"):
        counts = {metric: _counts(conn, project, metric, granularity) for metric in ("events", "anchored", "leases")}
        assert counts["events"] == {("ack", ""): 4, ("lease", ""): 2, ("post", ""): 3}
        assert counts["anchored"] == {("", ""): 1}
        assert counts["leases"] == {("src", ""): 1, ("src/a.py", ""): 1}
        assert _counts(conn, project, "contended", granularity) == {("src/a.py", ""): 1}
        assert _counts(conn, project, "to_lane", granularity) == {(ada.actor, "core"): 1, (bob.actor, "core"): 1}
        assert _counts(conn, project, "to_actor", granularity) == {(ada.actor, bob.actor): 1, (bob.actor, ada.actor): 1}
        # Of three posts one was acked by two others, and one only by its sender, which does not count.
        assert sum(_counts(conn, project, "waits", granularity).values()) == 1


def test_a_late_ack_counts_in_the_hour_of_its_post(conn: Connection, project: Project, ada: Agent, bob: Agent) -> None:
    post = posts.create(conn, ada.ctx, "x", to_actor="bob").post_id
    assert rollups.roll_up_batch(conn, project.id) == 1
    (at,) = conn.fetch_one(
        "UPDATE post SET created_at = created_at - interval '3 days' WHERE project_id = %s AND id = %s"
        " RETURNING created_at",
        (project.id, post),
    )
    posts.ack(conn, bob.ctx, [post])
    assert rollups.roll_up_batch(conn, project.id) == 1
    rows = conn.fetch_all("SELECT grain, start, key, n FROM tally WHERE figure = 'waits' ORDER BY grain")
    hour = at.replace(minute=0, second=0, microsecond=0)
    assert rows == [("day", hour.replace(hour=0), "259000", 1), ("hour", hour, "259000", 1)]
    metrics = project_metrics.get_project_metrics(conn, project.id, PERIODS["7d"])
    index = metrics.bin_starts.index(hour.replace(hour=0))
    assert (metrics.post_stats_by_bin[index].acked, metrics.post_stats_by_bin[index].median_ack_seconds) == (
        1,
        259_000.0,
    )
    assert metrics.post_stats_by_bin[-1].acked == 0


def test_a_post_counts_as_acked_once_for_every_batch_size(
    conn: Connection, project: Project, ada: Agent, bob: Agent, root: Agent
) -> None:
    """All acks have the same time, as after the database clock was set back: the order of their numbers decides."""
    conn.execute(
        "UPDATE project_clock SET last_at = date_trunc('milliseconds', clock_timestamp()) + interval '10 minutes'"
        " WHERE project_id = %s",
        (project.id,),
    )
    handed = posts.create(conn, ada.ctx, "x", to_actor="bob").post_id
    lane = posts.create(conn, ada.ctx, "x", to_lane="core").post_id
    own = posts.create(conn, ada.ctx, "a note", to_actor="ada").post_id
    for agent, acked in (
        (ada, [handed]),
        (bob, [handed, lane]),
        (root, [lane, handed]),
        (ada, [own, lane]),
        (bob, [own]),
    ):
        posts.ack(conn, agent.ctx, acked)
    (times,) = conn.fetch_one("SELECT count(DISTINCT at) FROM event WHERE project_id = %s", (project.id,))
    assert times == 1
    events = rollups.roll_up_batch(conn, project.id)
    at_once = _all_rows(conn, project)
    assert _counts(conn, project, "waits") == {("0", ""): 3}
    for limit in range(1, events):
        _forget_rollups(conn, project)
        _roll_up_all(conn, project, limit)
        assert _all_rows(conn, project) == at_once, limit


def test_acks_of_the_same_time_in_different_batches_count_once(
    conn: Connection, project: Project, ada: Agent, bob: Agent, root: Agent
) -> None:
    """The sender's own ack is processed before another participant's ack of the same time is written."""
    conn.execute(
        "UPDATE project_clock SET last_at = date_trunc('milliseconds', clock_timestamp()) + interval '10 minutes'"
        " WHERE project_id = %s",
        (project.id,),
    )
    post = posts.create(conn, ada.ctx, "x", to_actor="bob").post_id
    for agent, waits in ((ada, 0), (bob, 1), (root, 1)):
        posts.ack(conn, agent.ctx, [post])
        _roll_up_all(conn, project)
        assert sum(_counts(conn, project, "waits").values()) == waits


def test_names_beyond_the_top_n_are_combined(
    conn: Connection, project: Project, ada: Agent, bob: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups, "TOP_N", 3)
    for name in ("a", "b", "b", "c", "d", "d", "e"):
        leases.acquire(conn, ada.ctx, name)
        leases.release(conn, ada.ctx, name)
    _roll_up_all(conn, project)
    # Within one batch the highest counts come first, then the names.
    assert _counts(conn, project, "leases") == {("a", ""): 1, ("b", ""): 2, ("d", ""): 2, ("", ""): 2}
    for name in ("a", "c", "f"):
        leases.acquire(conn, bob.ctx, name)
    for lane in ("l1", "l2", "l3", "l4"):
        posts.create(conn, ada.ctx, "x", to_lane=lane)
    _roll_up_all(conn, project)
    assert _counts(conn, project, "leases") == {("a", ""): 2, ("b", ""): 2, ("d", ""): 2, ("", ""): 4}
    assert _counts(conn, project, "to_lane")["", ""] == 1
    metrics = project_metrics.get_project_metrics(conn, project.id, PERIODS["24h"])
    assert [stats.surface for stats in metrics.lease_stats.top_surfaces] == ["a", "b", "d"]
    assert (metrics.lease_stats.leases, metrics.lease_stats.other_surfaces.leases) == (10, 4)
    assert metrics.message_matrix.senders == (ada.actor, "")
    assert sum(metrics.message_matrix.counts.values()) == 4


def test_metrics_list_the_highest_counts_and_combine_the_others(
    conn: Connection, project: Project, ada: Agent, bob: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project_metrics, "MAX_SURFACES", 2)
    monkeypatch.setattr(project_metrics, "MAX_PARTICIPANTS", 2)
    carol = make_agent(conn, project, "carol")
    for agent, count in ((ada, 3), (bob, 2), (carol, 1)):
        for lane in range(3):
            for _ in range(count + (lane == 2)):
                posts.create(conn, agent.ctx, "x", to_lane=f"lane-{lane}")
        for name in range(count):
            leases.acquire(conn, agent.ctx, f"f{name}")
    _roll_up_all(conn, project)
    metrics = project_metrics.get_project_metrics(conn, project.id, PERIODS["30d"])
    assert [(stats.surface, stats.leases, stats.contended) for stats in metrics.lease_stats.top_surfaces] == [
        ("f0", 3, 2),
        ("f1", 2, 1),
    ]
    assert (metrics.lease_stats.other_surfaces.leases, metrics.lease_stats.other_surfaces.contended) == (1, 0)
    assert metrics.message_matrix.senders == (ada.actor, bob.actor, "")
    assert [recipient.name for recipient in metrics.message_matrix.recipients] == ["lane-2", "lane-0", ""]
    assert [[metrics.message_matrix.counts.get((row, column), 0) for column in range(3)] for row in range(3)] == [
        [4, 3, 3],
        [3, 2, 2],
        [2, 1, 1],
    ]


def test_projects_are_counted_separately(conn: Connection, project: Project, ada: Agent) -> None:
    other = make_project(conn)
    sequences.claim(conn, make_agent(conn, other).ctx, "adr")
    for _ in range(2):
        sequences.claim(conn, ada.ctx, "adr")
    for counted in (project, other):
        rollups.roll_up_batch(conn, counted.id)
    assert [
        project_metrics.get_project_metrics(conn, counted.id, PERIODS["24h"]).event_activity.event_count
        for counted in (project, other)
    ] == [2, 1]


def test_an_archived_project_is_counted(conn: Connection, project: Project, ada: Agent) -> None:
    sequences.claim(conn, ada.ctx, "adr")
    projects.archive(conn, project.id, actor="test")
    progress = rollups.get_progress(conn, project.id)
    (event,) = ledger.query_events(conn, ada.ctx).events
    assert (progress.watermark, progress.pending_events, progress.oldest_pending_at) == (0, 1, event.ts)
    rollups.roll_up_batch(conn, project.id)
    metrics = project_metrics.get_project_metrics(conn, project.id, PERIODS["24h"])
    assert metrics.event_activity.counts_by_type == {"claim": 1}
    assert metrics.rollup_progress == rollups.RollupProgress(1, 0, None)


def test_a_purge_deletes_the_counts_and_stops_the_rollup(conn: Connection, project: Project, ada: Agent) -> None:
    for _ in range(2):
        sequences.claim(conn, ada.ctx, "adr")
    rollups.roll_up_batch(conn, project.id, limit=1)
    conn.execute("INSERT INTO report (project_id) VALUES (%s)", (project.id,))
    project_purge.begin_purge(conn, project.id, actor="test")
    assert rollups.roll_up_batch(conn, project.id) == 0
    while not project_purge.purge_step(conn, project.id):
        assert rollups.roll_up_batch(conn, project.id) == 0
    for table in COORDINATION_TABLES:
        assert conn.fetch_one(f"SELECT count(*) FROM {table.name} WHERE project_id = %s", (project.id,)) == (0,), (
            table.name
        )


def test_expired_hours_and_days_are_pruned_and_stay_away(conn: Connection, project: Project, ada: Agent) -> None:
    now = datetime.now(UTC)
    sequences.claim(conn, ada.ctx, "adr")
    rollups.roll_up_batch(conn, project.id)
    kept = _all_rows(conn, project)
    for days in (1, 7, 9, 99, 101):
        for granularity in ("hour", "day"):
            conn.execute(
                "INSERT INTO tally (project_id, grain, figure, start, key, n) VALUES (%s, %s, 'events', %s, 'old', 1)",
                (project.id, granularity, now - timedelta(days=days)),
            )
    assert (retention.prune_batch(conn, "hours"), retention.prune_batch(conn, "days")) == (3, 1)
    left = conn.fetch_all("SELECT grain, count(*) FROM tally WHERE key = 'old' GROUP BY 1 ORDER BY 1")
    assert left == [("day", 4), ("hour", 2)]
    # An uncounted ledger is counted completely, but only hours and days within the retention are written.
    conn.raw.execute("DELETE FROM tally")
    conn.raw.execute("DELETE FROM tally_mark")
    post = posts.create(conn, ada.ctx, "x", to_lane="core").post_id
    conn.execute("UPDATE post SET created_at = now() - interval '50 days' WHERE id = %s", (post,))
    posts.ack(conn, make_agent(conn, project).ctx, [post])
    _roll_up_all(conn, project)
    waits = conn.fetch_all("SELECT grain, n FROM tally WHERE project_id = %s AND figure = 'waits'", (project.id,))
    assert waits == [("day", 1)]
    assert {row[:5] for row in kept} <= {row[:5] for row in _all_rows(conn, project)}


def test_concurrent_workers_count_each_event_once_beside_writers(db: Database) -> None:
    """Writers commit late or roll back; workers roll back after counting, as if they were killed."""
    with db.transaction() as conn:
        project = make_project(conn)
        agents = [make_agent(conn, project) for _ in range(4)]
    stop = threading.Event()
    failures: list[BaseException] = []
    batches = [0] * 3

    def write(number: int) -> None:
        randomness = random.Random(number)
        agent = agents[number]
        for _ in range(40):
            try:
                with db.transaction() as conn:
                    newest = posts.list_posts(conn, agent.ctx, limit=3).posts
                    if not newest or randomness.random() < 0.5:
                        recipient = agents[randomness.randrange(4)].label
                        posts.create(
                            conn, agent.ctx, "x", to_actor=recipient, ref="PR 1" if randomness.random() < 0.3 else None
                        )
                    else:
                        posts.ack(conn, agent.ctx, [post.post_id for post in newest])
                    if randomness.random() < 0.1:
                        raise _Killed
            except _Killed:
                continue
            except BaseException as failure:  # noqa: BLE001
                failures.append(failure)
                return

    def count(number: int) -> None:
        randomness = random.Random(100 + number)
        while not stop.is_set():
            try:
                with db.transaction() as conn:
                    counted = rollups.roll_up_batch(conn, project.id, limit=5)
                    if counted and randomness.random() < 0.3:
                        raise _Killed
                    batches[number] += counted > 0
            except _Killed:
                continue
            except BaseException as failure:  # noqa: BLE001
                failures.append(failure)
                return

    counting = [threading.Thread(target=count, args=(number,)) for number in range(3)]
    writing = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in (*counting, *writing):
        thread.start()
    for thread in writing:
        thread.join()
    stop.set()
    for thread in counting:
        thread.join()
    assert failures == []
    assert min(batches) > 0
    with db.transaction() as conn:
        _roll_up_all(conn, project)
        rows = _all_rows(conn, project)
        assert _counts(conn, project, "events") == {
            (kind, ""): n
            for kind, n in conn.fetch_all(
                "SELECT type, count(*) FROM event WHERE project_id = %s GROUP BY 1", (project.id,)
            )
        }
        acked = conn.fetch_one("SELECT count(acked_at) FROM post WHERE project_id = %s", (project.id,))
        assert (sum(_counts(conn, project, "waits").values()),) == acked
        assert acked[0] > 10
        # A single worker gets the same result.
        _forget_rollups(conn, project)
        _roll_up_all(conn, project)
        assert _all_rows(conn, project) == rows


class _Killed(Exception):
    pass
