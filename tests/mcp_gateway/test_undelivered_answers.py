"""What a call took is given back when its client departs before it has the answer, at whichever moment."""

import contextlib
import itertools
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from bus.coordination import digest, posts, tasks
from bus.db import Database
from tests.assertions import assert_ledger_consistent
from tests.concurrency import vary_timing, wait_until
from tests.factories import Agent, make_agent
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess, running_gateways

_ROUNDS = 8


@pytest.fixture(scope="module", params=["1", "0"], ids=["direct", "sdk"])
def gateway(request: pytest.FixtureRequest, shared_database_url: str) -> Iterator[GatewayProcess]:
    with running_gateways(shared_database_url, GATEWAY_FAST_PATH=request.param) as (process,):
        yield process


def _send(
    gateway: GatewayProcess,
    agent: Agent,
    tool: str,
    *,
    close: bool = False,
    session: str | None = None,
    **arguments: object,
) -> socket.socket:
    """Send a call on a connection of its own, and return the connection."""
    client = McpClient(gateway.url, agent.token, True)
    body = msgspec.json.encode(client.body("tools/call", {"name": tool, "arguments": arguments}))
    headers = {**client.headers("tools/call", tool), "Host": "127.0.0.1", "Content-Length": str(len(body))}
    client.close()
    if close:
        headers["Connection"] = "close"
    if session is not None:
        headers["X-Bus-Session"] = session
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection = socket.create_connection(("127.0.0.1", int(gateway.url.split(":")[2].partition("/")[0])), timeout=60)
    connection.sendall(f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + body)
    return connection


def _depart_before_the_answer(connection: socket.socket, randomness: random.Random) -> None:
    vary_timing(randomness, 0.03)
    connection.close()


def _depart_by_a_reset(connection: socket.socket, randomness: random.Random) -> None:
    vary_timing(randomness, 0.03)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _depart_without_reading(connection: socket.socket, _: random.Random) -> None:
    """The answer is in the buffer of the client's system, and the client has not read it."""
    connection.recv(1, socket.MSG_PEEK)
    connection.close()


_DEPARTURES: dict[str, Callable[[socket.socket, random.Random], None]] = {
    "before": _depart_before_the_answer,
    "reset": _depart_by_a_reset,
    "unread": _depart_without_reading,
}

# Each pair of departure and call, and of call and connection, occurs in one of them.
_ORDINARY_VARIANTS = [
    ("before", "wait_for", False),
    ("before", "task_next", True),
    ("reset", "wait_for", True),
    ("reset", "task_next", False),
    ("unread", "wait_for", True),
    ("unread", "task_next", False),
]


def _count(db: Database, team: Team, status: str) -> int:
    with db.connection() as conn:
        (count,) = conn.fetch_one(
            "SELECT count(*) FROM task WHERE project_id = %s AND status = %s", (team.project_id, status)
        )
    return int(count)


@pytest.mark.parametrize(
    ("departure", "call", "close"),
    [
        pytest.param(
            *variant,
            id=f"{variant[0]}-{variant[1]}-{'close' if variant[2] else 'keep-alive'}",
            marks=() if variant in _ORDINARY_VARIANTS else pytest.mark.exhaustive,
        )
        for variant in itertools.product(_DEPARTURES, ("wait_for", "task_next"), (False, True))
    ],
)
def test_no_task_stays_taken_by_a_client_that_has_departed(
    gateway: GatewayProcess, team: Team, gateway_db: Database, departure: str, call: str, close: bool
) -> None:
    randomness = random.Random(f"{departure}{call}{close}")
    arguments: dict[str, Any] = {"kind": "task", "take": True, "timeout_seconds": 30} if call == "wait_for" else {}
    for number in range(_ROUNDS):
        # Half of the tasks are there before the call, the others come while it waits.
        waits = call == "wait_for" and number % 2 == 0
        connection = _send(gateway, team.bob, call, close=close, **arguments) if waits else None
        with gateway_db.transaction() as conn:
            task_id = tasks.create(conn, team.alice.ctx, "work", owner="bob" if number % 3 == 0 else None).task_id
        _DEPARTURES[departure](connection or _send(gateway, team.bob, call, close=close, **arguments), randomness)
        if departure == "unread":
            # The answer had been written, so the task had been taken.
            with gateway_db.connection() as conn:
                wait_until(lambda: _events(conn, team, task_id)[-1] != "task_start")  # noqa: B023
    wait_until(lambda: _count(gateway_db, team, "in_progress") == 0)
    # No call is left that takes one afterwards.
    client = McpClient(gateway.url, team.bob.token, True)
    assert [client.call("task_next").structured_content["task"] is not None for _ in range(_ROUNDS)] == [True] * _ROUNDS
    client.close()
    assert _count(gateway_db, team, "in_progress") == _ROUNDS
    with gateway_db.connection() as conn:
        assert_ledger_consistent(conn, team.project_id)


