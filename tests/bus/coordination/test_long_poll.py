"""Waiting: what there is for whom, whose turn it is, and who may have news; and races at a barrier."""

import itertools

import pytest

from bus.coordination import leases, long_poll, posts, tasks
from bus.db import Connection, Database
from bus.errors import NotAuthenticated
from bus.tenancy import participations, tokens
from bus.tenancy.projects import Project
from tests import concurrency, factories
from tests.factories import Agent


def _look(conn: Connection, agent: Agent, kind: str = "any", **what: object) -> tuple[str, object] | None:
    wait = long_poll.begin_wait(conn, agent.ctx, kind, **what)  # type: ignore[arg-type]
    news = long_poll.poll(conn, wait)
    long_poll.end_waits(conn, [wait])
    return news


def test_nothing_is_none_and_nobody_is_due(conn: Connection, ada: Agent, bob: Agent) -> None:
    waits = [long_poll.begin_wait(conn, agent.ctx) for agent in (ada, bob)]
    assert long_poll.find_ready(conn, waits) == []
    assert [long_poll.poll(conn, wait) for wait in waits] == [None, None]


def test_only_who_may_have_news_is_due(conn: Connection, ada: Agent, bob: Agent) -> None:
    leases.acquire(conn, ada.ctx, "src/a.py")
    waits = {
        (name, kind): long_poll.begin_wait(conn, agent.ctx, kind, surface="src/a.py" if kind == "lease" else None)
        for (name, agent), kind in itertools.product((("ada", ada), ("bob", bob)), ("inbox", "acks", "task", "lease"))
    }

    def due() -> set[tuple[str, str]]:
        found = {id(wait) for wait in long_poll.find_ready(conn, list(waits.values()))}
        return {name for name, wait in waits.items() if id(wait) in found}

    # Whoever holds the surface waits for nobody.
    assert due() == {("ada", "lease")}
    post = posts.create(conn, ada.ctx, "hello", to_actor="bob").post_id
    assert due() == {("ada", "lease"), ("bob", "inbox")}
    posts.ack(conn, bob.ctx, [post])
    assert due() == {("ada", "lease"), ("ada", "acks"), ("bob", "acks")}
    leases.release(conn, ada.ctx, "*")
    tasks.create(conn, ada.ctx, "x", owner="bob")
    assert due() == {
        ("ada", "lease"), ("bob", "lease"), ("ada", "acks"), ("bob", "acks"), ("bob", "task"),
    }  # fmt: skip


