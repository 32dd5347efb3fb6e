"""Races of archiving with writes that wait for the project clock: none is written after the archive."""

import threading
from collections.abc import Callable

import pytest

from bus.coordination import leases, posts, presence, sequences, tasks
from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.errors import BusError
from bus.tenancy import invites, participations, projects
from tests.factories import Agent, make_agent, make_project

_WRITES: dict[str, Callable[[Connection, Ctx], object]] = {
    "claim": lambda conn, ctx: sequences.claim(conn, ctx, "adr"),
    "post": lambda conn, ctx: posts.create(conn, ctx, "body", to_lane="web"),
    "lease": lambda conn, ctx: leases.acquire(conn, ctx, "src/a.py"),
    "register": lambda conn, ctx: presence.register(conn, ctx, "web"),
    "task_create": lambda conn, ctx: tasks.create(conn, ctx, "title"),
    "admin_provision": lambda conn, ctx: participations.provision(conn, ctx, "newcomer"),
    "create_invite": lambda conn, ctx: invites.create(conn, ctx),
}


def _count_waiting(conn: Connection) -> int:
    (count,) = conn.fetch_one(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return int(count)


@pytest.mark.parametrize("verb", _WRITES)
def test_a_write_that_waits_for_an_archive_is_refused(db: Database, verb: str) -> None:
    with db.transaction() as conn:
        project = make_project(conn)
        agent: Agent = make_agent(conn, project, is_admin=True)
    refused: list[str] = []

    def write() -> None:
        try:
            with db.transaction() as other:
                _WRITES[verb](other, agent.ctx)
        except BusError as error:
            refused.append(error.code)

    with db.transaction() as conn:
        assert projects.archive(conn, project.id, actor="test")
        thread = threading.Thread(target=write)
        thread.start()
        with db.connection() as watcher:
            # The write was authenticated while the project was open, and now waits for the clock.
            while not _count_waiting(watcher):
                assert thread.is_alive()
    thread.join()
    assert refused == ["forbidden"]
    with db.connection() as conn:
        assert conn.fetch_one("SELECT last_seq FROM project_clock WHERE project_id = %s", (project.id,)) == (0,)
        assert conn.fetch_one("SELECT count(*) FROM sequence WHERE project_id = %s", (project.id,)) == (0,)
    with db.transaction() as conn:
        assert projects.reopen(conn, project.id, actor="test")
    with db.transaction() as conn:
        _WRITES[verb](conn, agent.ctx)


def test_a_renewal_that_waits_for_an_archive_is_refused(db: Database) -> None:
    """Calls that add no event must check the clock too."""
    with db.transaction() as conn:
        project = make_project(conn)
        agent = make_agent(conn, project)
    with db.connection() as conn:
        held = leases.acquire(conn, agent.ctx, "src/a.py")
        presence.register(conn, agent.ctx, "web")
    refused: list[str] = []

    def write(verb: str) -> None:
        try:
            with db.connection() as other:
                _WRITES[verb](other, agent.ctx)
        except BusError as error:
            refused.append(error.code)

    with db.transaction() as conn:
        assert projects.archive(conn, project.id, actor="test")
        threads = [threading.Thread(target=write, args=(verb,)) for verb in ("lease", "register")]
        for thread in threads:
            thread.start()
        with db.connection() as watcher:
            while _count_waiting(watcher) < 2:
                assert any(thread.is_alive() for thread in threads)
    for thread in threads:
        thread.join()
    assert refused == ["forbidden", "forbidden"]
    with db.connection() as conn:
        (expires_at,) = conn.fetch_one("SELECT expires_at FROM lease WHERE project_id = %s", (project.id,))
    assert expires_at == held.expires_at
