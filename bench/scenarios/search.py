"""`search`: searches of a project with a million posts, and what the index costs a post."""

import random
import threading
import time
from collections.abc import Callable

from bench import cpu
from bench.fixtures import Agent, Team, make_teams
from bench.scenario import Harness, Result
from bench.stats import summarize_latencies
from bus.coordination import posts, search, text_search
from bus.db import Database

_TEAM_SIZE = 8
_WORD_COUNT = 20_000
_WORDS_PER_POST = 24
_BATCH = 20_000
_WRITE_WINDOWS = 10
_WRITES_PER_WINDOW = 300
# As often as the job `index_texts` runs.
_INDEX_INTERVAL_SECONDS = 10.0
_MIB = 2**20

# A skewed vocabulary, as that of a language: the most frequent word is in most posts, half of the words in few.
_INSERT_POSTS_SQL = f"""
INSERT INTO post (project_id, id, participation_id, actor, to_lane, subject, body, ref, recipients, created_at,
                  acked_at)
SELECT %(project)s, n, %(author)s, %(actor)s, 'lane', 'Part ' || n,
       (SELECT string_agg('w' || floor({_WORD_COUNT} * power(random(), 4))::int, ' ')
        FROM generate_series(1, {_WORDS_PER_POST}) WHERE n > 0),
       'PR-' || n / 10, 0, clock_timestamp() - (%(total)s - n) * interval '20 seconds', clock_timestamp()
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
"""


def run(harness: Harness) -> Result:
    """Searches of words of all frequencies by agents and by people, and posts with and without the job beside them."""
    result = Result()
    database, total = harness.environment.database, harness.effort.search_posts
    (team,) = make_teams(database, 1, _TEAM_SIZE)
    _write_posts(database, team, total)
    index_seconds = _index(database, team)
    randomness = random.Random(1)  # The same queries in each run.
    queries = [_make_query(randomness, total) for _ in range(harness.effort.search_samples)]
    agent = team.agents[0].ctx
    searches: dict[str, Callable[[str], object]] = {}
    with database.connection() as conn:
        searches["read_posts, text"] = lambda text: posts.list_posts(conn, agent, text=text, limit=50)
        searches["search of the web"] = lambda text: search.search(conn, agent.owner_id, text)
        (backend,) = conn.fetch_one("SELECT pg_backend_pid()")
        processes = {"database": [int(backend)]}
        lines = []
        for name, call in searches.items():
            # Once more than measured, so that the pages of the index are in memory as in a server that is used.
            for query in queries:
                call(query)
            before, client_before = cpu.take_snapshot(processes), time.process_time()
            taken = summarize_latencies([_time(call, query) for query in queries])
            # Unlike the latency, it does not depend on what else the machine does.
            spent = cpu.elapsed_seconds(before, cpu.take_snapshot(processes))
            database_ms = 1000 * spent["database"] / len(queries)
            client_ms = 1000 * (time.process_time() - client_before) / len(queries)
            result.figures[name] = {
                "p50": taken.p50,
                "p95": taken.p95,
                "p99": taken.p99,
                "max": taken.max,
                "database_cpu_ms": database_ms,
                "client_cpu_ms": client_ms,
            }
            latencies = (taken.p50, taken.p95, taken.p99, taken.max, database_ms, client_ms)
            lines.append([name, *(f"{value:.1f}" for value in latencies)])
    columns = ["p50 ms", "p95 ms", "p99 ms", "max ms", "CPU ms of PostgreSQL", "CPU ms of the client"]
    result.tables.append(([f"{len(queries)} queries, {total:,} posts", *columns], lines))
    alone, beside = _measure_writes(database, team)
    result.figures |= {"post_us_without_job": alone, "post_us_with_job": beside, "index_us_per_text": index_seconds}
    result.lines += [
        f"a post takes {alone:.0f} µs alone and {beside:.0f} µs while the job indexes what is written,"
        f" {100 * (beside / alone - 1):+.1f}% (medians of {_WRITE_WINDOWS} windows of each, in turn)",
        f"the job takes {index_seconds:.0f} µs for each text; posts {_size(database, 'post'):.0f} MiB,"
        f" search_document {_size(database, 'search_document'):.0f} MiB",
    ]
    return result


