"""A synthetic ledger of several months, written by a few large INSERTs, for tests that count it.

Its posts are acknowledged by one recipient, by several or by the sender, within seconds, after days, or never.
"""

from dataclasses import dataclass

import psycopg

from bus.db import Connection
from bus.tenancy.projects import Project
from tests.factories import Agent

HISTORY_DAYS = 97
_SURFACE_COUNT = 400

_PLAN_EVENTS_SQL = f"""
CREATE TEMP TABLE plan AS
SELECT raw.*, count(*) FILTER (WHERE type = 'post') OVER (ORDER BY seq) AS posts
FROM (
    SELECT s AS seq, CASE
               WHEN k < 30 THEN 'post' WHEN k < 55 THEN 'ack' WHEN k < 70 THEN 'lease' WHEN k < 80 THEN 'release'
               WHEN k < 90 THEN 'claim' WHEN k < 93 THEN 'task_create' WHEN k < 95 THEN 'task_start'
               WHEN k < 97 THEN 'task_ship' WHEN k < 98 THEN 'lease_expire' WHEN k < 99 THEN 'register'
               ELSE 'escalate' END AS type,
           chance, 1 + (chance / 1000) %% %(agents)s AS author, 1 + (chance / 7000) %% %(agents)s AS recipient,
           date_trunc('milliseconds', now - interval '{HISTORY_DAYS} days'
               * power((%(events)s - s) / %(events)s::float8, 1.6)) AS at
    FROM (SELECT s, clock_timestamp() AS now FROM generate_series(1, %(events)s::bigint) AS s) AS numbers
    CROSS JOIN LATERAL (SELECT hashint8extended(s, 5) & 281474976710655 AS chance) AS h
    CROSS JOIN LATERAL (SELECT chance %% 100 AS k) AS kinds
) AS raw
"""

# Most acks are for one of the newest posts, some for a post that is hours old, a few for one that is days old.
_PLAN_ACKS_SQL = """
CREATE TEMP TABLE acking AS
SELECT a.seq, a.at, a.author, o.seq AS post_id
FROM plan a
JOIN plan o ON o.type = 'post' AND o.posts = a.posts - CASE
    WHEN a.chance / 11 %% 50 = 0 THEN 20000 + a.chance / 13 %% 9000
    WHEN a.chance / 11 %% 9 = 0 THEN a.chance / 13 %% 3000
    ELSE a.chance / 13 %% 7 END
WHERE a.type = 'ack'
"""

_INSERT_EVENTS_SQL = f"""
INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload)
SELECT %(project)s, p.seq, p.at, (%(ids)s::bigint[])[p.author], (%(actors)s::text[])[p.author],
       CASE WHEN p.type = 'ack' AND a.post_id IS NULL THEN 'register' ELSE p.type END, CASE p.type
    WHEN 'post' THEN jsonb_build_object(
        'to_lane', CASE WHEN p.chance / 17 %% 3 < 2 THEN 'lane-' || p.chance / 19 %% 5 END,
        'to_actor', CASE WHEN p.chance / 17 %% 3 > 0 THEN (%(actors)s::text[])[p.recipient] END,
        'ref', CASE WHEN p.chance / 23 %% 5 < 3 THEN 'PR ' || p.seq / 10 END)
    WHEN 'ack' THEN jsonb_build_object('post_id', a.post_id)
    WHEN 'lease' THEN jsonb_build_object(
        -- Some surfaces are leased far more often than others.
        'surface', 'src/part_' || floor(sqrt(p.chance / 29 %% ({_SURFACE_COUNT} * {_SURFACE_COUNT})))::integer || '.py',
        'contended', CASE WHEN p.chance / 31 %% 11 = 0 THEN 1 + p.chance %% 3 ELSE 0 END)
    ELSE '{{}}' END
FROM plan p LEFT JOIN acking a ON a.seq = p.seq ORDER BY p.seq
"""

_INSERT_POSTS_SQL = """
INSERT INTO post (project_id, id, participation_id, actor, to_lane, to_participation_id, to_actor, body, ref,
                  recipients, created_at, acked_at)
SELECT %(project)s, p.seq, (%(ids)s::bigint[])[p.author], (%(actors)s::text[])[p.author],
       CASE WHEN p.chance / 17 %% 3 < 2 THEN 'lane-' || p.chance / 19 %% 5 END,
       CASE WHEN p.chance / 17 %% 3 > 0 THEN (%(ids)s::bigint[])[p.recipient] END,
       CASE WHEN p.chance / 17 %% 3 > 0 THEN (%(actors)s::text[])[p.recipient] END,
       'x', CASE WHEN p.chance / 23 %% 5 < 3 THEN 'PR ' || p.seq / 10 END, 1, p.at, a.at
FROM plan p LEFT JOIN (
    SELECT k.post_id, min(k.at) AS at FROM acking k JOIN plan o ON o.seq = k.post_id
    WHERE k.author <> o.author OR (o.recipient = k.author AND o.chance / 17 %% 3 = 2) GROUP BY k.post_id
) AS a ON a.post_id = p.seq
WHERE p.type = 'post' ORDER BY p.seq
"""

_UPDATE_CLOCK_SQL = """
UPDATE project_clock SET last_seq = %(events)s, last_at = (SELECT max(at) FROM plan) WHERE project_id = %(project)s
"""
_PRIMARY_KEYS = (("event", "seq"), ("post", "id"))


@dataclass(frozen=True)
class History:
    """The written ledger: its project, its agents and its number of events."""

    project: Project
    agents: list[Agent]
    events: int


def write(conn: Connection, project: Project, agents: list[Agent], events: int) -> History:
    """Write a ledger that ends now into an empty project. Drops the indexes that only filters need.

    Args:
        conn: a connection in a transaction.
    """
    values = {
        "project": project.id,
        "events": events,
        "agents": len(agents),
        "ids": [agent.ctx.participation_id for agent in agents],
        "actors": [agent.actor for agent in agents],
    }
    conn.raw.execute("SET LOCAL statement_timeout = 0")
    conn.raw.execute("SET LOCAL synchronous_commit = off")
    conn.raw.execute("SET LOCAL work_mem = '256MB'")
    for (index,) in conn.fetch_all(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisprimary AND NOT indisunique"
        " AND indrelid IN ('event'::regclass, 'post'::regclass)"
    ):
        conn.raw.execute(f"DROP INDEX {index}".encode())
    for table, _ in _PRIMARY_KEYS:
        conn.raw.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey".encode())
    with psycopg.ClientCursor(conn.raw) as cursor:
        for statement in (_PLAN_EVENTS_SQL, _PLAN_ACKS_SQL, _INSERT_EVENTS_SQL, _INSERT_POSTS_SQL, _UPDATE_CLOCK_SQL):
            cursor.execute(statement.encode(), values)
    conn.raw.execute("DROP TABLE plan, acking")
    # Building a key in one go takes a fifth of the time of maintaining it row by row.
    for table, key in _PRIMARY_KEYS:
        conn.raw.execute(f"ALTER TABLE {table} ADD CONSTRAINT {table}_pkey PRIMARY KEY (project_id, {key})".encode())
    conn.raw.execute("ANALYZE event, post")
    return History(project, agents, events)
