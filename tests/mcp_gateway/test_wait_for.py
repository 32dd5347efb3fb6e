"""wait_for returns as soon as there is a result, in whichever process the change was made."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from bus.coordination import posts
from bus.db import Database
from tests import servers
from tests.concurrency import hold_for, stretched, wait_until
from tests.factories import make_agent, make_project
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import McpClient, McpResponse
from tests.mcp_gateway.processes import NO_TICKS, GatewayProcess, running_gateways

_TIMEOUT_SECONDS = 120.0


@pytest.fixture(scope="module")
def gateways_with_redis(shared_database_url: str) -> Iterator[list[GatewayProcess]]:
    """Two gateways that share a Redis."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    url = servers.redis_url(int(worker.removeprefix("gw")))
    with running_gateways(shared_database_url, 2, REDIS_URL=url) as processes:
        yield processes


@pytest.fixture
def clients(gateways_with_redis: list[GatewayProcess], team: Team) -> Iterator[tuple[McpClient, McpClient]]:
    """Alice on one process and Bob on the other; both tokens are cached."""
    clients = (
        McpClient(gateways_with_redis[0].url, team.alice.token),
        McpClient(gateways_with_redis[1].url, team.bob.token),
    )
    for client in clients:
        assert client.call("whoami").status == 200
    yield clients
    for client in clients:
        client.close()


def _call_in_thread(work: Any, *args: Any, **kwargs: Any) -> "Future[tuple[McpResponse, float]]":
    """Call in a thread; the future has the response and the time of its arrival."""
    future: Future[tuple[McpResponse, float]] = Future()

    def call() -> None:
        try:
            future.set_result((work(*args, **kwargs), time.monotonic()))
        except BaseException as error:  # noqa: BLE001
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


def _require_waiting(*calls: "Future[Any]") -> None:
    """Let the calls just sent begin to wait, and require that none of them has ended."""
    hold_for(lambda: not any(call.done() for call in calls), seconds=0.4)


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("kind", ["inbox", "any"])
def test_a_post_ends_a_wait_in_another_process(
    clients: tuple[McpClient, McpClient], team: Team, kind: str, modern: bool
) -> None:
    alice, bob = clients
    bob.modern = modern
    waiting = _call_in_thread(bob.call, "wait_for", kind=kind)
    _require_waiting(waiting)
    post_id = alice.call("post", body="hello", to_actor="bob").structured_content["post_id"]
    sent = time.monotonic()
    response, arrived_at = waiting.result(_TIMEOUT_SECONDS)
    assert (
        response.structured_content["kind"],
        [post["post_id"] for post in response.structured_content["posts"]],
    ) == (
        "inbox",
        [post_id],
    )
    # Far below the refresh intervals without notifications (2 s) and with them (15 s).
    assert arrived_at - sent < stretched(1.5)
    inbox = bob.call("read_posts", to_me=True, unacked_only=True).structured_content
    assert response.structured_content == {"kind": "inbox", **inbox}


