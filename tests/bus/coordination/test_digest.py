"""whats_new: the cursor advances past the returned events, and never otherwise."""

from datetime import timedelta

from bus.coordination import digest, leases, ledger, posts, sequences
from bus.db import Connection
from bus.tenancy import tokens
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_ledger_consistent, database_checksum
from tests.factories import Agent


def _claims(conn: Connection, agent: Agent, count: int) -> None:
    for _ in range(count):
        sequences.claim(conn, agent.ctx, "s")


def _ids(result: digest.Digest) -> list[int]:
    return [event.id for event in result.events]


def test_events_are_returned_once_oldest_first(conn: Connection, ada: Agent, bob: Agent) -> None:
    _claims(conn, ada, 5)
    first = digest.read_digest(conn, bob.ctx, limit=3)
    assert (_ids(first), first.since_event_id, first.cursor, first.more) == ([1, 2, 3], 0, 3, True)
    second = digest.read_digest(conn, bob.ctx, limit=3)
    assert (_ids(second), second.since_event_id, second.cursor, second.more) == ([4, 5], 3, 5, False)
    empty = digest.read_digest(conn, bob.ctx)
    assert (_ids(empty), empty.since_event_id, empty.cursor, empty.more) == ([], 5, 5, False)
    _claims(conn, ada, 1)
    assert _ids(digest.read_digest(conn, bob.ctx)) == [6]


def test_an_event_equals_that_of_query_events(conn: Connection, ada: Agent, bob: Agent) -> None:
    posts.create(conn, ada.ctx, "hello", to_actor="bob", ref="PR-1")
    _claims(conn, bob, 1)
    assert digest.read_digest(conn, bob.ctx).events == ledger.query_events(conn, bob.ctx).events[::-1]


def test_reading_without_advancing_changes_nothing(conn: Connection, ada: Agent, bob: Agent) -> None:
    _claims(conn, ada, 3)
    before = database_checksum(conn)
    for _ in range(2):
        peek = digest.read_digest(conn, bob.ctx, advance_cursor=False)
        assert (_ids(peek), peek.cursor) == ([1, 2, 3], 0)
    assert database_checksum(conn) == before
    digest.read_digest(conn, bob.ctx, limit=1)
    before = database_checksum(conn)
    peek = digest.read_digest(conn, bob.ctx, advance_cursor=False)
    assert (_ids(peek), peek.since_event_id, peek.cursor) == ([2, 3], 1, 1)
    assert database_checksum(conn) == before


def test_since_rereads_and_changes_nothing(conn: Connection, ada: Agent, bob: Agent) -> None:
    _claims(conn, ada, 5)
    digest.read_digest(conn, bob.ctx, limit=4)
    before = database_checksum(conn)
    for advance in (True, False):
        again = digest.read_digest(conn, bob.ctx, since=1, limit=2, advance_cursor=advance)
        assert (_ids(again), again.since_event_id, again.cursor, again.more) == ([2, 3], 1, 4, True)
        ahead = digest.read_digest(conn, bob.ctx, since=2**53 - 1, advance_cursor=advance)
        assert (_ids(ahead), ahead.since_event_id, ahead.cursor, ahead.more) == ([], 2**53 - 1, 4, False)
        end = digest.read_digest(conn, bob.ctx, since=4, advance_cursor=advance)
        assert (_ids(end), end.more) == ([5], False)
    assert database_checksum(conn) == before
    assert _ids(digest.read_digest(conn, bob.ctx)) == [5]


def test_since_does_not_create_a_cursor(conn: Connection, ada: Agent, bob: Agent) -> None:
    _claims(conn, ada, 3)
    assert _ids(digest.read_digest(conn, bob.ctx, since=0)) == [1, 2, 3]
    assert _ids(digest.read_digest(conn, bob.ctx)) == [1, 2, 3]


