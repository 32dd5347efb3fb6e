"""Every argument of every call at and beyond its limits: a documented error without any change."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeAlias

import pytest

from bus.coordination import digest, leases, ledger, posts, presence, sequences, task_queries, tasks
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError
from bus.tenancy import participant_queries, participations, tokens
from tests import factories, scenarios
from tests.assertions import database_checksum
from tests.scenarios import Scenario

Call: TypeAlias = Callable[[Connection, Ctx, Scenario, Any], Any]


def _name(most: int) -> list[str]:
    unseen = ["\0", "\x1b", "\n", "\x7f", "\u200b", "\u202e", "\u2066", "\u2028", "\ud800", "\udfff", "\ufeff"]
    return [
        "",
        " ",
        " padded",
        "padded ",
        *unseen,
        *(f"a{char}b" for char in unseen),
        "x" * (most + 1),
        "é" * (most + 1),
        "x" * 1_000_000,
    ]


def _label() -> list[str]:
    return [*_name(64), "/", "a/", "/a", "A/b", "a/b/c", "-a/b", "h/" + "x" * 65, "h" * 65 + "/x", "a/b\0", "a/\ud800"]


def _words(most: int, least: int = 1) -> list[str]:
    refused = ["\0", "a\0b", "\x1b[0m", "\x08", "\ud800", "a\udc00b", "x" * (most + 1), "𝕏" * (most + 1)]
    return [*refused, ""] if least else refused


def _integer(least: int, most: int) -> list[Any]:
    far = [-1, -(2**31) - 1, -(2**53), -(2**63) - 1, 2**53, 2**63, 10**40, float("nan"), float("inf"), -float("inf")]
    return [least - 1, most + 1, *(value for value in far if not least <= value <= most)]


_SEQUENCE = ["", "A", "a b", "ä", "a/b", "a.b", "a\n", "\0", "\ud800", "x" * 65, "%s"]
_SURFACE = ["", " ", "..", "a/../..", "/a", "~", "a\\b", "\0", "a\nb", "\u202e", "\ud800", "x" * 201, "{a", "a}"]
_WRONG = ["", "nothing", "CLAIM", "\0", "\ud800", "x" * 100_000]
_TIME = ["", "yesterday", "2026-13-01", "12:00", "\0", "\ud800", "2026-01-31T12:00:00+25:00", "x" * 100_000,
         "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "NaN", "infinity", "now"]  # fmt: skip
_ID = _integer(1, 2**53 - 1)
_KEY = _name(64)


def _seconds(value: Any) -> timedelta:
    return timedelta(seconds=value) if abs(value) < 10**9 else timedelta.max


_CASES: dict[str, tuple[Call, list[Any]]] = {
    "post body": (lambda c, x, s, v: posts.create(c, x, v, to_actor="mate"), _words(8000)),
    "post to_lane": (lambda c, x, s, v: posts.create(c, x, "b", to_lane=v), _name(64)),
    "post to_actor": (lambda c, x, s, v: posts.create(c, x, "b", to_actor=v), _label()),
    "post to_actor with a key": (
        lambda c, x, s, v: posts.create(c, x, "b", to_actor=v, idempotency_key="k"),
        _label(),
    ),
    "post subject": (lambda c, x, s, v: posts.create(c, x, "b", to_lane="l", subject=v), _words(200)),
    "post ref": (lambda c, x, s, v: posts.create(c, x, "b", to_lane="l", ref=v), _name(200)),
    "post tag": (lambda c, x, s, v: posts.create(c, x, "b", to_lane="l", tag=v), _name(64)),
    "post reply_to": (lambda c, x, s, v: posts.create(c, x, "b", to_lane="l", reply_to=v), _ID),
    "post ack_within_seconds": (
        lambda c, x, s, v: posts.create(c, x, "b", to_lane="l", ack_within_seconds=v),
        _integer(1, 86_400),
    ),
    "post idempotency_key": (lambda c, x, s, v: posts.create(c, x, "b", to_lane="l", idempotency_key=v), _KEY),
    "ack post_id": (lambda c, x, s, v: posts.ack(c, x, [s.post_id, v]), _ID),
    "ack post_ids": (lambda c, x, s, v: posts.ack(c, x, v), [[], [1] * 101]),
    "read_posts to_lane": (lambda c, x, s, v: posts.list_posts(c, x, to_lane=v), _name(64)),
    "read_posts tag": (lambda c, x, s, v: posts.list_posts(c, x, tag=v), _name(64)),
    "read_posts ref": (lambda c, x, s, v: posts.list_posts(c, x, ref=v), _name(200)),
    "read_posts reply_to": (lambda c, x, s, v: posts.list_posts(c, x, reply_to=v), _ID),
    "read_posts before": (lambda c, x, s, v: posts.list_posts(c, x, before=v), _ID),
    "read_posts limit": (lambda c, x, s, v: posts.list_posts(c, x, limit=v), _integer(1, 200)),
    "query_events actor": (lambda c, x, s, v: ledger.query_events(c, x, actor=v), _label()),
    "query_events type": (lambda c, x, s, v: ledger.query_events(c, x, type=v), _WRONG),
    "query_events sequence": (lambda c, x, s, v: ledger.query_events(c, x, sequence=v), _SEQUENCE),
    "query_events number": (lambda c, x, s, v: ledger.query_events(c, x, number=v), _integer(0, 2**53 - 1)),
    "query_events ref": (lambda c, x, s, v: ledger.query_events(c, x, ref=v), _name(200)),
    "query_events tag": (lambda c, x, s, v: ledger.query_events(c, x, tag=v), _name(64)),
    "query_events since": (lambda c, x, s, v: ledger.query_events(c, x, since=v), _TIME),
    "query_events until": (lambda c, x, s, v: ledger.query_events(c, x, until=v), _TIME),
    "query_events last_n": (lambda c, x, s, v: ledger.query_events(c, x, last_n=v), _integer(1, 1000)),
    "query_events limit": (lambda c, x, s, v: ledger.query_events(c, x, limit=v), _integer(1, 1000)),
    "query_events before": (lambda c, x, s, v: ledger.query_events(c, x, before=v), _ID),
    "whats_new limit": (lambda c, x, s, v: digest.read_digest(c, x, limit=v), _integer(1, 500)),
    "whats_new since": (lambda c, x, s, v: digest.read_digest(c, x, since=v), _integer(0, 2**53 - 1)),
    "claim sequence": (lambda c, x, s, v: sequences.claim(c, x, v), _SEQUENCE),
    "claim note": (lambda c, x, s, v: sequences.claim(c, x, "s", note=v), _words(500)),
    "claim idempotency_key": (lambda c, x, s, v: sequences.claim(c, x, "s", idempotency_key=v), _KEY),
    "seed sequence": (lambda c, x, s, v: sequences.seed(c, x, v, 1), _SEQUENCE),
    "seed current": (lambda c, x, s, v: sequences.seed(c, x, "s", v), _integer(0, 2**53 - 1)),
    "seed prefix": (lambda c, x, s, v: sequences.seed(c, x, "s", 1, prefix=v), [v for v in _name(16) if v]),
    "seed pad": (lambda c, x, s, v: sequences.seed(c, x, "s", 1, pad=v), _integer(0, 12)),
    "latest_claims before": (lambda c, x, s, v: sequences.list_latest_claims(c, x, before=v), _SEQUENCE),
    "latest_claims limit": (lambda c, x, s, v: sequences.list_latest_claims(c, x, limit=v), _integer(1, 500)),
    "list_sequences before": (lambda c, x, s, v: sequences.list_sequences(c, x, before=v), _SEQUENCE),
    "list_sequences limit": (lambda c, x, s, v: sequences.list_sequences(c, x, limit=v), _integer(1, 500)),
    "lease surface": (lambda c, x, s, v: leases.acquire(c, x, v), _SURFACE),
    "lease ttl": (lambda c, x, s, v: leases.acquire(c, x, "a", ttl=_seconds(v)), [0, -1, 0.9, 86_401, 10**10]),
    "lease note": (lambda c, x, s, v: leases.acquire(c, x, "a", note=v), _words(500)),
    "lease mode": (lambda c, x, s, v: leases.acquire(c, x, "a", mode=v), _WRONG),
    "release surface": (lambda c, x, s, v: leases.release(c, x, v), _SURFACE),
    "who_holds surface": (lambda c, x, s, v: leases.list_leases(c, x, surface=v), _SURFACE),
    "who_holds before": (lambda c, x, s, v: leases.list_leases(c, x, before=v), _ID),
    "who_holds limit": (lambda c, x, s, v: leases.list_leases(c, x, limit=v), _integer(1, 200)),
    "task_create title": (lambda c, x, s, v: tasks.create(c, x, v), _words(200)),
    "task_create detail": (lambda c, x, s, v: tasks.create(c, x, "t", detail=v), _words(4000)),
    "task_create lane": (lambda c, x, s, v: tasks.create(c, x, "t", lane=v), _name(64)),
    "task_create owner": (lambda c, x, s, v: tasks.create(c, x, "t", owner=v), _label()),
    "task_create owner with a key": (
        lambda c, x, s, v: tasks.create(c, x, "t", owner=v, idempotency_key="k"),
        _label(),
    ),
    "task_create priority": (lambda c, x, s, v: tasks.create(c, x, "t", priority=v), _integer(0, 4)),
    "task_create blocked_on": (lambda c, x, s, v: tasks.create(c, x, "t", blocked_on=[s.open_task_id, v]), _ID),
    "task_create blocked_on, too many": (
        lambda c, x, s, v: tasks.create(c, x, "t", blocked_on=v),
        [list(range(1, 52)), list(range(1, 100_000))],
    ),
    "task_create idempotency_key": (lambda c, x, s, v: tasks.create(c, x, "t", idempotency_key=v), _KEY),
    "task_assign task_id": (lambda c, x, s, v: tasks.assign(c, x, v, "mate"), _ID),
    "task_assign owner": (lambda c, x, s, v: tasks.assign(c, x, s.open_task_id, v), _label()),
    "task_start task_id": (lambda c, x, s, v: tasks.start(c, x, v), _ID),
    "task_block task_id": (lambda c, x, s, v: tasks.block(c, x, v, "r"), _ID),
    "task_block reason": (lambda c, x, s, v: tasks.block(c, x, s.running_task_id, v), _words(500)),
    "task_block on": (lambda c, x, s, v: tasks.block(c, x, s.running_task_id, "r", on=v), _ID),
    "task_resolve task_id": (lambda c, x, s, v: tasks.resolve(c, x, v), _ID),
    "task_resolve blocker": (lambda c, x, s, v: tasks.resolve(c, x, s.blocked_task_id, blocker=v), _ID),
    "task_ship task_id": (lambda c, x, s, v: tasks.ship(c, x, v), _ID),
    "task_ship ref": (lambda c, x, s, v: tasks.ship(c, x, s.running_task_id, ref=v), _name(200)),
    "task_next lane": (lambda c, x, s, v: tasks.start_next(c, x, lane=v), _name(64)),
    "list_tasks status": (lambda c, x, s, v: task_queries.list_tasks(c, x, status=v), _WRONG),
    "list_tasks owner": (lambda c, x, s, v: task_queries.list_tasks(c, x, owner=v), _label()),
    "list_tasks lane": (lambda c, x, s, v: task_queries.list_tasks(c, x, lane=v), _name(64)),
    "list_tasks before": (lambda c, x, s, v: task_queries.list_tasks(c, x, before=v), _ID),
    "list_tasks limit": (lambda c, x, s, v: task_queries.list_tasks(c, x, limit=v), _integer(1, 200)),
    "register lane": (lambda c, x, s, v: presence.register(c, x, v), _name(64)),
    "register status": (lambda c, x, s, v: presence.register(c, x, "l", status=v), _words(140, 0)),
    "who_is_active lane": (lambda c, x, s, v: presence.list_active(c, x, lane=v), _name(64)),
    "who_is_active within": (
        lambda c, x, s, v: presence.list_active(c, x, within_seconds=v),
        _integer(1, 86_400),
    ),
    "who_is_active before": (lambda c, x, s, v: presence.list_active(c, x, before=v), _name(129)),
    "who_is_active limit": (lambda c, x, s, v: presence.list_active(c, x, limit=v), _integer(1, 200)),
    "list_participants before": (lambda c, x, s, v: participant_queries.list_participants(c, x, before=v), _name(129)),
    "list_participants limit": (
        lambda c, x, s, v: participant_queries.list_participants(c, x, limit=v),
        _integer(1, 200),
    ),
    "admin_provision name": (lambda c, x, s, v: participations.provision(c, x, v), _label()),
    "admin_provision kind": (lambda c, x, s, v: participations.provision(c, x, "n", kind=v), _WRONG),
    "admin_provision lane": (lambda c, x, s, v: participations.provision(c, x, "n", lane=v), _name(64)),
    "admin_rotate name": (lambda c, x, s, v: tokens.rotate_as_admin(c, x, v), _label()),
    "admin_revoke name": (lambda c, x, s, v: tokens.revoke_as_admin(c, x, v), _label()),
}


def _refusal(conn: Connection, scene: Scenario, call: Call, value: Any) -> BusError | None:
    try:
        with conn.raw.transaction():
            call(conn, scene.caller.ctx, scene, value)
    except BusError as error:
        return error
    return None


@pytest.fixture(scope="module")
def scenario(module_conn: Connection) -> Scenario:
    return scenarios.create_scenario(module_conn)


@pytest.fixture
def conn(module_conn: Connection, scenario: Scenario) -> Iterator[Connection]:
    """A connection that returns to the scenario at the end."""
    with module_conn.raw.transaction(force_rollback=True):
        yield module_conn


@pytest.mark.parametrize("argument", _CASES)
def test_a_bad_argument_is_refused_and_changes_nothing(conn: Connection, scenario: Scenario, argument: str) -> None:
    call, values = _CASES[argument]
    before = database_checksum(conn)
    for value in values:
        shown = f"{argument} = {value!r:.40}"
        error = _refusal(conn, scenario, call, value)
        assert error is not None, f"{shown} was taken"
        assert error.code == "invalid_argument", (shown, error.message)
        message = error.message
        assert message.endswith("."), shown
        assert len(message) < 500, shown
        assert message.isprintable(), shown
    assert database_checksum(conn) == before


def test_every_argument_is_accepted_at_its_limit(conn: Connection, scenario: Scenario) -> None:
    me, mate = scenario.caller.ctx, scenario.teammate.ctx
    posts.create(
        conn, me, "x" * 8000, to_lane="l" * 64, to_actor=f"{scenario.caller.handle}/mate", subject="s" * 200,
        ref="r" * 200, tag="t" * 64, reply_to=scenario.post_id, ack_within_seconds=86_400, idempotency_key="k" * 64,
    )  # fmt: skip
    sequences.claim(conn, me, "s" * 64, note="n" * 500)
    sequences.seed(conn, me, "top", 2**53 - 1, prefix="p" * 16, pad=12)
    leases.acquire(conn, me, "x" * 200, ttl=timedelta(hours=24), note="n" * 500)
    made = [tasks.create(conn, me, str(number)).task_id for number in range(50)]
    big = tasks.create(conn, me, "t" * 200, detail="d" * 4000, lane="l" * 64, priority=4, blocked_on=made)
    tasks.resolve(conn, me, big.task_id)
    tasks.start(conn, me, big.task_id)
    tasks.block(conn, me, big.task_id, "r" * 500)
    tasks.resolve(conn, me, big.task_id)
    tasks.ship(conn, me, big.task_id, ref="r" * 200)
    presence.register(conn, mate, "l" * 64, status="s" * 140)
    factories.make_agent(conn, scenario.project, "x" * 64)
    assert ledger.query_events(conn, me, number=2**53 - 1, before=2**53 - 1, limit=1000).events == []
    assert digest.read_digest(conn, me, since=2**53 - 1, limit=500).events == []
    assert posts.list_posts(conn, me, limit=200, tag="t" * 64, ref="r" * 200).posts
    assert presence.list_active(conn, me, within_seconds=86_400, lane="l" * 64).active


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE event; --", "%s", "%(me)s", "{0}", "\\", "$1", "🦜", "עברית", "a'b\"c"]
)
def test_text_is_never_interpreted(conn: Connection, scenario: Scenario, text: str) -> None:
    me = scenario.caller.ctx
    posts.create(conn, me, text, to_lane=text, subject=text, ref=text, tag=text, idempotency_key=text)
    tasks.create(conn, me, text, detail=text, lane=text)
    presence.register(conn, me, text, status=text)
    # A surface with one of these characters is refused.
    leases.acquire(conn, me, text.translate(dict.fromkeys(map(ord, "\\'\";{}"), "?")), note=text)
    (post,) = posts.list_posts(conn, me, to_lane=text, tag=text, ref=text).posts
    assert (post.body, post.subject, post.to_lane, post.ref, post.tag) == (text,) * 5
    assert [event.type for event in ledger.query_events(conn, me, ref=text).events] == ["post"]
    assert [task.title for task in task_queries.list_tasks(conn, me, lane=text).tasks] == [text]
    assert [one.status for one in presence.list_active(conn, me, lane=text).active] == [text]
    for name in (text, f"{scenario.caller.handle}/{text}"):
        with pytest.raises(BusError), conn.raw.transaction():
            posts.create(conn, me, "b", to_actor=name)
