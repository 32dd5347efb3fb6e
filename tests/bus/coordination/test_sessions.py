"""Sessions of one participation: each has its own cursor and leases, and takes nothing from the others."""

import pytest

from bus.coordination import (
    digest,
    leases,
    ledger,
    long_poll,
    posts,
    presence,
    sequences,
    sessions,
    task_queries,
    tasks,
)
from bus.coordination.long_poll import WaitRequest
from bus.coordination.sessions import SessionEnd, WakeReport
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import InvalidArgument
from bus.tenancy import tokens
from bus.tenancy.projects import Project
from tests.assertions import assert_ledger_consistent
from tests.factories import Agent


def _ids(conn: Connection, ctx: Ctx, limit: int = 100) -> list[int]:
    return [event.id for event in digest.read_digest(conn, ctx, limit=limit).events]


def _claim(conn: Connection, ctx: Ctx, count: int = 1) -> None:
    for _ in range(count):
        sequences.claim(conn, ctx, "s")


@pytest.fixture
def left(ada: Agent) -> Ctx:
    """A session of ada."""
    return ada.ctx.with_session("0193-left")


@pytest.fixture
def right(ada: Agent) -> Ctx:
    """Another session of ada."""
    return ada.ctx.with_session("0193-right")


def test_each_session_reads_each_event_once(conn: Connection, ada: Agent, bob: Agent, left: Ctx, right: Ctx) -> None:
    _claim(conn, bob.ctx, 3)
    assert _ids(conn, left, limit=2) == [1, 2]
    assert _ids(conn, right) == [1, 2, 3]
    assert _ids(conn, left) == [3]
    assert _ids(conn, ada.ctx) == [1, 2, 3]
    _claim(conn, bob.ctx)
    assert _ids(conn, left) == _ids(conn, right) == _ids(conn, ada.ctx) == [4]
    assert _ids(conn, left) == []


def test_reading_without_advancing_leaves_the_cursor_of_a_session(conn: Connection, bob: Agent, left: Ctx) -> None:
    _claim(conn, bob.ctx, 2)
    for _ in range(2):
        assert len(digest.read_digest(conn, left, advance_cursor=False).events) == 2
    assert len(digest.read_digest(conn, left, since=1).events) == 1
    assert _ids(conn, left) == [1, 2]


def test_a_sub_agent_begins_at_its_parents_cursor_and_takes_nothing_from_it(
    conn: Connection, ada: Agent, bob: Agent, left: Ctx
) -> None:
    _claim(conn, bob.ctx, 2)
    _ids(conn, left)
    _claim(conn, bob.ctx, 2)
    assert _ids(conn, ada.ctx.with_session(f"{left.session}/agent-1")) == [3, 4]
    assert _ids(conn, left) == [3, 4]


def test_a_new_session_begins_where_the_calls_without_a_session_stopped(
    conn: Connection, ada: Agent, bob: Agent, left: Ctx
) -> None:
    _claim(conn, bob.ctx, 2)
    _ids(conn, ada.ctx)
    _claim(conn, bob.ctx)
    assert _ids(conn, left) == [3]


def test_a_first_session_begins_100_events_before_the_end(conn: Connection, bob: Agent, left: Ctx) -> None:
    _claim(conn, bob.ctx, 103)
    assert _ids(conn, left) == list(range(4, 104))


def test_events_of_another_session_of_the_caller_are_labelled_and_not_its_own(
    conn: Connection, ada: Agent, bob: Agent, left: Ctx, right: Ctx
) -> None:
    _claim(conn, left)
    _claim(conn, ada.ctx)
    _claim(conn, bob.ctx)
    for events in (digest.read_digest(conn, left).events, ledger.query_events(conn, left).events[::-1]):
        assert [(event.mine, event.session) for event in events] == [(True, None), (True, None), (False, None)]
    for events in (digest.read_digest(conn, right).events, ledger.query_events(conn, right).events[::-1]):
        assert [(event.mine, event.session) for event in events] == [
            (False, "193-left"),
            (True, None),
            (False, None),
        ]
    for events in (digest.read_digest(conn, ada.ctx).events, ledger.query_events(conn, ada.ctx).events[::-1]):
        assert [(event.mine, event.session) for event in events] == [(True, None), (True, None), (False, None)]