def test_a_new_participation_starts_a_hundred_events_before_the_end(conn: Connection, ada: Agent, bob: Agent) -> None:
    _claims(conn, ada, 105)
    peek = digest.read_digest(conn, bob.ctx, advance_cursor=False, limit=500)
    assert (peek.since_event_id, _ids(peek)) == (5, list(range(6, 106)))
    first = digest.read_digest(conn, bob.ctx, limit=10)
    assert (first.since_event_id, _ids(first), first.cursor) == (5, list(range(6, 16)), 15)
    # Once it exists, the cursor does not depend on the length of the ledger.
    _claims(conn, ada, 100)
    second = digest.read_digest(conn, bob.ctx, limit=500)
    assert (second.since_event_id, len(second.events), second.more) == (15, 190, False)


def test_each_identity_has_its_own_cursor(conn: Connection, ada: Agent, bob: Agent) -> None:
    _claims(conn, ada, 3)
    assert len(digest.read_digest(conn, ada.ctx).events) == 3
    assert len(digest.read_digest(conn, bob.ctx).events) == 3
    assert len(digest.read_digest(conn, ada.ctx).events) == 0


def test_a_cursor_survives_a_new_token(conn: Connection, ada: Agent, bob: Agent, project: Project) -> None:
    _claims(conn, ada, 3)
    digest.read_digest(conn, bob.ctx)
    _claims(conn, ada, 1)
    again = factories.authenticate_agent(conn, tokens.rotate(conn, project.id, "bob", actor="cli"))
    assert _ids(digest.read_digest(conn, again.ctx)) == [4]


def test_five_hundred_events_are_returned_in_one_run(conn: Connection, ada: Agent) -> None:
    conn.execute("SELECT bus_append_all(%s, %s, 'x', array_fill('escalate'::text, ARRAY[600]),"
             " array_fill('{}'::jsonb, ARRAY[600]))", (ada.ctx.project_id, ada.ctx.participation_id))  # fmt: skip
    assert assert_ledger_consistent(conn, ada.ctx.project_id) == 600
    whole = digest.read_digest(conn, ada.ctx, since=0, limit=500)
    assert (_ids(whole), whole.more) == (list(range(1, 501)), True)
    rest = digest.read_digest(conn, ada.ctx, since=500, limit=500)
    assert (_ids(rest), rest.more) == (list(range(501, 601)), False)
    exact = digest.read_digest(conn, ada.ctx, since=100, limit=500)
    assert (len(exact.events), exact.more) == (500, False)


def test_the_digest_counts_unacked_posts_and_live_leases(conn: Connection, ada: Agent, bob: Agent) -> None:
    for number in range(3):
        posts.create(conn, ada.ctx, "hello", to_actor="bob")
        leases.acquire(conn, ada.ctx, f"src/{number}.py", ttl=timedelta(seconds=100))
    leases.acquire(conn, bob.ctx, "docs")
    result = digest.read_digest(conn, bob.ctx)
    assert (result.unacked_posts, result.active_leases) == (3, 4)
    posts.ack(conn, bob.ctx, [result.events[0].id])
    leases.release(conn, bob.ctx, "docs")
    conn.raw.execute("UPDATE lease SET expires_at = clock_timestamp() WHERE surface = 'src/0.py'")
    result = digest.read_digest(conn, bob.ctx)
    assert (result.unacked_posts, result.active_leases) == (2, 2)
    assert digest.read_digest(conn, ada.ctx).unacked_posts == 0


def test_the_counts_are_capped_at_a_thousand(conn: Connection, ada: Agent, bob: Agent) -> None:
    project, me = ada.ctx.project_id, bob.ctx.participation_id
    conn.raw.execute(
        "INSERT INTO delivery (project_id, participation_id, post_id) SELECT %s, %s, generate_series(1, 1001)",
        (project, me),
    )
    conn.raw.execute(
        "INSERT INTO lease (project_id, id, surface, prefix, mode, participation_id, actor, fence, acquired_at,"
        " expires_at) SELECT %s, n, 's' || n, 's' || n, 'shared', %s, 'x', n, now(), now() + interval '1 hour'"
        " FROM generate_series(1, 1001) AS n",
        (project, me),
    )
    result = digest.read_digest(conn, bob.ctx)
    assert (result.unacked_posts, result.active_leases) == (1000, 1000)


