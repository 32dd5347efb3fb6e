"""A wrong answer ends the benchmark: each check fails on what it is there for."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from bench import checks, fixtures, synthetic_history
from bench.checks import IncorrectResponseError
from bus.coordination import posts, sequences
from bus.db import Database


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url, pool_size=2)
    yield opened
    opened.close()


def _run(database: Database, statement: str, *params: Any) -> None:
    # As nobody may: the guards of the ledger are switched off.
    with psycopg.connect(database.url) as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute(statement.encode(), params)


def test_numbers_that_repeat_or_are_missing_are_found(database: Database) -> None:
    (team,) = fixtures.make_teams(database, 1, 2)
    project, me = team.project_id, team.agents[0].ctx
    with database.transaction() as conn:
        numbers = [sequences.claim(conn, me, "adr").number for _ in range(3)]
    assert checks.verify_claims(database, {(project, "adr"): numbers}) == 3
    for wrong in ([1, 2], [1, 2, 2], [1, 2, 4], [1, 2, 3, 4]):
        with pytest.raises(IncorrectResponseError):
            checks.verify_claims(database, {(project, "adr"): wrong})
    _run(database, "DELETE FROM event WHERE project_id = %s AND seq = 2", project)
    with pytest.raises(IncorrectResponseError, match="ledger holds"):
        checks.verify_claims(database, {(project, "adr"): numbers})
    with pytest.raises(IncorrectResponseError, match="its clock stands at 3"):
        checks.verify_ledgers(database, [project])


def test_lost_posts_deliveries_and_acks_are_found(database: Database) -> None:
    (team,) = fixtures.make_teams(database, 1, 2)
    project, (alice, bob) = team.project_id, team.agents
    with database.transaction() as conn:
        sent = posts.create(conn, alice.ctx, "hello", to_actor=bob.label)
        posts.ack(conn, bob.ctx, [sent.post_id])
    posted, acked = {(project, sent.post_id): 1}, {(project, bob.ctx.participation_id, sent.post_id)}
    assert checks.verify_posts(database, posted, acked) == 1
    with pytest.raises(IncorrectResponseError, match="lost"):
        checks.verify_posts(database, {**posted, (project, 99): 1}, acked)
    with pytest.raises(IncorrectResponseError, match="acks"):
        checks.verify_posts(database, posted, set())
    _run(database, "DELETE FROM delivery WHERE project_id = %s", project)
    with pytest.raises(IncorrectResponseError, match="deliveries differ"):
        checks.verify_posts(database, posted, acked)


def test_a_written_history_is_a_ledger_like_any_other_and_goes_on(database: Database) -> None:
    (team,) = fixtures.make_teams(database, 1, 5)
    synthetic_history.write(database, team, 1_000)
    assert checks.verify_ledgers(database, [team.project_id]) == 1_000
    me = team.agents[0].ctx
    with database.transaction() as conn:
        inbox = posts.list_posts(conn, me, to_me=True, unacked_only=True, limit=200)
        claimed = sequences.claim(conn, me, "seq-1")
        (highest,) = conn.fetch_one(
            "SELECT max((payload ->> 'number')::bigint) FROM event WHERE project_id = %s AND type = 'claim'"
            " AND payload ->> 'sequence' = 'seq-1'",
            (team.project_id,),
        )
    assert len(inbox.posts) == synthetic_history.UNREAD_POST_COUNT
    assert claimed.number == highest
    assert checks.verify_ledgers(database, [team.project_id]) == 1_001