def test_every_kind_of_event_carries_its_session(conn: Connection, left: Ctx, right: Ctx) -> None:
    presence.register(conn, left, "web")
    sequences.seed(conn, left, "adr", 3)
    sequences.claim(conn, left, "adr")
    post = posts.create(conn, left, "x", to_actor="ada")
    posts.ack(conn, left, [post.post_id])
    leases.acquire(conn, left, "a")
    leases.acquire(conn, left, "a", mode="shared")
    leases.release(conn, left, "a")
    tasks.start(conn, left, tasks.create(conn, left, "t").task_id)
    events = digest.read_digest(conn, right).events
    assert len({event.type for event in events}) == 9
    assert {event.session for event in events} == {"193-left"}


def test_leases_of_two_sessions_contend_and_end_separately(conn: Connection, ada: Agent, left: Ctx, right: Ctx) -> None:
    first = leases.acquire(conn, left, "src/a.py", note="parser")
    second = leases.acquire(conn, right, "src/a.py")
    assert (first.others, second.renewed) == ([], False)
    (other,) = second.others
    assert (other.actor, other.session, other.note) == (ada.actor, "193-left", "parser")
    assert second.fence > first.fence
    assert leases.acquire(conn, left, "src/a.py").renewed
    assert leases.release(conn, right, "*").released == 1
    assert leases.release(conn, right, "src/a.py").released == 0
    (held,) = leases.list_leases(conn, left).leases
    assert (held.fence, held.session, held.mine) == (first.fence, "193-left", True)
    (held,) = leases.list_leases(conn, right).leases
    assert (held.session, held.mine) == ("193-left", None)


def test_a_session_does_not_contend_with_its_sub_agents_or_with_calls_without_a_session(
    conn: Connection, ada: Agent, left: Ctx
) -> None:
    sub_agents = [ada.ctx.with_session(f"{left.session}/{number}") for number in (1, 2)]
    leases.acquire(conn, left, "src")
    assert leases.acquire(conn, sub_agents[0], "src/a.py").others == []
    assert [other.session for other in leases.acquire(conn, sub_agents[1], "src/a.py").others] == ["193-left/1"]
    assert leases.acquire(conn, ada.ctx, "src/a.py").others == []
    assert leases.release(conn, ada.ctx, "*").released == 1
    assert leases.release(conn, left, "*").released == 1
    assert len(leases.list_leases(conn, ada.ctx).leases) == 2


def _wait(ctx: Ctx, *kinds: str) -> WaitRequest:
    return WaitRequest(ctx, frozenset(kinds or {"inbox"}))


def _waiting(conn: Connection, *waiting: Ctx) -> None:
    """Report that these sessions wait, in this order."""
    for ctx in waiting:
        sessions.report_wake(conn, [WakeReport((ctx.participation_id, ctx.session), waiting=True, listening=False)])


def _woken(conn: Connection, ctx: Ctx) -> list[int] | None:
    """The posts that a wait of the session returns at once; a wait is polled only if it may be ready."""
    request = _wait(ctx)
    result = long_poll.poll(conn, request) if long_poll.find_ready(conn, [request]) else None
    assert result is None or isinstance(result[1], posts.PostPage)
    return None if result is None else [post.post_id for post in result[1].posts]


def test_the_first_ack_takes_a_post_and_the_others_learn_who(
    conn: Connection, bob: Agent, left: Ctx, right: Ctx
) -> None:
    post_id = posts.create(conn, bob.ctx, "review", to_actor="ada").post_id
    (first,) = posts.ack(conn, left, [post_id])
    assert first.taken_by is None
    (second,) = posts.ack(conn, right, [post_id])
    assert (second.acked_at, second.taken_by) == (first.acked_at, "193-left")
    assert posts.ack(conn, left, [post_id]) == [first]
    assert [post.taken_by for post in posts.list_posts(conn, right, to_me=True).posts] == ["193-left"]
    assert [post.taken_by for post in posts.list_posts(conn, left, to_me=True).posts] == [None]
    last = digest.read_digest(conn, right).events[-1]
    assert (last.type, last.mine, last.session) == ("ack", False, "193-left")


def test_a_post_wakes_the_session_that_has_waited_longest_and_then_the_next(
    conn: Connection, ada: Agent, bob: Agent, left: Ctx, right: Ctx
) -> None:
    _waiting(conn, right, left)
    first = posts.create(conn, bob.ctx, "one", to_actor="ada").post_id
    assert _woken(conn, left) is None
    assert _woken(conn, right) == [first]
    assert _woken(conn, left) is None
    # The first is busy now.
    second = posts.create(conn, bob.ctx, "two", to_actor="ada").post_id
    assert _woken(conn, left) == [second]
    assert _woken(conn, right) is None
    # Without an ack another session is woken; the one that was shown the post is not woken again.
    conn.execute("UPDATE delivery SET offered_until = clock_timestamp()")
    assert _woken(conn, right) == [second]
    assert _woken(conn, left) == [first]
    assert _woken(conn, ada.ctx) == [second, first]
    posts.ack(conn, right, [first, second])
    conn.execute("UPDATE delivery SET offered_until = clock_timestamp()")
    assert _woken(conn, left) is None


