"""Concurrent acks, lane posts, joins and leaves: one delivery and one ack per recipient."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from bus.coordination import posts, presence
from bus.db import Connection, Database
from bus.errors import BusError
from bus.tenancy import participant_queries, participations, tokens
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_ledger_consistent, list_event_types
from tests.concurrency import failures, run_concurrently, run_numbered_concurrently, wait_until
from tests.factories import Agent


def _pair(db: Database) -> tuple[Project, Agent, Agent]:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        return project, factories.make_agent(conn, project, "ada"), factories.make_agent(conn, project, "bob")


def _deliveries(conn: Connection, agent: Agent, post_id: int) -> int:
    """Count the post in the agent's inbox."""
    inbox = posts.list_posts(conn, agent.ctx, to_me=True, unacked_only=True, limit=200).posts
    return [post.post_id for post in inbox].count(post_id)


def test_twenty_concurrent_acks_of_one_identity_are_one_event(db: Database) -> None:
    project, ada, bob = _pair(db)
    for _ in range(20):
        with db.transaction() as conn:
            post = posts.create(conn, ada.ctx, "hello", to_actor="bob").post_id
        outcomes = run_numbered_concurrently(db, 20, lambda conn, _: posts.ack(conn, bob.ctx, [post])[0])  # noqa: B023
        assert outcomes == [outcomes[0]] * 20
        assert isinstance(outcomes[0], posts.Ack)
    with db.connection() as conn:
        assert list_event_types(conn, project.id) == ["post", "ack"] * 20
        assert_ledger_consistent(conn, project.id)


def test_concurrent_acks_of_overlapping_lists_add_one_event_per_post(db: Database) -> None:
    project, ada, bob = _pair(db)
    for _ in range(15):
        with db.transaction() as conn:
            sent = [posts.create(conn, ada.ctx, "hello", to_actor="bob").post_id for _ in range(6)]
        outcomes = run_numbered_concurrently(
            db, 6, lambda conn, n: posts.ack(conn, bob.ctx, sent[n:] + sent[:n] if n % 2 else sent[::-1])  # noqa: B023
        )  # fmt: skip
        assert failures(outcomes) == []
        with db.connection() as conn:
            assert list_event_types(conn, project.id)[-12:] == ["post"] * 6 + ["ack"] * 6
    with db.connection() as conn:
        assert_ledger_consistent(conn, project.id)


