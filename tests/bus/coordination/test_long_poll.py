"""Long polls: results, the queue for a surface, readiness, subscriptions, and concurrent polls."""

import itertools
from typing import Any

import pytest

from bus.coordination import leases, long_poll, posts, subscriptions, tasks
from bus.db import Connection, Database
from bus.errors import InvalidArgument, NotAuthenticated
from bus.tenancy import participations, tokens
from bus.tenancy.projects import Project
from tests import concurrency, factories
from tests.factories import Agent


def _poll_once(conn: Connection, agent: Agent, kind: str = "any", **options: Any) -> tuple[str, Any] | None:
    wait = long_poll.begin_wait(conn, agent.ctx, kind, **options)
    result = long_poll.poll(conn, wait)
    long_poll.end_waits(conn, [wait])
    return result


def test_a_poll_without_a_result_is_none_and_not_ready(conn: Connection, ada: Agent, bob: Agent) -> None:
    waits = [long_poll.begin_wait(conn, agent.ctx) for agent in (ada, bob)]
    assert long_poll.find_ready(conn, waits) == []
    assert [long_poll.poll(conn, wait) for wait in waits] == [None, None]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("nothing", {}, "kind must be one of: "),
        ("lease", {}, 'kind "lease" needs surface'),
        ("inbox", {"surface": "src"}, 'surface goes with kind "lease" or "any", not with "inbox"'),
        ("acks", {"take": True}, 'take goes with kind "task" or "any", not with "acks"'),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    conn: Connection, ada: Agent, kind: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        long_poll.begin_wait(conn, ada.ctx, kind, **options)


def test_only_requests_that_may_have_a_result_are_ready(conn: Connection, ada: Agent, bob: Agent) -> None:
    leases.acquire(conn, ada.ctx, "src/a.py")
    waits = {
        (name, kind): long_poll.begin_wait(conn, agent.ctx, kind, surface="src/a.py" if kind == "lease" else None)
        for (name, agent), kind in itertools.product((("ada", ada), ("bob", bob)), ("inbox", "acks", "task", "lease"))
    }

    def ready() -> set[tuple[str, str]]:
        ready_ids = {id(wait) for wait in long_poll.find_ready(conn, list(waits.values()))}
        return {name for name, wait in waits.items() if id(wait) in ready_ids}

    # The holder of the surface does not wait for itself.
    assert ready() == {("ada", "lease")}
    post = posts.create(conn, ada.ctx, "hello", to_actor="bob").post_id
    assert ready() == {("ada", "lease"), ("bob", "inbox")}
    posts.ack(conn, bob.ctx, [post])
    assert ready() == {("ada", "lease"), ("ada", "acks"), ("bob", "acks")}
    leases.release(conn, ada.ctx, "*")
    tasks.create(conn, ada.ctx, "x", owner="bob")
    assert ready() == {
        ("ada", "lease"), ("bob", "lease"), ("ada", "acks"), ("bob", "acks"), ("bob", "task"),
    }  # fmt: skip


def test_each_ack_is_returned_once(conn: Connection, project: Project, ada: Agent, bob: Agent) -> None:
    eve = factories.make_agent(conn, project, "eve", lane="web")
    sent = [posts.create(conn, ada.ctx, str(n), to_actor="bob").post_id for n in range(5)]
    posts.ack(conn, bob.ctx, sent[:2])
    posts.ack(conn, eve.ctx, [sent[0]])
    # Neither her own ack nor the ack of another participant's post is returned.
    posts.ack(conn, ada.ctx, [posts.create(conn, bob.ctx, "x", to_actor="ada").post_id])
    kind, page = _poll_once(conn, ada, "acks") or ("", None)
    assert isinstance(page, posts.PostPage)
    assert (kind, [one.post_id for one in page.posts]) == ("acks", [sent[1], sent[0]])
    assert _poll_once(conn, ada, "acks") is None
    posts.ack(conn, bob.ctx, [sent[4]])
    _, page = _poll_once(conn, ada, "acks") or ("", None)
    assert isinstance(page, posts.PostPage)
    assert [one.post_id for one in page.posts] == [sent[4]]


def test_a_task_is_offered_once_and_stays_available(conn: Connection, ada: Agent, bob: Agent) -> None:
    first, second = (tasks.create(conn, ada.ctx, title, priority=2).task_id for title in ("one", "two"))
    offered = [_poll_once(conn, agent, "task") for agent in (ada, bob, ada)]
    assert [result and result[1].task.task_id for result in offered] == [first, second, None]
    assert tasks.start_next(conn, bob.ctx).task is not None
    assert tasks.start(conn, bob.ctx, second).status == "in_progress"


