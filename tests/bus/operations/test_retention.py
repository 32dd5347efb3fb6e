"""Retention: expired rows are deleted, all others stay."""

import pytest

from bus.coordination import digest, long_poll, posts, sequences, sessions
from bus.db import Connection
from bus.operations import jobs, retention
from bus.tenancy.projects import Project
from tests.factories import Agent


def test_only_expired_rows_are_pruned(conn: Connection, project: Project, ada: Agent) -> None:
    sequences.claim(conn, ada.ctx, "adr", idempotency_key="old")
    conn.execute("UPDATE idempotency SET created_at = clock_timestamp() - interval '3 days'")
    sequences.claim(conn, ada.ctx, "adr", idempotency_key="new")
    long_poll.begin_wait(conn, ada.ctx, "lease", surface="a.py")
    long_poll.begin_wait(conn, ada.ctx, "lease", surface="b.py")
    conn.execute("UPDATE waiter SET alive_until = clock_timestamp() - interval '2 hours' WHERE surface = 'a.py'")
    idle, busy, newest = (jobs.begin_run(conn, "x") for _ in range(3))
    jobs.finish_run(conn, idle, "ok", {"ended": 0})
    jobs.finish_run(conn, busy, "ok", {"ended": 1})
    jobs.finish_run(conn, newest, "ok", {})
    conn.execute("UPDATE job_run SET started_at = clock_timestamp() - interval '2 days'")
    conn.enter_all_projects()
    # A gateway may still write presence of a purged project.
    for table in (
        "presence (project_id, participation_id, last_seen) VALUES (999999, 1, now())",
        "cursor (project_id, participation_id, seq) VALUES (999999, 1, 1)",
        "agent_session (project_id, participation_id, key, started_at, last_seen, ended_at)"
        " VALUES (999999, 1, 'old', now(), now(), now() - interval '31 days')",
        "session_cursor (project_id, participation_id, key, seq) VALUES (999999, 1, 'old', 1), (999999, 1, '', 1)",
        "session_post (project_id, participation_id, key, post_id) VALUES (999999, 1, 'old', 1)",
    ):
        conn.raw.execute(f"INSERT INTO {table}".encode())
    session = ada.ctx.with_session("live")
    digest.read_digest(conn, session)
    post_id = posts.create(conn, session, "x", to_actor="ada").post_id
    sessions.look(conn, session, mail=True)
    conn.enter_all_projects()
    pruned = {kind: retention.prune_batch(conn, kind) for kind in retention.PRUNE_KINDS}
    assert pruned == {
        "idempotency_keys": 1, "waiters": 1, "quiet_runs": 1, "runs": 0, "notices": 0, "lost_presence": 1,
        "lost_cursors": 1, "hours": 0, "days": 0, "sessions": 0, "sign_ups": 0, "login_links": 0,
        "gone_processes": 0, "samples": 0, "ended_sessions": 1, "session_cursors": 1, "lost_session_posts": 1,
        "share_links": 0, "access_tokens": 0, "ended_clients": 0, "oauth_clients": 0, "device_codes": 0,
    }  # fmt: skip
    assert conn.fetch_all("SELECT key FROM session_cursor ORDER BY key") == [("",), ("live",)]
    assert conn.fetch_all("SELECT key, post_id FROM session_post") == [("live", post_id)]
    assert conn.fetch_all("SELECT key FROM idempotency") == [("new",)]
    assert [run.id for run in jobs.list_runs(conn, name="x")] == [newest, busy]
    assert {kind: retention.prune_batch(conn, kind) for kind in retention.PRUNE_KINDS} == dict.fromkeys(
        retention.PRUNE_KINDS, 0
    )


@pytest.mark.parametrize(("hours", "is_kept"), [(23, True), (49, False)])
def test_an_idempotency_key_is_kept_for_at_least_a_day(
    conn: Connection, project: Project, ada: Agent, hours: int, is_kept: bool
) -> None:
    first = sequences.claim(conn, ada.ctx, "adr", idempotency_key="k")
    conn.execute("UPDATE idempotency SET created_at = clock_timestamp() - make_interval(hours => %s)", (hours,))
    assert retention.prune_batch(conn, "idempotency_keys") == (0 if is_kept else 1)
    # A retry after that has the first result, or an effect of its own.
    assert (sequences.claim(conn, ada.ctx, "adr", idempotency_key="k") == first) is is_kept
