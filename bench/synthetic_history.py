"""A synthetic history of a project with up to millions of events, written by a few large INSERTs.

The ledger is contiguous and its times increase. Clock, sequences, posts, deliveries and tasks match the events, so
every tool works on the project.
"""

from dataclasses import dataclass

import psycopg

from bench.fixtures import Team
from bus.db import Database

SEQUENCE_COUNT, OPEN_TASK_COUNT, LIVE_LEASE_COUNT = 20, 50, 25
UNREAD_POST_COUNT = 55
"""Unacknowledged posts of the first agent: more than a page of its inbox, for every length of history."""
UNACKED_POST_COUNT = 3_000
"""Unacknowledged deliveries of all other agents, the newest ones; fewer in short histories."""

# 40 posts, 28 acks, 7 claims, 3 registrations, 3 leases, 3 releases, 6 new tasks, 5 starts, 5 ships in each hundred,
# in an order that mixes them (37 and 100 have no common divisor).
_EVENT_TYPE_SQL = """
CASE WHEN k < 40 THEN 'post' WHEN k < 68 THEN 'ack' WHEN k < 75 THEN 'claim' WHEN k < 78 THEN 'register'
     WHEN k < 81 THEN 'lease' WHEN k < 84 THEN 'release' WHEN k < 90 THEN 'task_create' WHEN k < 95 THEN 'task_start'
     ELSE 'task_ship' END
"""

_PLAN_EVENTS_SQL = f"""
CREATE TEMP TABLE plan AS
SELECT raw.*, row_number() OVER (PARTITION BY raw.type ORDER BY raw.seq) AS nth,
       row_number() OVER (PARTITION BY raw.type, raw.choice ORDER BY raw.seq) AS number
FROM (
    SELECT s AS seq, {_EVENT_TYPE_SQL.replace("k <", "(s * 37) %% 100 <")} AS type,
           (s / 7) %% {SEQUENCE_COUNT} AS choice,
           (%(ids)s::bigint[])[1 + (s * 7919 / 13) %% %(agents)s] AS author,
           -- Any agent except the author.
           (%(ids)s::bigint[])[1 + ((s * 7919 / 13) + 1 + (s / 3) %% (%(agents)s - 1)) %% %(agents)s] AS mate,
           'lane-' || (s / 11) %% %(lanes)s AS lane,
           date_trunc('milliseconds', clock.now) - (%(events)s - s) * interval '20 seconds' AS at
    FROM generate_series(1, %(events)s::bigint) AS s, (SELECT clock_timestamp() AS now) AS clock
) AS raw
"""

_INSERT_EVENTS_SQL = """
INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload)
SELECT %(project)s, p.seq, p.at, p.author, w.actor, p.type, CASE p.type
    WHEN 'post' THEN jsonb_build_object('to_lane', CASE WHEN p.seq %% 4 = 0 THEN p.lane END,
        'to_actor', CASE WHEN p.seq %% 4 > 0 THEN m.actor END, 'subject', 'Part ' || p.seq, 'ref', 'PR ' || p.seq / 10,
        'tag', CASE WHEN p.seq %% 5 = 0 THEN 'tag-' || p.seq %% 50 END, 'reply_to', NULL, 'recipients', 1)
    WHEN 'ack' THEN jsonb_build_object('post_id', p.seq - 1)
    WHEN 'claim' THEN jsonb_build_object('sequence', 'seq-' || p.choice, 'number', p.number,
        'formatted', 'S' || p.choice || '-' || p.number, 'note', NULL)
    WHEN 'register' THEN jsonb_build_object('lane', w.lane, 'status', 'at part ' || p.seq)
    WHEN 'lease' THEN jsonb_build_object('surface', 'src/part_' || p.nth || '.py', 'ttl_seconds', 1800,
        'mode', 'exclusive', 'fence', p.seq, 'contended', 0)
    WHEN 'release' THEN jsonb_build_object('surface', 'src/part_' || p.nth || '.py')
    WHEN 'task_create' THEN jsonb_build_object('task_id', p.nth, 'title', 'Part ' || p.nth, 'lane', NULL,
        'owner', NULL, 'priority', 2, 'status', 'open')
    WHEN 'task_start' THEN jsonb_build_object('task_id', p.nth, 'owner', w.actor)
    ELSE jsonb_build_object('task_id', p.nth, 'ref', 'PR ' || p.seq / 10, 'unblocked', '[]'::jsonb) END
FROM plan p JOIN agent w ON w.id = p.author JOIN agent m ON m.id = p.mate
ORDER BY p.seq
"""

_INSERT_POSTS_SQL = """
INSERT INTO post (project_id, id, participation_id, actor, to_lane, to_participation_id, to_actor, subject, body, ref,
                  tag, recipients, created_at, acked_at)
SELECT %(project)s, p.seq, p.author, w.actor, CASE WHEN p.seq %% 4 = 0 THEN p.lane END,
       CASE WHEN p.seq %% 4 > 0 THEN p.mate END, CASE WHEN p.seq %% 4 > 0 THEN m.actor END, 'Part ' || p.seq,
       'Part ' || p.seq || ' is done; ' || repeat('please look at the error recovery before you go on. ', 4),
       'PR ' || p.seq / 10, CASE WHEN p.seq %% 5 = 0 THEN 'tag-' || p.seq %% 50 END, 1, p.at,
       CASE WHEN p.acked THEN p.at + interval '10 minutes' END
FROM planned_post p JOIN agent w ON w.id = p.author JOIN agent m ON m.id = p.mate
ORDER BY p.seq
"""