def test_the_latest_claims_cover_the_fifty_most_recent_sequences(conn: Connection, ada: Agent, bob: Agent) -> None:
    sequences.seed(conn, ada.ctx, "adr", 9, prefix="ADR-", pad=4)
    sequences.seed(conn, ada.ctx, "unclaimed", 9)
    sequences.claim(conn, ada.ctx, "adr")
    assert digest.read_digest(conn, bob.ctx).latest_claims == {"adr": "ADR-0010"}
    for number in range(50):
        sequences.claim(conn, ada.ctx, f"s{number}")
    assert digest.read_digest(conn, bob.ctx).latest_claims == {f"s{number}": "1" for number in range(50)}
    sequences.claim(conn, ada.ctx, "adr")
    result = digest.read_digest(conn, bob.ctx).latest_claims
    assert (len(result), result["adr"], "s0" in result) == (50, "ADR-0011", False)


def test_an_empty_project_has_an_empty_digest(conn: Connection, ada: Agent) -> None:
    result = digest.read_digest(conn, ada.ctx)
    assert (result.since_event_id, result.events, result.cursor, result.more) == (0, [], 0, False)
    assert (result.unacked_posts, result.active_leases, result.latest_claims) == (0, 0, {})


def test_a_condensed_digest_counts_the_callers_own_events(conn: Connection, ada: Agent, bob: Agent) -> None:
    _claims(conn, bob, 2)
    _claims(conn, ada, 3)
    _claims(conn, bob, 1)
    result = digest.read_digest(conn, bob.ctx, condense=True)
    assert (_ids(result), result.left_out) == ([3, 4, 5], digest.LeftOut(own=3))
    assert (result.cursor, result.more) == (6, False)
    reread = digest.read_digest(conn, bob.ctx, since=result.since_event_id, condense=True)
    assert (_ids(reread), reread.left_out) == ([1, 2, 3, 4, 5, 6], None)


def test_a_page_of_own_events_alone_still_advances(conn: Connection, ada: Agent) -> None:
    _claims(conn, ada, 5)
    first = digest.read_digest(conn, ada.ctx, limit=3, condense=True)
    assert (_ids(first), first.cursor, first.more) == ([], 3, True)
    second = digest.read_digest(conn, ada.ctx, limit=3, condense=True)
    assert (_ids(second), second.cursor, second.more) == ([], 5, False)


def test_a_short_digest_lists_posts_and_acks_one_by_one(conn: Connection, ada: Agent, bob: Agent) -> None:
    post_ids = [posts.create(conn, ada.ctx, "hello", to_actor="bob").post_id for _ in range(10)]
    posts.ack(conn, ada.ctx, post_ids)
    result = digest.read_digest(conn, bob.ctx, condense=True)
    assert len(result.events) == digest.MAX_UNCONDENSED_EVENTS
    assert result.left_out == digest.LeftOut()


def test_a_long_digest_counts_the_inbox_and_merges_acks(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    eve = factories.make_agent(conn, project, "eve")
    to_bob = [posts.create(conn, ada.ctx, "hello", to_actor="bob").post_id for _ in range(20)]
    to_eve = [posts.create(conn, ada.ctx, "hello", to_actor="eve").post_id for _ in range(3)]
    posts.ack(conn, eve.ctx, to_eve)
    posts.ack(conn, ada.ctx, to_eve[:1])
    # It is no longer in the inbox, so it is listed.
    posts.ack(conn, bob.ctx, to_bob[:1])
    result = digest.read_digest(conn, bob.ctx, condense=True)
    assert result.left_out == digest.LeftOut(own=1, inbox=19)
    assert [(event.type, event.actor) for event in result.events] == [
        *(("post", ada.actor) for _ in range(4)),
        ("ack", eve.actor),
        ("ack", ada.actor),
    ]
    assert _ids(result)[:4] == [to_bob[0], *to_eve]
    assert result.events[4].payload == {"post_id": to_eve[-1], "post_ids": to_eve}
    assert result.events[5].payload == {"post_id": to_eve[0]}
    assert result.unacked_posts == 19
    everything = digest.read_digest(conn, bob.ctx, since=0, condense=True)
    assert _ids(everything) == list(range(1, result.cursor + 1))