def test_an_undelivered_wake_up_is_given_back(conn: Connection, bob: Agent, left: Ctx, right: Ctx) -> None:
    _waiting(conn, left, right)
    post_id = posts.create(conn, bob.ctx, "one", to_actor="ada").post_id
    result = long_poll.poll(conn, _wait(left))
    assert result is not None
    assert isinstance(result[1], posts.PostPage)
    assert result[1].surfacing == [post_id]
    assert _woken(conn, right) is None
    long_poll.give_back_result(conn, _wait(left), result)
    _waiting(conn, left)
    assert _woken(conn, right) == [post_id]


def test_acks_are_merged_for_each_session(conn: Connection, bob: Agent, left: Ctx, right: Ctx) -> None:
    post_ids = [posts.create(conn, bob.ctx, "one", to_actor="ada").post_id for _ in range(60)]
    for ctx, acked in ((left, post_ids[:20]), (right, post_ids[20:40]), (left, post_ids[40:])):
        posts.ack(conn, ctx, acked)
    condensed = digest.read_digest(conn, left.with_session("third"), limit=500, since=None, condense=True).events
    acks = {event.session: event.payload["post_ids"] for event in condensed if event.type == "ack"}
    assert acks == {"193-left": [*post_ids[:20], *post_ids[40:]], "93-right": post_ids[20:40]}


def test_a_session_that_stopped_waiting_does_not_hold_a_post_up(
    conn: Connection, bob: Agent, left: Ctx, right: Ctx
) -> None:
    _waiting(conn, left, right)
    sessions.report_wake(conn, [WakeReport((left.participation_id, left.session), waiting=False, listening=False)])
    post_id = posts.create(conn, bob.ctx, "one", to_actor="ada").post_id
    assert _woken(conn, right) == [post_id]


def test_a_session_waits_for_acks_of_its_own_posts(conn: Connection, bob: Agent, left: Ctx, right: Ctx) -> None:
    post_id = posts.create(conn, left, "done?", to_actor="bob").post_id
    assert long_poll.poll(conn, _wait(left, "acks")) is None
    posts.ack(conn, bob.ctx, [post_id])
    assert long_poll.poll(conn, _wait(right, "acks", "inbox")) is None
    result = long_poll.poll(conn, _wait(left, "acks", "inbox"))
    assert result is not None
    assert result[0] == "acks"
    assert long_poll.poll(conn, _wait(left, "acks")) is None


def test_a_session_hands_over_to_another_session_of_its_participation(conn: Connection, left: Ctx, right: Ctx) -> None:
    post_id = posts.create(conn, left, "go on here", to_actor="ada").post_id
    assert _woken(conn, left) is None
    assert _woken(conn, right) == [post_id]
    posts.ack(conn, right, [post_id])
    assert long_poll.poll(conn, _wait(left, "acks")) is not None


def test_a_session_waits_for_a_surface_that_another_session_leases(conn: Connection, left: Ctx, right: Ctx) -> None:
    leases.acquire(conn, left, "src/a.py")
    for ctx, is_ready in ((right, False), (left, True)):
        request = long_poll.begin_wait(conn, ctx, "lease", surface="src/a.py")
        assert bool(long_poll.find_ready(conn, [request])) == is_ready
        assert (long_poll.poll(conn, request) is not None) == is_ready
        long_poll.end_waits(conn, [request])


