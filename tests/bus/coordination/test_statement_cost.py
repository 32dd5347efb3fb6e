"""A statement that handles many rows reads in proportion to them, also in tables without statistics.

A new bus has none until autovacuum has looked at its tables, for about a minute. PostgreSQL then expects few rows, and
fewer still under row security: a join that suits two rows takes seconds for a thousand, with their locks held.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from bus.coordination import expiry, leases, posts, presence, surfacing, tasks
from bus.db import Connection, Database
from bus.tenancy import participations
from bus.tenancy.projects import Project
from tests import factories, servers
from tests.factories import Agent

_ROW_COUNT = 200
_MEMBER_COUNT = 8
# A row is found, read once more to be changed, and some of its neighbours are read with it.
_MAX_READS_PER_ROW = 25


@dataclass(frozen=True)
class _Lane:
    """A project with a lane of several members."""

    conn: Connection
    project: Project
    members: list[Agent]

    def send(self, count: int) -> list[int]:
        """Post to the lane."""
        sender = factories.make_agent(self.conn, self.project, "sender")
        return [posts.create(self.conn, sender.ctx, f"post {n}", to_lane="core").post_id for n in range(count)]


@pytest.fixture(params=["gateway", "worker"])
def lane(request: pytest.FixtureRequest, database_url: str) -> Iterator[_Lane]:
    """A lane in a database of its own, on a connection with the settings of one kind of process."""
    with (
        closing(Database(database_url, pool_size=1, index_scans_only=request.param == "gateway")) as database,
        database.transaction() as conn,
    ):
        servers.act_as_application(conn)
        project = factories.make_project(conn)
        members = [factories.make_agent(conn, project, f"member-{n}", lane="core") for n in range(_MEMBER_COUNT)]
        yield _Lane(conn, project, members)


def _mark_posts_as_shown(lane: _Lane) -> Callable[[], object]:
    sent = lane.send(_ROW_COUNT // _MEMBER_COUNT)
    keys = {(lane.project.id, member.ctx.participation_id, post_id): 1.0 for member in lane.members for post_id in sent}
    return lambda: surfacing.mark_surfaced(lane.conn, keys)


def _leave_a_lane(lane: _Lane) -> Callable[[], object]:
    lane.send(_ROW_COUNT)
    return lambda: presence.register(lane.conn, lane.members[0].ctx, "docs")


def _expire_leases(lane: _Lane) -> Callable[[], object]:
    for number in range(_ROW_COUNT):
        leases.acquire(lane.conn, lane.members[0].ctx, f"src/{number}.py")
    lane.conn.execute("UPDATE lease SET expires_at = clock_timestamp() - interval '1 second'")
    return lambda: expiry.expire_leases(lane.conn, lane.project.id)


def _remove_an_assignee(lane: _Lane) -> Callable[[], object]:
    for number in range(_ROW_COUNT):
        tasks.create(lane.conn, lane.members[0].ctx, f"task {number}", owner=lane.members[1].label)
    return lambda: participations.remove(lane.conn, lane.project.id, lane.members[1].label, actor="web")


def _ship_what_many_wait_for(lane: _Lane) -> Callable[[], object]:
    ctx = lane.members[0].ctx
    first = tasks.create(lane.conn, ctx, "first").task_id
    for number in range(_ROW_COUNT):
        tasks.create(lane.conn, ctx, f"task {number}", blocked_on=[first])
    tasks.start(lane.conn, ctx, first)
    return lambda: tasks.ship(lane.conn, ctx, first)


def _count_reads(conn: Connection) -> int:
    (count,) = conn.fetch_one(
        "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables"
    )
    return int(count)


@pytest.mark.parametrize(
    "prepare",
    [
        _mark_posts_as_shown,
        _leave_a_lane,
        _expire_leases,
        _remove_an_assignee,
        _ship_what_many_wait_for,
    ],
)
def test_many_rows_are_read_in_proportion(lane: _Lane, prepare: Callable[[_Lane], Callable[[], object]]) -> None:
    act = prepare(lane)
    (analyzed,) = lane.conn.fetch_one(
        "SELECT array_agg(relname) FROM pg_class"
        " WHERE oid = ANY ('{delivery,lease,post,task,task_blocker}'::regclass[]) AND reltuples >= 0"
    )
    assert analyzed is None
    reads = _count_reads(lane.conn)
    act()
    assert _count_reads(lane.conn) - reads < _MAX_READS_PER_ROW * _ROW_COUNT