def _write_posts(database: Database, team: Team, total: int) -> None:
    author = team.agents[0]
    for first in range(1, total + 1, _BATCH):
        with database.transaction() as conn:
            conn.execute("SET LOCAL statement_timeout = 0")
            conn.enter_project(team.project_id)
            conn.execute(
                _INSERT_POSTS_SQL,
                {
                    "project": team.project_id,
                    "author": author.ctx.participation_id,
                    "actor": author.label,
                    "first": first,
                    "last": min(first + _BATCH - 1, total),
                    "total": total,
                },
            )
    with database.transaction() as conn:
        conn.enter_project(team.project_id)
        # The next event is numbered after the last post.
        conn.execute(
            "UPDATE project_clock SET last_seq = %s WHERE project_id = %s AND last_seq < %s",
            (total + 1_000, team.project_id, total),
        )


def _index(database: Database, team: Team) -> float:
    """Index all texts as the job does; return microseconds for each."""
    started, count = time.perf_counter(), 0
    while True:
        with database.transaction() as conn:
            indexed = text_search.index_batch(conn, team.project_id)
        if not indexed:
            break
        count += indexed
    seconds = time.perf_counter() - started
    with database.connection() as conn:
        conn.raw.execute("SET statement_timeout = 0")
        conn.raw.execute("VACUUM ANALYZE post, search_document")
        conn.raw.execute("RESET statement_timeout")
    return 1e6 * seconds / max(1, count)


def _make_query(randomness: random.Random, total: int) -> str:
    """One to three words of the vocabulary, from the most frequent to rare ones, or a reference."""
    if randomness.random() < 0.1:
        return f"PR-{randomness.randrange(total // 10)}"
    return " ".join(f"w{int(_WORD_COUNT * randomness.random() ** 4)}" for _ in range(randomness.randint(1, 3)))


def _time(call: Callable[[str], object], query: str) -> float:
    started = time.perf_counter()
    call(query)
    return time.perf_counter() - started


def _measure_writes(database: Database, team: Team) -> tuple[float, float]:
    """Microseconds of a post on one connection: without the job, and beside it. Windows in turn, best half of each."""
    taken: dict[bool, list[float]] = {False: [], True: []}
    for window in range(2 * _WRITE_WINDOWS):
        with_job = window % 2 == 1
        stop = threading.Event()
        job = threading.Thread(target=_index_until, args=(database, team, stop))
        if with_job:
            job.start()
        for _ in range(_WRITES_PER_WINDOW):
            taken[with_job].append(_write_post(database, team.agents[window % _TEAM_SIZE]))
        stop.set()
        if with_job:
            job.join()
    alone, beside = (sorted(seconds)[len(seconds) // 2] for seconds in (taken[False], taken[True]))
    return 1e6 * alone, 1e6 * beside


def _write_post(database: Database, agent: Agent) -> float:
    started = time.perf_counter()
    with database.transaction() as conn:
        posts.create(conn, agent.ctx, "w1 w20 w300 w4000 please look at it before you go on", to_lane="an-empty-lane")
    return time.perf_counter() - started


def _index_until(database: Database, team: Team, stop: threading.Event) -> None:
    while True:
        with database.transaction() as conn:
            text_search.index_batch(conn, team.project_id)
        if stop.wait(_INDEX_INTERVAL_SECONDS):
            return


def _size(database: Database, table: str) -> float:
    with database.connection() as conn:
        return float(conn.fetch_one("SELECT pg_total_relation_size(%s::regclass)", (table,))[0]) / _MIB