def test_the_end_of_a_session_releases_what_it_held(
    conn: Connection, ada: Agent, bob: Agent, left: Ctx, right: Ctx
) -> None:
    sub_agent = ada.ctx.with_session(f"{left.session}/agent-1")
    leases.acquire(conn, left, "a")
    leases.acquire(conn, sub_agent, "b")
    kept = leases.acquire(conn, right, "c")
    keyless = leases.acquire(conn, ada.ctx, "d")
    task_ids = [tasks.create(conn, bob.ctx, title).task_id for title in ("one", "two", "three")]
    for ctx, task_id in zip((left, left, right), task_ids, strict=True):
        tasks.start(conn, ctx, task_id)
    tasks.block(conn, left, task_ids[1], "waits")
    post_id = posts.create(conn, bob.ctx, "one", to_actor="ada").post_id
    _waiting(conn, left, right)
    assert _woken(conn, left) == [post_id]
    digest.read_digest(conn, left)
    before = digest.read_digest(conn, right).cursor

    assert sessions.end(conn, left) == SessionEnd("193-left", ended=True, released=2, requeued=1)
    assert sessions.end(conn, left) == SessionEnd("193-left", ended=False, released=0, requeued=0)
    assert {lease.fence for lease in leases.list_leases(conn, ada.ctx).leases} == {kept.fence, keyless.fence}
    assert [(task.status, task.owner) for task in task_queries.list_tasks(conn, bob.ctx).tasks] == [
        ("in_progress", ada.actor),
        ("blocked", ada.actor),
        ("open", None),
    ]
    events = digest.read_digest(conn, right).events
    assert [(event.type, event.payload["reason"], event.session) for event in events] == [
        ("release", "ended", "193-left"),
        ("release", "ended", "193-left"),
        ("task_requeue", "ended", "193-left"),
    ]
    assert events[0].id == before + 1
    # The post wakes the next session at once.
    assert _woken(conn, right) == [post_id]
    assert_ledger_consistent(conn, ada.ctx.project_id)


def test_the_end_of_a_session_leaves_one_whose_key_begins_with_its_key(
    conn: Connection, ada: Agent, bob: Agent
) -> None:
    ended, other = ada.ctx.with_session("0193"), ada.ctx.with_session("0193-2")
    task_id = tasks.create(conn, bob.ctx, "one").task_id
    tasks.start(conn, other, task_id)
    kept = leases.acquire(conn, other, "a")
    leases.acquire(conn, ended, "b")
    sessions.look(conn, other)
    post_id = posts.create(conn, bob.ctx, "one", to_actor="ada").post_id
    _waiting(conn, other)
    assert _woken(conn, other) == [post_id]
    assert sessions.end(conn, ended) == SessionEnd("0193", ended=True, released=1, requeued=0)
    assert [lease.fence for lease in leases.list_leases(conn, ada.ctx).leases] == [kept.fence]
    assert [task.status for task in task_queries.list_tasks(conn, bob.ctx).tasks] == ["in_progress"]
    assert sessions.end(conn, other) == SessionEnd("0193-2", ended=True, released=1, requeued=1)


def test_a_session_begins_where_an_ended_one_has_read(conn: Connection, ada: Agent, bob: Agent, left: Ctx) -> None:
    _claim(conn, bob.ctx, 3)
    _ids(conn, left)
    sessions.end(conn, left)
    _claim(conn, bob.ctx, 2)
    assert _ids(conn, ada.ctx.with_session("next")) == [4, 5]
    assert _ids(conn, left) == [4, 5]


def test_a_late_flush_does_not_revive_an_ended_session_and_a_later_call_does(
    conn: Connection, ada: Agent, left: Ctx
) -> None:
    id_ = (left.participation_id, str(left.session))
    for age, is_listed in ((5.0, False), (-1.0, True)):
        sessions.end(conn, left)
        presence.record_seen(conn, {left.participation_id: 0})
        sessions.record_seen(conn, {id_: (age, left.token_id)})
        (active,) = presence.list_active(conn, ada.ctx).active
        assert (active.sessions is not None) == is_listed


def test_a_look_returns_what_the_session_has_not_been_shown(
    conn: Connection, ada: Agent, bob: Agent, left: Ctx, right: Ctx
) -> None:
    post_ids = [posts.create(conn, bob.ctx, f"body {n}" * 50, to_actor="ada").post_id for n in range(7)]
    silent = sessions.look(conn, left)
    assert (silent.unread, silent.unshown, silent.posts, silent.holders) == (7, None, None, None)
    for expected in (post_ids[:5], post_ids[5:], []):
        seen = sessions.look(conn, left, mail=True)
        assert seen.posts is not None
        assert [post.post_id for post in seen.posts] == expected
        assert all(len(post.body) == 200 for post in seen.posts)
    assert sessions.look(conn, right, mail=True, announce=False).unshown == 7
    assert sessions.look(conn, right, mail=True).unshown == 7
    assert sessions.look(conn, right, mail=True).unshown == 2
    # A post that another session was woken for is its own for a while.
    offered = posts.create(conn, bob.ctx, "x", to_actor="ada").post_id
    assert _woken(conn, left) == [offered]
    assert sessions.look(conn, right, mail=True).unshown == 0
    conn.execute("UPDATE delivery SET offered_until = clock_timestamp()")
    assert sessions.look(conn, right, mail=True).unshown == 1


