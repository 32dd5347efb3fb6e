"""A statement with many keys reads in proportion to them, also in tables without statistics.

A new bus has none until autovacuum has looked at its tables, for about a minute.
"""

from bus.coordination import posts, surfacing
from bus.db import Connection
from bus.tenancy.projects import Project
from tests import factories

_POST_COUNT = 100
_MEMBER_COUNT = 8
_DELIVERY_COUNT = _POST_COUNT * _MEMBER_COUNT
# A delivery is found by the index of its post, which has one for each member, and read once more to be changed.
_MAX_READS = (_MEMBER_COUNT + 2) * _DELIVERY_COUNT


def _send_to_lane(conn: Connection, project: Project) -> tuple[list[factories.Agent], list[int]]:
    sender = factories.make_agent(conn, project, "sender")
    members = [factories.make_agent(conn, project, f"member-{n}", lane="core") for n in range(_MEMBER_COUNT)]
    sent = [posts.create(conn, sender.ctx, f"post {n}", to_lane="core").post_id for n in range(_POST_COUNT)]
    return members, sent


def _count_reads(conn: Connection) -> int:
    (count,) = conn.fetch_one(
        "SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables"
        " WHERE relname = 'delivery'"
    )
    return int(count)


def test_marking_posts_as_shown_reads_each_delivery_by_its_key(conn: Connection, project: Project) -> None:
    members, sent = _send_to_lane(conn, project)
    assert conn.fetch_one("SELECT reltuples FROM pg_class WHERE oid = 'delivery'::regclass") == (-1,)
    reads = _count_reads(conn)
    keys = {(project.id, member.ctx.participation_id, post_id): 1.0 for member in members for post_id in sent}
    surfacing.mark_surfaced(conn, keys)
    assert conn.fetch_one("SELECT count(*) FROM seen_delivery") == (_DELIVERY_COUNT,)
    assert _count_reads(conn) - reads < _MAX_READS