def test_the_acks_of_one_look_are_all_that_came_and_none_comes_again(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    eve = factories.make_agent(conn, project, "eve", lane="web")
    sent = [posts.create(conn, ada.ctx, str(n), to_actor="bob").post_id for n in range(5)]
    posts.ack(conn, bob.ctx, sent[:2])
    posts.ack(conn, eve.ctx, [sent[0]])
    # Her own ack says nothing to her, and the ack of another's post neither.
    posts.ack(conn, ada.ctx, [posts.create(conn, bob.ctx, "x", to_actor="ada").post_id])
    kind, found = _look(conn, ada, "acks") or ("", None)
    assert isinstance(found, posts.PostPage)
    assert (kind, [one.post_id for one in found.posts]) == ("acks", [sent[1], sent[0]])
    assert _look(conn, ada, "acks") is None
    posts.ack(conn, bob.ctx, [sent[4]])
    _, found = _look(conn, ada, "acks") or ("", None)
    assert isinstance(found, posts.PostPage)
    assert [one.post_id for one in found.posts] == [sent[4]]


def test_an_offer_is_made_once_and_binds_nobody(conn: Connection, ada: Agent, bob: Agent) -> None:
    first, second = (tasks.create(conn, ada.ctx, title, priority=2).task_id for title in ("one", "two"))
    offered = [_look(conn, agent, "task") for agent in (ada, bob, ada)]
    assert [one and one[1].task.task_id for one in offered] == [first, second, None]  # type: ignore[union-attr]
    assert tasks.start_next(conn, bob.ctx).task is not None
    assert tasks.start(conn, bob.ctx, second).status == "in_progress"


@pytest.mark.parametrize("surface", ["src/a.py", "src/*.py", "src"])
def test_a_surface_is_free_when_nobody_else_holds_what_overlaps(
    conn: Connection, ada: Agent, bob: Agent, surface: str
) -> None:
    leases.acquire(conn, ada.ctx, "src/a.py", mode="shared")
    assert _look(conn, bob, "lease", surface=surface) is None
    assert _look(conn, ada, "lease", surface=surface) is not None
    leases.release(conn, ada.ctx, "*")
    # Ada was told, and is left alone with it for a moment.
    assert _look(conn, bob, "lease", surface=surface) is None
    conn.execute("UPDATE waiter SET told_at = told_at - interval '3 seconds'")
    assert _look(conn, bob, "lease", surface=surface) is not None
    assert _look(conn, bob, "lease", surface="docs") is not None


def test_who_stopped_waiting_holds_nobody_up(conn: Connection, ada: Agent, bob: Agent) -> None:
    first = long_poll.begin_wait(conn, ada.ctx, "lease", surface="src/a.py")
    second = long_poll.begin_wait(conn, bob.ctx, "lease", surface="src/a.py")
    assert long_poll.poll(conn, second) is None
    long_poll.end_waits(conn, [first])
    assert long_poll.poll(conn, second) is not None
    # A door that died says nothing; its places run out.
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


def test_who_may_no_longer_call_is_due_and_is_told_so(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    wait = long_poll.begin_wait(conn, bob.ctx)
    watch = long_poll.begin_subscription(conn, bob.ctx)
    assert watch is not None
    tokens.revoke_all(conn, project.id, "bob", actor="cli")
    assert long_poll.find_ready(conn, [wait]) == [wait]
    with pytest.raises(NotAuthenticated), conn.raw.transaction():
        long_poll.poll(conn, wait)
    assert long_poll.fetch_changes(conn, [watch]) == [None]
    assert long_poll.begin_subscription(conn, bob.ctx) is None


def test_a_watch_is_told_of_what_came_after_it(conn: Connection, project: Project, ada: Agent, bob: Agent) -> None:
    watch = long_poll.begin_subscription(conn, bob.ctx)
    assert watch is not None
    tasks.create(conn, ada.ctx, "x")
    posts.create(conn, ada.ctx, "hello", to_actor="bob")
    participations.set_admin(conn, project.id, "bob", True, actor="cli")
    (change,) = long_poll.fetch_changes(conn, [watch])
    assert change is not None
    assert change.event_types == {"task_create", "post"}
    assert (change.state.is_admin, watch.is_admin) == (True, False)
    assert change.state.inbox == (1, change.state.last_seq)
    (again,) = long_poll.fetch_changes(conn, [change.state])
    assert again == long_poll.SubscriptionChange(change.state, frozenset())


def test_of_many_who_look_at_once_one_is_offered_each_task_and_one_told_of_each_ack(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        agents = [factories.make_agent(conn, project, f"agent-{n}") for n in range(8)]
        lead = factories.make_agent(conn, project, "lead")
        for number in range(5):
            tasks.create(conn, lead.ctx, str(number))
        sent = [posts.create(conn, lead.ctx, str(n), to_actor="agent-0").post_id for n in range(6)]
        posts.ack(conn, agents[0].ctx, sent)

    def look(conn: Connection, agent: Agent, kind: str) -> object:
        return long_poll.poll(conn, long_poll.begin_wait(conn, agent.ctx, kind))

    offers = concurrency.run_numbered_concurrently(
        db, len(agents), lambda conn, number: look(conn, agents[number], "task")
    )
    assert sorted(one[1].task.task_id for one in offers if one) == [1, 2, 3, 4, 5]
    # One identity, eight sessions: each ack reaches it once.
    told = concurrency.run_numbered_concurrently(db, 8, lambda conn, _: look(conn, lead, "acks"))
    assert sorted(post.post_id for one in told if one for post in one[1].posts) == sent