def _events(conn: object, team: Team, task_id: int) -> list[str]:
    rows = conn.fetch_all(  # type: ignore[attr-defined]
        "SELECT type FROM event WHERE project_id = %s AND payload ->> 'task_id' = %s ORDER BY seq",
        (team.project_id, str(task_id)),
    )
    return [event_type for (event_type,) in rows]


@pytest.mark.parametrize("close", [False, True], ids=["keep-alive", "close"])
def test_a_client_that_has_read_the_answer_keeps_the_task_when_it_departs(
    gateway: GatewayProcess, team: Team, gateway_db: Database, close: bool
) -> None:
    for number in range(_ROUNDS):
        with gateway_db.transaction() as conn:
            tasks.create(conn, team.alice.ctx, "work")
        call: dict[str, Any] = {"kind": "task", "take": True, "timeout_seconds": 30} if number % 2 else {}
        connection = _send(gateway, team.bob, "wait_for" if number % 2 else "task_next", close=close, **call)
        received = b""
        while b'"task"' not in received or not received.endswith((b"}", b"\r\n")):
            chunk = connection.recv(65536)
            assert chunk
            received += chunk
        with contextlib.suppress(TimeoutError):
            connection.settimeout(0.05)
            connection.recv(65536)
        connection.close()
    # Another answer of the same process comes after what it had to do for these.
    client = McpClient(gateway.url, team.bob.token, True)
    assert client.call("task_next").structured_content["task"] is None
    client.close()
    assert _count(gateway_db, team, "in_progress") == _ROUNDS


def test_acks_that_no_client_received_are_reported_again(
    gateway: GatewayProcess, team: Team, gateway_db: Database
) -> None:
    with gateway_db.transaction() as conn:
        post_id = posts.create(conn, team.alice.ctx, "x", to_actor="bob").post_id
        posts.ack(conn, team.bob.ctx, [post_id])
    for _ in range(5):
        _depart_without_reading(_send(gateway, team.alice, "wait_for", kind="acks"), random.Random(1))
        with gateway_db.connection() as conn:
            wait_until(
                lambda: (
                    conn.fetch_one(
                        "SELECT count(*) FROM ack_cursor WHERE project_id = %s AND seq >= %s",
                        (team.project_id, post_id),
                    )
                    == (0,)
                )
            )
    client = McpClient(gateway.url, team.alice.token, True)
    page = client.call("wait_for", kind="acks", timeout_seconds=20).structured_content
    assert [post["post_id"] for post in page["posts"]] == [post_id]
    client.close()


def test_events_and_posts_that_no_client_received_are_new_again(
    gateway: GatewayProcess, team: Team, gateway_db: Database
) -> None:
    with gateway_db.transaction() as conn:
        before = digest.read_digest(conn, team.bob.ctx).cursor
        posts.create(conn, team.alice.ctx, "x", to_actor="bob")
    _depart_without_reading(_send(gateway, team.bob, "whats_new"), random.Random(1))
    _depart_without_reading(_send(gateway, team.bob, "read_posts", to_me=True), random.Random(1))
    started = time.monotonic()
    with gateway_db.connection() as conn:
        wait_until(
            lambda: (
                conn.fetch_one(
                    "SELECT seq FROM cursor WHERE project_id = %s AND participation_id = %s",
                    (team.project_id, team.bob.ctx.participation_id),
                )
                == (before,)
            )
        )
        # Longer than the buffer of activity is flushed after.
        wait_until(lambda: time.monotonic() - started > 2)
        assert conn.fetch_one(
            "SELECT count(*) FROM delivery WHERE project_id = %s AND surfaced_at IS NOT NULL", (team.project_id,)
        ) == (0,)


