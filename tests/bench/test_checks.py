"""A wrong response ends the benchmark: each check detects its kind of error."""

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
    pool = Database(database_url, pool_size=2)
    yield pool
    pool.close()


def _run(database: Database, statement: str, *params: Any) -> None:
    # The role disables the triggers that protect the ledger.
    with psycopg.connect(database.url) as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute(statement.encode(), params)


def test_repeated_and_missing_numbers_are_detected(database: Database) -> None:
    (team,) = fixtures.make_teams(database, 1, 2)
    project_id, ctx = team.project_id, team.agents[0].ctx
    with database.transaction() as conn:
        numbers = [sequences.claim(conn, ctx, "adr").number for _ in range(3)]
    assert checks.verify_claims(database, {(project_id, "adr"): numbers}) == 3
    for wrong_numbers in ([1, 2], [1, 2, 2], [1, 2, 4], [1, 2, 3, 4]):
        with pytest.raises(IncorrectResponseError):
            checks.verify_claims(database, {(project_id, "adr"): wrong_numbers})
    _run(database, "DELETE FROM event WHERE project_id = %s AND seq = 2", project_id)
    with pytest.raises(IncorrectResponseError, match="ledger holds"):
        checks.verify_claims(database, {(project_id, "adr"): numbers})
    with pytest.raises(IncorrectResponseError, match="its clock is at 3"):
        checks.verify_ledgers(database, [project_id])


def test_lost_posts_deliveries_and_acks_are_detected(database: Database) -> None:
    (team,) = fixtures.make_teams(database, 1, 2)
    project_id, (alice, bob) = team.project_id, team.agents
    with database.transaction() as conn:
        post = posts.create(conn, alice.ctx, "hello", to_actor=bob.label)
        posts.ack(conn, bob.ctx, [post.post_id])
    recipients_by_post = {(project_id, post.post_id): 1}
    acked_posts = {(project_id, bob.ctx.participation_id, post.post_id)}
    assert checks.verify_posts(database, recipients_by_post, acked_posts) == 1
    with pytest.raises(IncorrectResponseError, match="lost"):
        checks.verify_posts(database, {**recipients_by_post, (project_id, 99): 1}, acked_posts)
    with pytest.raises(IncorrectResponseError, match="acks"):
        checks.verify_posts(database, recipients_by_post, set())
    _run(database, "DELETE FROM delivery WHERE project_id = %s", project_id)
    with pytest.raises(IncorrectResponseError, match="deliveries differ"):
        checks.verify_posts(database, recipients_by_post, acked_posts)


def test_a_synthetic_history_is_a_valid_ledger_that_accepts_further_events(database: Database) -> None:
    (team,) = fixtures.make_teams(database, 1, 5)
    synthetic_history.write(database, team, 1_000)
    assert checks.verify_ledgers(database, [team.project_id]) == 1_000
    ctx = team.agents[0].ctx
    with database.transaction() as conn:
        inbox = posts.list_posts(conn, ctx, to_me=True, unacked_only=True, limit=200)
        claimed = sequences.claim(conn, ctx, "seq-1")
        (highest,) = conn.fetch_one(
            "SELECT max((payload ->> 'number')::bigint) FROM event WHERE project_id = %s AND type = 'claim'"
            " AND payload ->> 'sequence' = 'seq-1'",
            (team.project_id,),
        )
    assert len(inbox.posts) == synthetic_history.UNREAD_POST_COUNT
    assert claimed.number == highest
    assert checks.verify_ledgers(database, [team.project_id]) == 1_001