# A post is acked unless it is among the newest of its recipient. The first agent has the same number of unacknowledged
# posts in every history, so that its responses have the same size.
_PLAN_DELIVERIES_SQL = """
CREATE TEMP TABLE planned_post AS
SELECT p.*, p.age > CASE WHEN p.mate = %(me)s THEN %(unread)s ELSE %(waiting)s END AS acked
FROM (SELECT plan.*, row_number() OVER (PARTITION BY mate = %(me)s ORDER BY seq DESC) AS age
      FROM plan WHERE type = 'post') AS p
"""

_INSERT_REMAINING_SQL = (
    "INSERT INTO delivery (project_id, participation_id, post_id, surfaced_at, acked_at)"
    " SELECT %(project)s, mate, seq, at, CASE WHEN acked THEN at + interval '10 minutes' END FROM planned_post"
    " ORDER BY mate, seq",
    "INSERT INTO sequence (project_id, name, current, prefix, claimed, claimed_as, claimed_by, claimed_at)"
    " SELECT DISTINCT ON (p.choice) %(project)s, 'seq-' || p.choice, p.number, 'S' || p.choice || '-', p.number,"
    " 'S' || p.choice || '-' || p.number, w.actor, p.at FROM plan p JOIN agent w ON w.id = p.author"
    " WHERE p.type = 'claim' ORDER BY p.choice, p.number DESC",
    "INSERT INTO task (project_id, id, title, status, priority, participation_id, owner, created_by, created_at,"
    " updated_at) SELECT %(project)s, p.nth, 'Part ' || p.nth, CASE WHEN p.old THEN 'done' ELSE 'open' END, 2,"
    " CASE WHEN p.old THEN p.author END, CASE WHEN p.old THEN w.actor END, w.actor, p.at, p.at"
    " FROM (SELECT *, nth <= max(nth) OVER () - %(open)s AS old FROM plan WHERE type = 'task_create') AS p"
    " JOIN agent w ON w.id = p.author ORDER BY p.nth",
    "INSERT INTO lease (project_id, id, surface, prefix, mode, participation_id, actor, fence, acquired_at, expires_at,"
    " ended_at, ended_by) SELECT %(project)s, p.seq, 'src/part_' || p.nth || '.py', 'src/part_' || p.nth || '.py',"
    " 'exclusive', p.author, w.actor, p.seq, p.at, CASE WHEN p.old THEN p.at + interval '30 minutes'"
    " ELSE clock_timestamp() + interval '6 hours' END, CASE WHEN p.old THEN p.at + interval '10 minutes' END,"
    " CASE WHEN p.old THEN 'release' END"
    " FROM (SELECT *, nth <= max(nth) OVER () - %(live)s AS old FROM plan WHERE type = 'lease') AS p"
    " JOIN agent w ON w.id = p.author ORDER BY p.seq",
    "UPDATE project_clock SET last_seq = %(events)s, last_at = (SELECT max(at) FROM plan),"
    " last_task = (SELECT count(*) FROM plan WHERE type = 'task_create') WHERE project_id = %(project)s",
)


@dataclass(frozen=True)
class History:
    """A written history: its team and its number of events."""

    team: Team
    events: int


def write(database: Database, team: Team, events: int) -> History:
    """Write a history into a new project.

    Its first agent has UNREAD_POST_COUNT unacknowledged posts; the project has OPEN_TASK_COUNT open tasks and
    LIVE_LEASE_COUNT active leases.
    """
    ids = [agent.ctx.participation_id for agent in team.agents]
    values = {
        "project": team.project_id,
        "events": events,
        "ids": ids,
        "agents": len(ids),
        "lanes": len({agent.lane for agent in team.agents}),
        "me": ids[0],
        "unread": UNREAD_POST_COUNT,
        "waiting": UNACKED_POST_COUNT,
        "open": OPEN_TASK_COUNT,
        "live": LIVE_LEASE_COUNT,
    }
    # The client interpolates the parameters, since CREATE TABLE accepts none.
    with database.connection() as conn, conn.raw.transaction(), psycopg.ClientCursor(conn.raw) as cursor:
        # Only the calls afterwards are measured, so the load may be as fast as possible.
        conn.raw.execute("SET LOCAL statement_timeout = 0")
        conn.raw.execute("SET LOCAL synchronous_commit = off")
        conn.raw.execute("SET LOCAL work_mem = '256MB'")
        conn.raw.execute("SET LOCAL maintenance_work_mem = '256MB'")
        conn.raw.execute("DROP TABLE IF EXISTS plan, planned_post, agent")
        for statement in (
            _PLAN_EVENTS_SQL,
            "CREATE TEMP TABLE agent AS SELECT id, bus_participation_name(id) AS actor, lane FROM participation"
            " WHERE project_id = %(project)s",
            _INSERT_EVENTS_SQL,
            _PLAN_DELIVERIES_SQL,
            _INSERT_POSTS_SQL,
            *_INSERT_REMAINING_SQL,
        ):
            cursor.execute(statement.encode(), values)
        conn.raw.execute("DROP TABLE plan, planned_post, agent")
    with database.connection() as conn:
        conn.raw.execute("SET statement_timeout = 0")
        conn.raw.execute("VACUUM ANALYZE")
        conn.raw.execute("RESET statement_timeout")
    return History(team, events)