def test_what_a_departed_session_took_is_given_back_to_it_and_not_taken_from_the_others(
    gateway: GatewayProcess, team: Team, gateway_db: Database
) -> None:
    client = McpClient(gateway.url, team.bob.token, True)

    def call(session: str, tool: str, **arguments: object) -> dict[str, Any]:
        content = msgspec.json.encode(client.body("tools/call", {"name": tool, "arguments": arguments}))
        return client.send(content, {**client.headers("tools/call", tool), "X-Bus-Session": session}).structured_content

    def list_events(session: str) -> list[int]:
        return [event["id"] for event in call(session, "whats_new")["events"]]

    for session in ("staying", "departing"):
        list_events(session)
    with gateway_db.transaction() as conn:
        kept, taken = (tasks.create(conn, team.alice.ctx, title).task_id for title in ("first", "second"))
        post_id = posts.create(conn, team.alice.ctx, "x", to_actor="bob").post_id
    assert call("staying", "task_next")["task"]["task_id"] == kept
    assert [post["post_id"] for post in call("staying", "read_posts", to_me=True)["posts"]] == [post_id]
    seen = list_events("staying")
    _depart_without_reading(_send(gateway, team.bob, "whats_new", session="departing"), random.Random(1))
    _depart_without_reading(_send(gateway, team.bob, "read_posts", session="departing", to_me=True), random.Random(1))
    wait: dict[str, Any] = {"kind": "task", "take": True, "timeout_seconds": 20}
    _depart_without_reading(_send(gateway, team.bob, "wait_for", session="departing", **wait), random.Random(1))
    started = time.monotonic()
    with gateway_db.connection() as conn:
        wait_until(lambda: _events(conn, team, taken)[-2:] == ["task_start", "task_requeue"])
        # Longer than the buffer of activity is flushed after.
        wait_until(lambda: time.monotonic() - started > 2)
        assert conn.fetch_all(
            "SELECT id, status, session_key FROM task WHERE project_id = %s ORDER BY id", (team.project_id,)
        ) == [(kept, "in_progress", "staying"), (taken, "open", None)]
        assert conn.fetch_all("SELECT key, post_id FROM session_post WHERE project_id = %s", (team.project_id,)) == [
            ("staying", post_id)
        ]
        assert conn.fetch_one(
            "SELECT surfaced_at IS NOT NULL FROM delivery WHERE project_id = %s", (team.project_id,)
        ) == (True,)
    # To the departed session all of it is new, and to the other one only what has happened since.
    later = list_events("staying")
    assert min(later) > max(seen)
    assert list_events("departing")[: len(seen)] == seen
    assert call("departing", "wait_for", **wait)["task"]["task_id"] == taken
    client.close()


def test_an_offer_and_a_turn_that_no_client_received_go_to_the_next(
    gateway: GatewayProcess, team: Team, gateway_db: Database
) -> None:
    with gateway_db.transaction() as conn:
        tasks.create(conn, team.alice.ctx, "work")
        carol = make_agent_of(conn, team)
    _depart_without_reading(_send(gateway, team.bob, "wait_for", kind="task"), random.Random(1))
    client = McpClient(gateway.url, carol.token, True)
    # An offer lasts 60 seconds.
    assert client.call("wait_for", kind="task", timeout_seconds=20).structured_content.get("kind") == "task"
    client.close()


def make_agent_of(conn: object, team: Team) -> Agent:
    from bus.tenancy import projects

    return make_agent(conn, projects.get(conn, team.project_id), "carol")  # type: ignore[arg-type]
