"""wait_for: an agent hears of what concerns it, in whichever process, however the hint travels."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from bus.coordination import posts
from bus.db import Database
from tests.factories import make_agent, make_project
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import McpClient, McpResponse
from tests.mcp_gateway.processes import GatewayProcess, running_gateways

_PATIENCE = 20.0


@pytest.fixture(scope="module")
def pushed(shared_database_url: str) -> Iterator[list[GatewayProcess]]:
    """Two gateways with Redis between them."""
    import os

    from tests import servers

    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    url = servers.redis_url(int(worker.removeprefix("gw")))
    with running_gateways(shared_database_url, 2, REDIS_URL=url) as processes:
        yield processes


@pytest.fixture
def wires(pushed: list[GatewayProcess], team: Team) -> Iterator[tuple[McpClient, McpClient]]:
    """Alice in one process and Bob in the other, both known there."""
    both = McpClient(pushed[0].url, team.alice.token), McpClient(pushed[1].url, team.bob.token)
    for wire in both:
        assert wire.call("whoami").status == 200
    yield both
    for wire in both:
        wire.close()


def _later(work: Any, *args: Any, **kwargs: Any) -> "Future[tuple[McpResponse, float]]":
    """Call in a thread; the reply and when it came."""
    future: Future[tuple[McpResponse, float]] = Future()

    def call() -> None:
        try:
            future.set_result((work(*args, **kwargs), time.monotonic()))
        except BaseException as error:  # noqa: BLE001
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


def _settle() -> None:
    """Until a call that was just sent has begun to wait; a wait that has not begun would only be answered sooner."""
    time.sleep(0.4)


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("kind", ["inbox", "any"])
def test_a_post_wakes_who_waits_in_another_process(
    wires: tuple[McpClient, McpClient], team: Team, kind: str, modern: bool
) -> None:
    alice, bob = wires
    bob.modern = modern
    waiting = _later(bob.call, "wait_for", kind=kind)
    _settle()
    post_id = alice.call("post", body="hello", to_actor="bob").structured_content["post_id"]
    sent = time.monotonic()
    reply, came = waiting.result(_PATIENCE)
    assert (reply.structured_content["kind"], [one["post_id"] for one in reply.structured_content["posts"]]) == (
        "inbox",
        [post_id],
    )
    # Far below the tick without hints (2 s) and with them (15 s): it was told.
    assert came - sent < 1.5
    shown = bob.call("read_posts", to_me=True, unacked_only=True).structured_content
    assert reply.structured_content == {"kind": "inbox", **shown}


def test_what_is_there_already_is_answered_at_once(wires: tuple[McpClient, McpClient]) -> None:
    alice, bob = wires
    post_id = alice.call("post", body="hello", to_actor="bob").structured_content["post_id"]
    started = time.monotonic()
    assert bob.call("wait_for").structured_content["posts"][0]["post_id"] == post_id
    assert time.monotonic() - started < 5


def test_nothing_is_a_timeout(wires: tuple[McpClient, McpClient]) -> None:
    started = time.monotonic()
    assert wires[0].call("wait_for", timeout_seconds=1).structured_content == {"timed_out": True}
    assert 0.9 < time.monotonic() - started < 8


def test_an_ack_of_my_post_is_told_once(wires: tuple[McpClient, McpClient]) -> None:
    alice, bob = wires
    first = alice.call("post", body="one", to_actor="bob").structured_content["post_id"]
    second = alice.call("post", body="two", to_actor="bob").structured_content["post_id"]
    waiting = _later(alice.call, "wait_for", kind="acks")
    _settle()
    bob.call("ack", post_id=second)
    told = waiting.result(_PATIENCE)[0].structured_content
    assert (told["kind"], [(one["post_id"], one["acked"]) for one in told["posts"]]) == ("acks", [(second, True)])
    # An ack between two waits is not lost, and none is told twice; the acks of others are not ours.
    bob.call("ack", post_id=first)
    mine = bob.call("post", body="mine", to_actor="alice").structured_content["post_id"]
    alice.call("ack", post_id=mine)
    assert [one["post_id"] for one in alice.call("wait_for", kind="acks").structured_content["posts"]] == [first]
    assert alice.call("wait_for", kind="acks", timeout_seconds=1).structured_content == {"timed_out": True}
    assert [one["post_id"] for one in bob.call("wait_for", kind="acks").structured_content["posts"]] == [mine]


def test_a_surface_that_becomes_free_is_told(wires: tuple[McpClient, McpClient]) -> None:
    alice, bob = wires
    alice.call("lease", surface="src/a.py")
    waiting = _later(bob.call, "wait_for", kind="lease", surface="src/*.py")
    _settle()
    alice.call("lease", surface="docs/x.md")
    alice.call("release", surface="docs/x.md")
    _settle()
    assert not waiting.done()
    alice.call("release", surface="src/a.py")
    assert waiting.result(_PATIENCE)[0].structured_content == {"kind": "lease", "leases": [], "next_before": None}


def test_a_lease_that_expires_is_told(wires: tuple[McpClient, McpClient]) -> None:
    alice, bob = wires
    alice.call("lease", surface="src/a.py", ttl_seconds=2)
    started = time.monotonic()
    assert bob.call("wait_for", kind="lease", surface="src/a.py").structured_content["kind"] == "lease"
    assert 1 < time.monotonic() - started < 8


def test_my_own_lease_keeps_nobody_from_me(wires: tuple[McpClient, McpClient]) -> None:
    alice, _ = wires
    alice.call("lease", surface="src/a.py")
    assert alice.call("wait_for", kind="lease", surface="src/**").structured_content["kind"] == "lease"


def test_who_came_first_is_told_first(pushed: list[GatewayProcess], gateway_db: Database) -> None:
    """Three wait in two processes, the holder lets go, and each who is told takes the surface in time."""
    with gateway_db.transaction() as conn:
        project = make_project(conn)
        holder, *others = (make_agent(conn, project, name) for name in ("holder", "one", "two", "three"))
    wire = McpClient(pushed[0].url, holder.token)
    wire.call("lease", surface="src/a.py")
    told: list[int] = []
    waiting = []
    wires = [McpClient(pushed[number % 2].url, agent.token) for number, agent in enumerate(others)]

    def queue(number: int) -> McpResponse:
        reply = wires[number].call("wait_for", kind="lease", surface="src/a.py", timeout_seconds=40)
        told.append(number)
        wires[number].call("lease", surface="src/a.py")
        time.sleep(0.3)
        wires[number].call("release", surface="src/a.py")
        return reply

    for number in range(len(others)):
        waiting.append(_later(queue, number))
        _settle()
    wire.call("release", surface="src/a.py")
    for future in waiting:
        assert future.result(40)[0].content["kind"] == "lease"
    assert told == [0, 1, 2]
    for one in (wire, *wires):
        one.close()


def test_who_was_told_and_does_not_take_it_lets_the_next_one_in(
    pushed: list[GatewayProcess], gateway_db: Database
) -> None:
    with gateway_db.transaction() as conn:
        project = make_project(conn)
        holder, one, two = (make_agent(conn, project, name) for name in ("holder", "one", "two"))
    wires = [McpClient(pushed[0].url, agent.token) for agent in (holder, one, two)]
    wires[0].call("lease", surface="src/a.py")
    first = _later(wires[1].call, "wait_for", kind="lease", surface="src/a.py")
    _settle()
    second = _later(wires[2].call, "wait_for", kind="lease", surface="src/a.py")
    _settle()
    wires[0].call("release", surface="src/a.py")
    _, first_came = first.result(_PATIENCE)
    _, second_came = second.result(_PATIENCE)
    # The grace of two seconds, on a machine that may be slow.
    assert 1.5 < second_came - first_came < 10
    for wire in wires:
        wire.close()


def test_a_ready_task_is_offered_to_one_of_those_who_wait(pushed: list[GatewayProcess], gateway_db: Database) -> None:
    with gateway_db.transaction() as conn:
        project = make_project(conn)
        lead, *others = (make_agent(conn, project, name) for name in ("lead", "one", "two", "three", "four"))
    wires = [McpClient(pushed[number % 2].url, agent.token) for number, agent in enumerate(others)]
    wire = McpClient(pushed[0].url, lead.token)
    waiting = [_later(one.call, "wait_for", kind="task", timeout_seconds=4) for one in wires]
    _settle()
    task = wire.call("task_create", title="the only one").structured_content["task_id"]
    told = [future.result(_PATIENCE)[0].structured_content for future in waiting]
    assert sorted(one.get("kind", "nothing") for one in told) == ["nothing", "nothing", "nothing", "task"]
    (offered,) = [one["task"] for one in told if "task" in one]
    assert (offered["task_id"], offered["status"], offered["owner"]) == (task, "open", None)
    # An offer binds nobody.
    assert wire.call("task_next").structured_content["task"]["task_id"] == task
    for one in (wire, *wires):
        one.close()


def test_of_many_who_take_each_task_is_started_once(pushed: list[GatewayProcess], gateway_db: Database) -> None:
    with gateway_db.transaction() as conn:
        project = make_project(conn)
        lead, *others = (make_agent(conn, project, f"agent-{n}") for n in range(9))
    wires = [McpClient(pushed[number % 2].url, agent.token) for number, agent in enumerate(others)]
    wire = McpClient(pushed[0].url, lead.token)
    waiting = [_later(one.call, "wait_for", kind="task", take=True, timeout_seconds=10) for one in wires]
    _settle()
    created = {wire.call("task_create", title=f"task {n}").structured_content["task_id"] for n in range(len(others))}
    taken = [future.result(_PATIENCE)[0].structured_content["task"] for future in waiting]
    assert {one["task_id"] for one in taken} == created
    assert {one["status"] for one in taken} == {"in_progress"}
    started = wire.call("query_events", type="task_start").structured_content["events"]
    assert len(started) == len(others)
    for one in (wire, *wires):
        one.close()


def test_writes_that_did_not_come_through_a_gateway_are_found_too(
    wires: tuple[McpClient, McpClient], team: Team, gateway_db: Database
) -> None:
    """Nobody hints; it takes as long as a look now and then."""
    waiting = _later(wires[1].call, "wait_for", kind="inbox", timeout_seconds=30)
    _settle()
    with gateway_db.connection() as conn:
        posts.create(conn, team.alice.ctx, "by itself", to_actor="bob")
    assert waiting.result(25)[0].structured_content["posts"][0]["body"] == "by itself"


def test_a_revoked_token_waits_no_longer(wires: tuple[McpClient, McpClient], team: Team) -> None:
    alice, bob = wires
    waiting = _later(bob.call, "wait_for", timeout_seconds=30)
    _settle()
    alice.call("admin_revoke", participant_name="bob")
    reply, _ = waiting.result(_PATIENCE)
    assert reply.status == 401, reply


def test_nobody_is_woken_by_another_project(
    wires: tuple[McpClient, McpClient], gateway_db: Database, pushed: list[GatewayProcess]
) -> None:
    other = make_team(gateway_db)
    stranger = McpClient(pushed[0].url, other.alice.token)
    waiting = _later(wires[1].call, "wait_for", timeout_seconds=2)
    _settle()
    stranger.call("post", body="not yours", to_actor="bob")
    stranger.call("post", body="not yours", to_lane="web")
    stranger.call("task_create", title="not yours")
    assert waiting.result(_PATIENCE)[0].structured_content == {"timed_out": True}
    stranger.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "lease"}, 'kind "lease" needs surface: the file or glob to wait for.'),
        ({"kind": "inbox", "surface": "a"}, 'surface goes with kind "lease" or "any", not with "inbox"; leave it out.'),
        ({"kind": "acks", "take": True}, 'take goes with kind "task" or "any", not with "acks"; leave it out.'),
        ({"kind": "mail"}, "kind must be one of: inbox, acks, lease, task, any."),
        ({"timeout_seconds": 51}, "timeout_seconds must be a whole number from 1 to 50."),
        ({"timeout_seconds": 0}, "timeout_seconds must be a whole number from 1 to 50."),
        ({"kind": "lease", "surface": "../x"}, None),
    ],
)
def test_bad_arguments_say_what_to_send(
    wires: tuple[McpClient, McpClient], arguments: dict[str, Any], words: str | None
) -> None:
    error = wires[0].call("wait_for", **arguments).error
    assert error["code"] == "invalid_argument"
    if words is not None:
        assert error["message"] == words


def test_a_client_that_goes_away_frees_its_place(pushed: list[GatewayProcess], gateway_db: Database) -> None:
    with gateway_db.transaction() as conn:
        project = make_project(conn)
        holder, gone, next_one = (make_agent(conn, project, name) for name in ("holder", "gone", "next"))
    wire = McpClient(pushed[0].url, holder.token)
    wire.call("lease", surface="src/a.py")
    leaving = McpClient(pushed[0].url, gone.token)
    leaving.http_client.timeout = 1.0  # type: ignore[assignment]
    with pytest.raises(Exception, match="timed out"):
        leaving.call("wait_for", kind="lease", surface="src/a.py", timeout_seconds=40)
    leaving.close()
    assert _eventually(lambda: _places(gateway_db, project.id) == 0)
    wire.close()
    del next_one


def _places(db: Database, project_id: int) -> int:
    with db.connection() as conn:
        return int(conn.fetch_one("SELECT count(*) FROM waiter WHERE project_id = %s", (project_id,))[0])


def _eventually(check: Any) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.1)
    return False


def test_a_token_may_only_wait_so_often(database_url: str) -> None:
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    db.close()
    with running_gateways(database_url, WAITS_PER_TOKEN="3") as (process,):
        wires = [McpClient(process.url, team.bob.token) for _ in range(4)]
        assert wires[0].call("whoami").status == 200
        waiting = [_later(wire.call, "wait_for", timeout_seconds=10) for wire in wires[:3]]
        _settle()
        refused = wires[3].call("wait_for")
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        # Others are not affected, and other calls of the same token neither.
        alice = McpClient(process.url, team.alice.token)
        assert alice.call("wait_for", timeout_seconds=1).structured_content == {"timed_out": True}
        assert wires[3].call("whoami").status == 200
        alice.call("post", body="x", to_actor="bob")
        for future in waiting:
            assert future.result(_PATIENCE)[0].structured_content["kind"] == "inbox"
        assert wires[3].call("wait_for").structured_content["kind"] == "inbox"
        for wire in (*wires, alice):
            wire.close()


@pytest.mark.parametrize("modern", [True, False])
def test_a_process_that_stops_says_come_again(database_url: str, modern: bool) -> None:
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    db.close()
    with running_gateways(database_url) as (process,):
        wire = McpClient(process.url, team.bob.token, modern)
        assert wire.call("whoami").status == 200
        waiting = _later(wire.call, "wait_for", timeout_seconds=50)
        _settle()
        started = time.monotonic()
        process.stop()
        said = waiting.result(_PATIENCE)[0].structured_content
        assert said == {"timed_out": True, "message": "The bus is restarting; call wait_for again."}
        assert time.monotonic() - started < 8
        wire.close()