def test_a_post_that_waits_for_the_removal_of_its_recipient_is_refused(db: Database) -> None:
    project, ada, _ = _pair(db)

    def post() -> posts.CreatedPost:
        with db.transaction() as conn:
            return posts.create(conn, ada.ctx, "hello", to_actor="bob")

    def is_post_waiting() -> bool:
        with db.connection() as watcher:
            (waiting,) = watcher.fetch_one(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(waiting)

    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as conn:
            participations.remove(conn, project.id, "bob", actor="cli")
            # The post has found its recipient, and now waits for the clock.
            posted = pool.submit(post)
            wait_until(is_post_waiting)
        with pytest.raises(BusError, match='called "bob"'):
            posted.result()
    with db.connection() as conn:
        assert list_event_types(conn, project.id) == []


def test_a_lane_post_is_delivered_once_to_a_concurrently_joining_member(db: Database) -> None:
    project, ada, bob = _pair(db)
    orders = set()
    for round_ in range(150):
        lane = f"lane-{round_}"
        posted, joined = run_concurrently(
            db,
            lambda conn: posts.create(conn, ada.ctx, "hello", to_lane=lane),  # noqa: B023
            lambda conn: presence.register(conn, bob.ctx, lane),  # noqa: B023
        )
        assert isinstance(joined, presence.Registration)
        orders.add(posted.recipients)
        with db.connection() as conn:
            assert _deliveries(conn, bob, posted.post_id) == 1
    assert orders == {0, 1}, "only one order occurred, so the test is not meaningful"
    with db.connection() as conn:
        assert assert_ledger_consistent(conn, project.id) == 300


def test_a_lane_post_is_withdrawn_from_a_concurrently_leaving_member(db: Database) -> None:
    project, ada, bob = _pair(db)
    orders = set()
    for round_ in range(150):
        lane = f"lane-{round_}"
        with db.transaction() as conn:
            presence.register(conn, bob.ctx, lane)
        posted, left = run_concurrently(
            db,
            lambda conn: posts.create(conn, ada.ctx, "hello", to_lane=lane),  # noqa: B023
            lambda conn: presence.register(conn, bob.ctx, "elsewhere", status=lane),  # noqa: B023
        )
        assert isinstance(left, presence.Registration)
        orders.add(posted.recipients)
        with db.connection() as conn:
            assert _deliveries(conn, bob, posted.post_id) == 0
    assert orders == {0, 1}, "only one order occurred, so the test is not meaningful"
    with db.connection() as conn:
        assert_ledger_consistent(conn, project.id)


def test_a_lane_post_is_delivered_to_a_concurrently_granted_member(db: Database) -> None:
    project, ada, _ = _pair(db)
    for round_ in range(60):
        lane = f"lane-{round_}"
        posted, granted = run_concurrently(
            db,
            lambda conn: posts.create(conn, ada.ctx, "hello", to_lane=lane),  # noqa: B023
            lambda conn: participations.join(conn, project.id, f"new-{lane}", lane=lane, actor="cli"),  # noqa: B023
        )
        with db.connection() as conn:
            assert _deliveries(conn, factories.authenticate_agent(conn, granted), posted.post_id) == 1


def test_a_lane_post_is_delivered_to_a_member_with_a_concurrent_new_token(db: Database) -> None:
    project, ada, bob = _pair(db)
    for round_ in range(60):
        lane = f"lane-{round_}"
        with db.transaction() as conn:
            back = factories.authenticate_agent(conn, tokens.rotate(conn, project.id, "bob", actor="cli"))
            presence.register(conn, back.ctx, lane)
            tokens.revoke_all(conn, project.id, "bob", actor="cli")
        posted, rotated = run_concurrently(
            db,
            lambda conn: posts.create(conn, ada.ctx, "hello", to_lane=lane),  # noqa: B023
            lambda conn: tokens.rotate(conn, project.id, "bob", actor="cli"),
        )
        with db.connection() as conn:
            assert _deliveries(conn, factories.authenticate_agent(conn, rotated), posted.post_id) == 1
    assert bob.ctx.participation_id


def test_a_post_is_delivered_to_a_joining_member_unless_acked_before(db: Database) -> None:
    """A member that joins before the ack receives the post; one that joins afterwards does not."""
    project, ada, bob = _pair(db)
    with db.transaction() as conn:
        eve = factories.make_agent(conn, project, "eve")
    for round_ in range(80):
        lane = f"lane-{round_}"
        with db.transaction() as conn:
            presence.register(conn, bob.ctx, lane)
            post = posts.create(conn, ada.ctx, "hello", to_lane=lane).post_id
        run_concurrently(
            db,
            lambda conn: posts.ack(conn, bob.ctx, [post]),  # noqa: B023
            lambda conn: presence.register(conn, eve.ctx, lane),  # noqa: B023
        )
        with db.connection() as conn:
            order = list_event_types(conn, project.id)[-2:]
            assert _deliveries(conn, eve, post) == (1 if order == ["register", "ack"] else 0)


def test_concurrent_posts_and_acks_keep_the_unread_count(db: Database) -> None:
    project, ada, bob = _pair(db)
    with db.transaction() as conn:
        for agent in (ada, bob):
            presence.register(conn, agent.ctx, "core")

    def work(conn: Connection, number: int) -> int:
        agent, name = ((ada, "bob"), (bob, "ada"))[number % 2]
        return posts.create(conn, agent.ctx, "hello", to_lane="core" if number % 3 else None, to_actor=name).post_id

    for _ in range(5):
        sent = run_numbered_concurrently(db, 16, work)
        assert failures(sent) == []
        with db.connection() as conn:
            assert posts.list_posts(conn, ada.ctx, limit=1).unread == 8
        run_numbered_concurrently(db, 2, lambda conn, n: posts.ack(conn, (ada, bob)[n].ctx, sent))  # noqa: B023
        with db.connection() as conn:
            assert (
                posts.list_posts(conn, ada.ctx, limit=1).unread == posts.list_posts(conn, bob.ctx, limit=1).unread == 0
            )
    with db.connection() as conn:
        assert_ledger_consistent(conn, project.id)


def test_concurrent_identical_registrations_are_one_event(db: Database) -> None:
    project, _, _ = _pair(db)
    for round_ in range(40):
        with db.transaction() as conn:
            agent = factories.make_agent(conn, project)
        outcomes = run_numbered_concurrently(db, 3, lambda conn, _: presence.register(conn, agent.ctx, "core"))  # noqa: B023
        assert outcomes == [outcomes[0]] * 3
        with db.connection() as conn:
            assert list_event_types(conn, project.id) == ["register"] * (round_ + 1)


def test_concurrent_registrations_of_two_lanes_end_in_one_with_its_posts(db: Database) -> None:
    project, ada, _ = _pair(db)
    with db.transaction() as conn:
        sent = {lane: posts.create(conn, ada.ctx, "hello", to_lane=lane).post_id for lane in ("core", "docs")}
    for _ in range(40):
        with db.transaction() as conn:
            agent = factories.make_agent(conn, project)
        run_concurrently(
            db,
            lambda conn: presence.register(conn, agent.ctx, "core"),  # noqa: B023
            lambda conn: presence.register(conn, agent.ctx, "docs"),  # noqa: B023
        )
        with db.connection() as conn:
            lane = participant_queries.whoami(conn, agent.ctx).lane
            assert lane is not None
            inbox = posts.list_posts(conn, agent.ctx, to_me=True, unacked_only=True).posts
            assert [post.post_id for post in inbox] == [sent[lane]]