def test_a_look_names_the_holders_of_a_surface(conn: Connection, ada: Agent, bob: Agent, left: Ctx, right: Ctx) -> None:
    leases.acquire(conn, left, "src/api", note="parser")
    leases.acquire(conn, bob.ctx.with_session("bobs-session"), "src/**/*.py")
    leases.acquire(conn, ada.ctx.with_session(f"{right.session}/1"), "src/api/b.py")
    leases.acquire(conn, right, "src/api/b.py")
    holders = sessions.look(conn, right, surface="src/api/b.py").holders
    assert holders is not None
    assert [(holder.actor, holder.session) for holder in holders] == [(bob.actor, None), (ada.actor, "193-left")]


def test_a_look_without_a_session_is_refused(conn: Connection, ada: Agent) -> None:
    for call in (sessions.look, sessions.end):
        with pytest.raises(InvalidArgument, match="X-Bus-Session"):
            call(conn, ada.ctx)


def test_who_is_active_shows_sessions_and_how_to_wake_them(
    conn: Connection, ada: Agent, bob: Agent, left: Ctx, right: Ctx
) -> None:
    presence.record_seen(conn, {ada.ctx.participation_id: 0, bob.ctx.participation_id: 0})
    assert [(one.wake, one.sessions) for one in presence.list_active(conn, bob.ctx).active] == [(None, None)] * 2
    presence.register(conn, left, "web", status="tests")
    sessions.look(conn, right, hooks=True)
    (me, other) = presence.list_active(conn, bob.ctx).active
    assert (me.wake, other.wake, other.sessions) == ("hooks", None, None)
    assert me.sessions is not None
    shown = {one["session"]: (one.get("status"), one.get("wake")) for one in me.sessions}
    assert shown == {"193-left": ("tests", None), "93-right": (None, "hooks")}
    _waiting(conn, left)
    sessions.report_wake(conn, [WakeReport((bob.ctx.participation_id, None), waiting=False, listening=True)])
    assert [one.wake for one in presence.list_active(conn, bob.ctx).active] == ["waiting", "listening"]


def test_a_post_answers_which_recipients_can_be_reached_now(
    conn: Connection, project: Project, root: Agent, ada: Agent, bob: Agent, left: Ctx, right: Ctx
) -> None:
    assert posts.create(conn, root.ctx, "x", to_actor="ada").reach is None
    sessions.look(conn, right, hooks=True)
    assert posts.create(conn, root.ctx, "x", to_actor="ada").reach == {"next_step": [ada.actor]}
    _waiting(conn, left)
    for agent in (ada, bob):
        presence.register(conn, agent.ctx, "web")
    reach = {"now": [ada.actor], "next_turn": [bob.actor]}
    assert posts.create(conn, root.ctx, "x", to_lane="web").reach == reach
    sessions.end(conn, left)
    sessions.end(conn, right)
    assert posts.create(conn, root.ctx, "x", to_lane="web").reach is None


def test_silent_sessions_and_sessions_of_revoked_tokens_end(
    conn: Connection, project: Project, root: Agent, ada: Agent, bob: Agent, left: Ctx, right: Ctx
) -> None:
    bobs = bob.ctx.with_session("bobs")
    for ctx in (left, right, bobs):
        leases.acquire(conn, ctx, f"{ctx.session}.py")
        sessions.look(conn, ctx)
    assert sessions.list_projects_with_stale_sessions(conn) == []
    sessions_before = "UPDATE agent_session SET last_seen = last_seen - interval '2 hours' WHERE key = %s"
    conn.execute(sessions_before, (left.session,))
    tokens.revoke_as_admin(conn, root.ctx, "bob")
    assert sessions.list_projects_with_stale_sessions(conn) == [project.id]
    assert sessions.end_stale_sessions(conn, project.id) == 2
    assert sessions.list_projects_with_stale_sessions(conn) == []
    (kept,) = leases.list_leases(conn, root.ctx).leases
    assert kept.surface == "0193-right.py"
    released = ledger.query_events(conn, root.ctx, type="release").events
    assert [event.payload["reason"] for event in released] == ["revoked", "silent"]
    # A lease that was taken after the end of its session, and whose gateway wrote nothing since.
    leases.acquire(conn, left, "late.py")
    conn.execute("UPDATE lease SET acquired_at = acquired_at - interval '2 minutes' WHERE surface = 'late.py'")
    assert sessions.end_stale_sessions(conn, project.id) == 1
    assert len(leases.list_leases(conn, root.ctx).leases) == 1
