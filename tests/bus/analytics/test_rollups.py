"""The rollup: each event once, in its own hour and day, whoever counts and wherever a batch ends."""

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


def _count_all(conn: Connection, project: Project, limit: int = rollups.BATCH_SIZE) -> None:
    while rollups.roll_up_batch(conn, project.id, limit=limit) >= limit:
        pass


def _tallies(conn: Connection, project: Project, figure: str, grain: str = "day") -> dict[tuple[str, str], int]:
    """Of all time: by key and other."""
    return {
        (key, other): int(n)
        for key, other, n in conn.fetch_all(
            "SELECT key, other, sum(n) FROM tally WHERE project_id = %s AND grain = %s AND figure = %s GROUP BY 1, 2",
            (project.id, grain, figure),
        )
    }


def _whole(conn: Connection, project: Project) -> list[tuple[object, ...]]:
    return conn.fetch_all(
        "SELECT grain, figure, start, key, other, n FROM tally WHERE project_id = %s ORDER BY 1, 2, 3, 4, 5",
        (project.id,),
    )


def test_what_happens_is_counted_by_hour_and_by_day(
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
    ada_, bob_ = ada.actor, bob.actor
    for grain in ("hour", "day"):
        found = {figure: _tallies(conn, project, figure, grain) for figure in ("events", "anchored", "leases")}
        assert found["events"] == {("ack", ""): 4, ("lease", ""): 2, ("post", ""): 3}
        assert found["anchored"] == {("", ""): 1}
        assert found["leases"] == {("src", ""): 1, ("src/a.py", ""): 1}
        assert _tallies(conn, project, "contended", grain) == {("src/a.py", ""): 1}
        assert _tallies(conn, project, "to_lane", grain) == {(ada_, "core"): 1, (bob_, "core"): 1}
        assert _tallies(conn, project, "to_actor", grain) == {(ada_, bob_): 1, (bob_, ada_): 1}
        # Three were sent; one was acked by others, twice; one by its sender alone, which confirms nothing.
        assert sum(_tallies(conn, project, "waits", grain).values()) == 1


def test_an_ack_after_days_stands_where_its_post_was_written(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
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
    shown = project_metrics.get_project_metrics(conn, project.id, PERIODS["7d"])
    place = shown.bin_starts.index(hour.replace(hour=0))
    assert (shown.post_stats_by_bin[place].acked, shown.post_stats_by_bin[place].median_ack_seconds) == (1, 259_000.0)
    assert shown.post_stats_by_bin[-1].acked == 0


def test_a_post_is_acked_once_wherever_a_batch_ends(
    conn: Connection, project: Project, ada: Agent, bob: Agent, root: Agent
) -> None:
    """All acks bear one time, since the clock of the database was set back: the order of their numbers decides."""
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
    at_once = _whole(conn, project)
    assert _tallies(conn, project, "waits") == {("0", ""): 3}
    for limit in range(1, events):
        conn.raw.execute("DELETE FROM tally")
        conn.raw.execute("DELETE FROM tally_mark")
        _count_all(conn, project, limit)
        assert _whole(conn, project) == at_once, limit


def test_an_ack_is_counted_once_though_it_comes_between_two_batches(
    conn: Connection, project: Project, ada: Agent, bob: Agent, root: Agent
) -> None:
    """The sender's own ack is counted before the real one of the same moment is there."""
    conn.execute(
        "UPDATE project_clock SET last_at = date_trunc('milliseconds', clock_timestamp()) + interval '10 minutes'"
        " WHERE project_id = %s",
        (project.id,),
    )
    post = posts.create(conn, ada.ctx, "x", to_actor="bob").post_id
    for agent, waits in ((ada, 0), (bob, 1), (root, 1)):
        posts.ack(conn, agent.ctx, [post])
        _count_all(conn, project)
        assert sum(_tallies(conn, project, "waits").values()) == waits


def test_of_very_many_names_the_first_are_named_and_the_others_are_others(
    conn: Connection, project: Project, ada: Agent, bob: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups, "NAMED", 3)
    for name in ("a", "b", "b", "c", "d", "d", "e"):
        leases.acquire(conn, ada.ctx, name)
        leases.release(conn, ada.ctx, name)
    _count_all(conn, project)
    # In one batch those with the most come first, then by name.
    assert _tallies(conn, project, "leases") == {("a", ""): 1, ("b", ""): 2, ("d", ""): 2, ("", ""): 2}
    for name in ("a", "c", "f"):
        leases.acquire(conn, bob.ctx, name)
    for lane in ("l1", "l2", "l3", "l4"):
        posts.create(conn, ada.ctx, "x", to_lane=lane)
    _count_all(conn, project)
    assert _tallies(conn, project, "leases") == {("a", ""): 2, ("b", ""): 2, ("d", ""): 2, ("", ""): 4}
    assert _tallies(conn, project, "to_lane")["", ""] == 1
    shown = project_metrics.get_project_metrics(conn, project.id, PERIODS["24h"])
    assert [one.surface for one in shown.lease_stats.top_surfaces] == ["a", "b", "d"]
    assert (shown.lease_stats.leases, shown.lease_stats.other_surfaces.leases) == (10, 4)
    assert shown.message_matrix.senders == (ada.actor, "")
    assert sum(shown.message_matrix.counts.values()) == 4


def test_pictures_name_the_busiest_and_put_the_others_together(
    conn: Connection, project: Project, ada: Agent, bob: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project_metrics, "SURFACES", 2)
    monkeypatch.setattr(project_metrics, "PEOPLE", 2)
    carol = make_agent(conn, project, "carol")
    for agent, many in ((ada, 3), (bob, 2), (carol, 1)):
        for lane in range(3):
            for _ in range(many + (lane == 2)):
                posts.create(conn, agent.ctx, "x", to_lane=f"lane-{lane}")
        for name in range(many):
            leases.acquire(conn, agent.ctx, f"f{name}")
    _count_all(conn, project)
    shown = project_metrics.get_project_metrics(conn, project.id, PERIODS["30d"])
    assert [(one.surface, one.leases, one.contended) for one in shown.lease_stats.top_surfaces] == [
        ("f0", 3, 2),
        ("f1", 2, 1),
    ]
    assert (shown.lease_stats.other_surfaces.leases, shown.lease_stats.other_surfaces.contended) == (1, 0)
    assert shown.message_matrix.senders == (ada.actor, bob.actor, "")
    assert [one.name for one in shown.message_matrix.recipients] == ["lane-2", "lane-0", ""]
    assert [[shown.message_matrix.counts.get((row, column), 0) for column in range(3)] for row in range(3)] == [
        [4, 3, 3],
        [3, 2, 2],
        [2, 1, 1],
    ]


def test_projects_are_counted_apart(conn: Connection, project: Project, ada: Agent) -> None:
    other = make_project(conn)
    sequences.claim(conn, make_agent(conn, other).ctx, "adr")
    for _ in range(2):
        sequences.claim(conn, ada.ctx, "adr")
    for one in (project, other):
        rollups.roll_up_batch(conn, one.id)
    assert [
        project_metrics.get_project_metrics(conn, one.id, PERIODS["24h"]).event_activity.event_count
        for one in (project, other)
    ] == [2, 1]


def test_an_archived_project_has_its_pictures(conn: Connection, project: Project, ada: Agent) -> None:
    sequences.claim(conn, ada.ctx, "adr")
    projects.archive(conn, project.id, actor="test")
    waiting = rollups.get_progress(conn, project.id)
    (event,) = ledger.query_events(conn, ada.ctx).events
    assert (waiting.watermark, waiting.pending_events, waiting.oldest_pending_at) == (0, 1, event.ts)
    rollups.roll_up_batch(conn, project.id)
    shown = project_metrics.get_project_metrics(conn, project.id, PERIODS["24h"])
    assert shown.event_activity.counts_by_type == {"claim": 1}
    assert shown.rollup_progress == rollups.RollupProgress(1, 0, None)


def test_a_project_that_goes_takes_its_counts_along_and_is_not_counted_again(
    conn: Connection, project: Project, ada: Agent
) -> None:
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


def test_old_hours_and_days_go_and_are_not_written_again(conn: Connection, project: Project, ada: Agent) -> None:
    now = datetime.now(UTC)
    sequences.claim(conn, ada.ctx, "adr")
    rollups.roll_up_batch(conn, project.id)
    kept = _whole(conn, project)
    for days in (1, 7, 9, 99, 101):
        for grain in ("hour", "day"):
            conn.execute(
                "INSERT INTO tally (project_id, grain, figure, start, key, n) VALUES (%s, %s, 'events', %s, 'old', 1)",
                (project.id, grain, now - timedelta(days=days)),
            )
    assert (retention.prune_batch(conn, "hours"), retention.prune_batch(conn, "days")) == (3, 1)
    left = conn.fetch_all("SELECT grain, count(*) FROM tally WHERE key = 'old' GROUP BY 1 ORDER BY 1")
    assert left == [("day", 4), ("hour", 2)]
    # A ledger that nobody has counted yet is counted whole, and only what is kept is written.
    conn.raw.execute("DELETE FROM tally")
    conn.raw.execute("DELETE FROM tally_mark")
    post = posts.create(conn, ada.ctx, "x", to_lane="core").post_id
    conn.execute("UPDATE post SET created_at = now() - interval '50 days' WHERE id = %s", (post,))
    posts.ack(conn, make_agent(conn, project).ctx, [post])
    _count_all(conn, project)
    waits = conn.fetch_all("SELECT grain, n FROM tally WHERE project_id = %s AND figure = 'waits'", (project.id,))
    assert waits == [("day", 1)]
    assert {row[:5] for row in kept} <= {row[:5] for row in _whole(conn, project)}


def test_each_event_is_counted_once_by_many_workers_beside_writers(db: Database) -> None:
    """Writers commit late and roll back; counters roll back after they counted, as if they had been killed."""
    with db.transaction() as conn:
        project = make_project(conn)
        agents = [make_agent(conn, project) for _ in range(4)]
    stop = threading.Event()
    failures: list[BaseException] = []
    batches = [0] * 3

    def write(number: int) -> None:
        chance = random.Random(number)
        agent = agents[number]
        for _ in range(40):
            try:
                with db.transaction() as conn:
                    found = posts.list_posts(conn, agent.ctx, limit=3).posts
                    if not found or chance.random() < 0.5:
                        mate = agents[chance.randrange(4)].label
                        posts.create(conn, agent.ctx, "x", to_actor=mate, ref="PR 1" if chance.random() < 0.3 else None)
                    else:
                        posts.ack(conn, agent.ctx, [one.post_id for one in found])
                    if chance.random() < 0.1:
                        raise _Killed
            except _Killed:
                continue
            except BaseException as failure:  # noqa: BLE001
                failures.append(failure)
                return

    def count(number: int) -> None:
        chance = random.Random(100 + number)
        while not stop.is_set():
            try:
                with db.transaction() as conn:
                    done = rollups.roll_up_batch(conn, project.id, limit=5)
                    if done and chance.random() < 0.3:
                        raise _Killed
                    batches[number] += done > 0
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
        _count_all(conn, project)
        found = _whole(conn, project)
        assert _tallies(conn, project, "events") == {
            (kind, ""): n
            for kind, n in conn.fetch_all(
                "SELECT type, count(*) FROM event WHERE project_id = %s GROUP BY 1", (project.id,)
            )
        }
        acked = conn.fetch_one("SELECT count(acked_at) FROM post WHERE project_id = %s", (project.id,))
        assert (sum(_tallies(conn, project, "waits").values()),) == acked
        assert acked[0] > 10
        # One worker that counts all of it at once comes to the same.
        conn.raw.execute("DELETE FROM tally")
        conn.raw.execute("DELETE FROM tally_mark")
        _count_all(conn, project)
        assert _whole(conn, project) == found


class _Killed(Exception):
    pass