@pytest.fixture
def without_ticks(
    gateways_with_redis: list[GatewayProcess], shared_database_url: str, team: Team
) -> Iterator[tuple[McpClient, McpClient]]:
    """Alice on a process that polls at no interval, and Bob on another one; notifications arrive."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    url = servers.redis_url(int(worker.removeprefix("gw")))
    with running_gateways(shared_database_url, constants=NO_TICKS, REDIS_URL=url) as (process,):
        alice, bob = McpClient(process.url, team.alice.token), McpClient(gateways_with_redis[0].url, team.bob.token)
        waiting = _call_in_thread(alice.call, "wait_for", kind="inbox")
        post_id = bob.call("post", body="hello", to_actor="alice").structured_content["post_id"]
        assert waiting.result(_TIMEOUT_SECONDS)[0].structured_content["kind"] == "inbox"
        alice.call("ack", post_id=post_id)
        yield alice, bob
        alice.close()
        bob.close()


def test_a_release_and_an_ack_notify_waits_in_other_processes(without_ticks: tuple[McpClient, McpClient]) -> None:
    alice, bob = without_ticks
    post_id = alice.call("post", body="hello", to_actor="bob").structured_content["post_id"]
    bob.call("lease", surface="src/a.py")
    for wait, change, arguments in (
        ({"kind": "lease", "surface": "src/a.py"}, "release", {"surface": "src/a.py"}),
        ({"kind": "acks"}, "ack", {"post_id": post_id}),
    ):
        waiting = _call_in_thread(alice.call, "wait_for", timeout_seconds=10, **wait)
        _require_waiting(waiting)
        assert not waiting.done()
        changed_at = time.monotonic()
        assert bob.call(change, **arguments).status == 200
        response, arrived_at = waiting.result(_TIMEOUT_SECONDS)
        assert response.structured_content.get("kind") == wait["kind"], response
        assert arrived_at - changed_at < stretched(1.5), change


def test_an_existing_result_is_returned_at_once(clients: tuple[McpClient, McpClient]) -> None:
    alice, bob = clients
    post_id = alice.call("post", body="hello", to_actor="bob").structured_content["post_id"]
    started = time.monotonic()
    assert bob.call("wait_for").structured_content["posts"][0]["post_id"] == post_id
    assert time.monotonic() - started < stretched(5)


def test_without_a_result_the_wait_times_out(clients: tuple[McpClient, McpClient]) -> None:
    started = time.monotonic()
    assert clients[0].call("wait_for", timeout_seconds=1).structured_content == {"timed_out": True}
    assert 0.9 < time.monotonic() - started < stretched(8)


def test_an_ack_of_the_callers_post_is_returned_once(clients: tuple[McpClient, McpClient]) -> None:
    alice, bob = clients
    first = alice.call("post", body="one", to_actor="bob").structured_content["post_id"]
    second = alice.call("post", body="two", to_actor="bob").structured_content["post_id"]
    waiting = _call_in_thread(alice.call, "wait_for", kind="acks")
    _require_waiting(waiting)
    bob.call("ack", post_id=second)
    result = waiting.result(_TIMEOUT_SECONDS)[0].structured_content
    assert (result["kind"], [(post["post_id"], post["acked"]) for post in result["posts"]]) == (
        "acks",
        [(second, True)],
    )
    # An ack between two waits is not lost, none is returned twice, and acks of other senders' posts are not returned.
    bob.call("ack", post_id=first)
    mine = bob.call("post", body="mine", to_actor="alice").structured_content["post_id"]
    alice.call("ack", post_id=mine)
    assert [post["post_id"] for post in alice.call("wait_for", kind="acks").structured_content["posts"]] == [first]
    assert alice.call("wait_for", kind="acks", timeout_seconds=1).structured_content == {"timed_out": True}
    assert [post["post_id"] for post in bob.call("wait_for", kind="acks").structured_content["posts"]] == [mine]


def test_the_release_of_a_lease_ends_a_wait_for_the_surface(clients: tuple[McpClient, McpClient]) -> None:
    alice, bob = clients
    alice.call("lease", surface="src/a.py")
    waiting = _call_in_thread(bob.call, "wait_for", kind="lease", surface="src/*.py")
    _require_waiting(waiting)
    alice.call("lease", surface="docs/x.md")
    alice.call("release", surface="docs/x.md")
    _require_waiting(waiting)
    assert not waiting.done()
    alice.call("release", surface="src/a.py")
    assert waiting.result(_TIMEOUT_SECONDS)[0].structured_content == {
        "kind": "lease",
        "leases": [],
        "next_before": None,
    }


def test_the_expiry_of_a_lease_ends_a_wait_for_the_surface(clients: tuple[McpClient, McpClient]) -> None:
    alice, bob = clients
    alice.call("lease", surface="src/a.py", ttl_seconds=2)
    started = time.monotonic()
    assert bob.call("wait_for", kind="lease", surface="src/a.py").structured_content["kind"] == "lease"
    assert 1 < time.monotonic() - started < stretched(8)


def test_the_callers_own_lease_does_not_block_its_wait(clients: tuple[McpClient, McpClient]) -> None:
    alice, _ = clients
    alice.call("lease", surface="src/a.py")
    assert alice.call("wait_for", kind="lease", surface="src/**").structured_content["kind"] == "lease"


def test_waits_for_a_surface_end_in_order_of_arrival(
    gateways_with_redis: list[GatewayProcess], gateway_db: Database
) -> None:
    """Three agents wait in two processes; the holder releases, and each agent leases the surface in time."""
    with gateway_db.transaction() as conn:
        project = make_project(conn)
        holder, *others = (make_agent(conn, project, name) for name in ("holder", "one", "two", "three"))
    client = McpClient(gateways_with_redis[0].url, holder.token)
    client.call("lease", surface="src/a.py")
    order: list[int] = []
    waiting = []
    clients = [McpClient(gateways_with_redis[number % 2].url, agent.token) for number, agent in enumerate(others)]

    def queue(number: int) -> McpResponse:
        response = clients[number].call("wait_for", kind="lease", surface="src/a.py", timeout_seconds=40)
        order.append(number)
        clients[number].call("lease", surface="src/a.py")
        served = len(order)
        hold_for(lambda: len(order) == served, seconds=0.3)
        clients[number].call("release", surface="src/a.py")
        return response

    for number in range(len(others)):
        waiting.append(_call_in_thread(queue, number))
        _require_waiting(*waiting)
    client.call("release", surface="src/a.py")
    for future in waiting:
        assert future.result(40)[0].structured_content["kind"] == "lease"
    assert order == [0, 1, 2]
    for opened_client in (client, *clients):
        opened_client.close()


def test_an_agent_that_does_not_lease_in_time_loses_its_turn(
    gateways_with_redis: list[GatewayProcess], gateway_db: Database
) -> None:
    with gateway_db.transaction() as conn:
        project = make_project(conn)
        agents = [make_agent(conn, project, name) for name in ("holder", "first", "second")]
    clients = [McpClient(gateways_with_redis[0].url, agent.token) for agent in agents]
    clients[0].call("lease", surface="src/a.py")
    first = _call_in_thread(clients[1].call, "wait_for", kind="lease", surface="src/a.py")
    _require_waiting(first)
    second = _call_in_thread(clients[2].call, "wait_for", kind="lease", surface="src/a.py")
    _require_waiting(second)
    clients[0].call("release", surface="src/a.py")
    _, first_arrived_at = first.result(_TIMEOUT_SECONDS)
    _, second_arrived_at = second.result(_TIMEOUT_SECONDS)
    # The grace period is two seconds; the machine may be slow.
    assert 1.5 < second_arrived_at - first_arrived_at < 10
    for client in clients:
        client.close()


def test_a_ready_task_is_offered_to_one_waiting_agent(
    gateways_with_redis: list[GatewayProcess], gateway_db: Database
) -> None:
    with gateway_db.transaction() as conn:
        project = make_project(conn)
        lead, *others = (make_agent(conn, project, name) for name in ("lead", "one", "two", "three", "four"))
    clients = [McpClient(gateways_with_redis[number % 2].url, agent.token) for number, agent in enumerate(others)]
    client = McpClient(gateways_with_redis[0].url, lead.token)
    waiting = [_call_in_thread(waiter.call, "wait_for", kind="task", timeout_seconds=4) for waiter in clients]
    _require_waiting(*waiting)
    task = client.call("task_create", title="the only one").structured_content["task_id"]
    results = [future.result(_TIMEOUT_SECONDS)[0].structured_content for future in waiting]
    assert sorted(result.get("kind", "nothing") for result in results) == ["nothing", "nothing", "nothing", "task"]
    (offered,) = [result["task"] for result in results if "task" in result]
    assert (offered["task_id"], offered["status"], offered["owner"]) == (task, "open", None)
    # Other agents may still start an offered task.
    assert client.call("task_next").structured_content["task"]["task_id"] == task
    for opened_client in (client, *clients):
        opened_client.close()


def test_waits_with_take_start_each_task_once(gateways_with_redis: list[GatewayProcess], gateway_db: Database) -> None:
    with gateway_db.transaction() as conn:
        project = make_project(conn)
        lead, *others = (make_agent(conn, project, f"agent-{n}") for n in range(9))
    clients = [McpClient(gateways_with_redis[number % 2].url, agent.token) for number, agent in enumerate(others)]
    client = McpClient(gateways_with_redis[0].url, lead.token)
    waiting = [
        _call_in_thread(waiter.call, "wait_for", kind="task", take=True, timeout_seconds=10) for waiter in clients
    ]
    _require_waiting(*waiting)
    created = {client.call("task_create", title=f"task {n}").structured_content["task_id"] for n in range(len(others))}
    taken = [future.result(_TIMEOUT_SECONDS)[0].structured_content["task"] for future in waiting]
    assert {task["task_id"] for task in taken} == created
    assert {task["status"] for task in taken} == {"in_progress"}
    started = client.call("query_events", type="task_start").structured_content["events"]
    assert len(started) == len(others)
    for opened_client in (client, *clients):
        opened_client.close()


def test_changes_without_a_notification_are_found_by_polling(
    clients: tuple[McpClient, McpClient], team: Team, gateway_db: Database
) -> None:
    """Without a notification the wait ends with the next periodic refresh."""
    waiting = _call_in_thread(clients[1].call, "wait_for", kind="inbox", timeout_seconds=30)
    _require_waiting(waiting)
    with gateway_db.connection() as conn:
        posts.create(conn, team.alice.ctx, "by itself", to_actor="bob")
    assert waiting.result(25)[0].structured_content["posts"][0]["body"] == "by itself"


def test_the_wait_of_a_revoked_token_ends_with_401(clients: tuple[McpClient, McpClient], team: Team) -> None:
    alice, bob = clients
    waiting = _call_in_thread(bob.call, "wait_for", timeout_seconds=30)
    _require_waiting(waiting)
    alice.call("admin_revoke", participant_name="bob")
    response, _ = waiting.result(_TIMEOUT_SECONDS)
    assert response.status == 401, response


def test_changes_of_another_project_end_no_wait(
    clients: tuple[McpClient, McpClient], gateway_db: Database, gateways_with_redis: list[GatewayProcess]
) -> None:
    other = make_team(gateway_db)
    stranger = McpClient(gateways_with_redis[0].url, other.alice.token)
    waiting = _call_in_thread(clients[1].call, "wait_for", timeout_seconds=2)
    _require_waiting(waiting)
    stranger.call("post", body="not yours", to_actor="bob")
    stranger.call("post", body="not yours", to_lane="web")
    stranger.call("task_create", title="not yours")
    assert waiting.result(_TIMEOUT_SECONDS)[0].structured_content == {"timed_out": True}
    stranger.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "lease"}, 'kind "lease" needs surface: the file or glob to wait for.'),
        ({"kind": "inbox", "surface": "a"}, 'surface goes with kind "lease" or "any", not with "inbox"; leave it out.'),
        ({"kind": "acks", "take": True}, 'take goes with kind "task" or "any", not with "acks"; leave it out.'),
        ({"kind": "mail"}, 'kind must be one of: inbox, acks, lease, task, any; the text "mail" was sent.'),
        (
            {"timeout_seconds": 51},
            'timeout_seconds must be a whole number from 1 to 50; the number 51 was sent. Send "timeout_seconds": 25.',
        ),
        (
            {"timeout_seconds": 0},
            'timeout_seconds must be a whole number from 1 to 50; the number 0 was sent. Send "timeout_seconds": 25.',
        ),
        ({"kind": "lease", "surface": "../x"}, None),
    ],
)
def test_invalid_arguments_get_an_error_that_names_the_valid_ones(
    clients: tuple[McpClient, McpClient], arguments: dict[str, Any], message: str | None
) -> None:
    error = clients[0].call("wait_for", **arguments).error
    assert error["code"] == "invalid_argument"
    if message is not None:
        assert error["message"] == message


def test_a_client_that_disconnects_frees_its_queue_position(
    gateways_with_redis: list[GatewayProcess], gateway_db: Database
) -> None:
    with gateway_db.transaction() as conn:
        project = make_project(conn)
        holder, waiter = (make_agent(conn, project, name) for name in ("holder", "waiter"))
    client = McpClient(gateways_with_redis[0].url, holder.token)
    client.call("lease", surface="src/a.py")
    leaving = McpClient(gateways_with_redis[0].url, waiter.token)
    leaving.http_client.timeout = 1.0
    with pytest.raises(Exception, match="timed out"):
        leaving.call("wait_for", kind="lease", surface="src/a.py", timeout_seconds=40)
    leaving.close()
    assert _eventually(lambda: _count_queue_positions(gateway_db, project.id) == 0)
    client.close()


def _count_queue_positions(db: Database, project_id: int) -> int:
    with db.connection() as conn:
        return int(conn.fetch_one("SELECT count(*) FROM waiter WHERE project_id = %s", (project_id,))[0])


def _eventually(check: Any) -> bool:
    return bool(wait_until(check))


def test_the_number_of_waiting_calls_per_token_is_limited(database_url: str) -> None:
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    db.close()
    with running_gateways(database_url, WAITS_PER_TOKEN="3") as (process,):
        clients = [McpClient(process.url, team.bob.token) for _ in range(4)]
        assert clients[0].call("whoami").status == 200
        waiting = [_call_in_thread(client.call, "wait_for", timeout_seconds=10) for client in clients[:3]]
        _require_waiting(*waiting)
        refused = clients[3].call("wait_for")
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        # Other tokens and other tools are not affected.
        alice = McpClient(process.url, team.alice.token)
        assert alice.call("wait_for", timeout_seconds=1).structured_content == {"timed_out": True}
        assert clients[3].call("whoami").status == 200
        alice.call("post", body="x", to_actor="bob")
        for future in waiting:
            assert future.result(_TIMEOUT_SECONDS)[0].structured_content["kind"] == "inbox"
        assert clients[3].call("wait_for").structured_content["kind"] == "inbox"
        for client in (*clients, alice):
            client.close()


@pytest.mark.parametrize("modern", [True, False])
def test_a_stopping_process_ends_waits_with_a_message(database_url: str, modern: bool) -> None:
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    db.close()
    with running_gateways(database_url) as (process,):
        client = McpClient(process.url, team.bob.token, modern)
        assert client.call("whoami").status == 200
        waiting = _call_in_thread(client.call, "wait_for", timeout_seconds=50)
        _require_waiting(waiting)
        started = time.monotonic()
        process.stop()
        result = waiting.result(_TIMEOUT_SECONDS)[0].structured_content
        assert result == {"timed_out": True, "message": "The bus is restarting; call wait_for again."}
        assert time.monotonic() - started < stretched(8)
        client.close()