@pytest.mark.parametrize("surface", ["src/a.py", "src/*.py", "src"])
def test_a_surface_is_free_without_overlapping_leases_of_others(
    conn: Connection, ada: Agent, bob: Agent, surface: str
) -> None:
    leases.acquire(conn, ada.ctx, "src/a.py", mode="shared")
    assert _poll_once(conn, bob, "lease", surface=surface) is None
    assert _poll_once(conn, ada, "lease", surface=surface) is not None
    leases.release(conn, ada.ctx, "*")
    # Ada was notified, and the surface is reserved for her during the grace period.
    assert _poll_once(conn, bob, "lease", surface=surface) is None
    conn.execute("UPDATE waiter SET told_at = told_at - interval '3 seconds'")
    assert _poll_once(conn, bob, "lease", surface=surface) is not None
    assert _poll_once(conn, bob, "lease", surface="docs") is not None


def test_an_ended_wait_does_not_delay_others(conn: Connection, ada: Agent, bob: Agent) -> None:
    first = long_poll.begin_wait(conn, ada.ctx, "lease", surface="src/a.py")
    second = long_poll.begin_wait(conn, bob.ctx, "lease", surface="src/a.py")
    assert long_poll.poll(conn, second) is None
    long_poll.end_waits(conn, [first])
    assert long_poll.poll(conn, second) is not None
    # The positions of a gateway that died expire.
    lost = long_poll.begin_wait(conn, ada.ctx, "lease", surface="src/b.py")
    after = long_poll.begin_wait(conn, bob.ctx, "lease", surface="src/b.py")
    assert long_poll.poll(conn, after) is None
    conn.execute(
        "UPDATE waiter SET alive_until = clock_timestamp() - interval '1 hour' WHERE id = %s",
        (lost.queue_position,),
    )
    assert long_poll.poll(conn, after) is not None
    long_poll.begin_wait(conn, bob.ctx, "lease", surface="docs")
    assert conn.fetch_one("SELECT count(*) FROM waiter WHERE id = %s", (lost.queue_position,)) == (0,)


def test_a_request_that_lost_its_access_is_ready_and_refused(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    wait = long_poll.begin_wait(conn, bob.ctx)
    subscription = subscriptions.begin_subscription(conn, bob.ctx)
    assert subscription is not None
    tokens.revoke_all(conn, project.id, "bob", actor="cli")
    assert long_poll.find_ready(conn, [wait]) == [wait]
    with pytest.raises(NotAuthenticated), conn.raw.transaction():
        long_poll.poll(conn, wait)
    assert subscriptions.fetch_changes(conn, [subscription]) == [None]
    assert subscriptions.begin_subscription(conn, bob.ctx) is None


def test_a_subscription_reports_later_changes(conn: Connection, project: Project, ada: Agent, bob: Agent) -> None:
    subscription = subscriptions.begin_subscription(conn, bob.ctx)
    assert subscription is not None
    tasks.create(conn, ada.ctx, "x")
    posts.create(conn, ada.ctx, "hello", to_actor="bob")
    participations.set_admin(conn, project.id, "bob", True, actor="cli")
    (change,) = subscriptions.fetch_changes(conn, [subscription])
    assert change is not None
    assert change.event_types == {"task_create", "post"}
    assert (change.state.is_admin, subscription.is_admin) == (True, False)
    assert change.state.inbox == (1, change.state.last_seq)
    (again,) = subscriptions.fetch_changes(conn, [change.state])
    assert again == subscriptions.SubscriptionChange(change.state, frozenset())


def test_concurrent_polls_return_each_task_and_each_ack_once(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        agents = [factories.make_agent(conn, project, f"agent-{n}") for n in range(8)]
        lead = factories.make_agent(conn, project, "lead")
        for number in range(5):
            tasks.create(conn, lead.ctx, str(number))
        sent = [posts.create(conn, lead.ctx, str(n), to_actor="agent-0").post_id for n in range(6)]
        posts.ack(conn, agents[0].ctx, sent)

    def poll(conn: Connection, agent: Agent, kind: str) -> object:
        return long_poll.poll(conn, long_poll.begin_wait(conn, agent.ctx, kind))

    offers = concurrency.run_numbered_concurrently(
        db, len(agents), lambda conn, number: poll(conn, agents[number], "task")
    )
    assert sorted(one[1].task.task_id for one in offers if one) == [1, 2, 3, 4, 5]
    # Eight concurrent polls of one identity return each ack once.
    polled_acks = concurrency.run_numbered_concurrently(db, 8, lambda conn, _: poll(conn, lead, "acks"))
    assert sorted(post.post_id for one in polled_acks if one for post in one[1].posts) == sent
