"""Calls that wait together run together: what shares a transaction, whose turn it is, and what an error touches."""

import asyncio
import json
import re
import select
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import msgspec
import pytest

from bus.coordination import leases, posts, presence, sequences
from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.db.pipeline import run_pipelined
from bus.errors import Unavailable
from mcp_gateway import batches
from mcp_gateway.batches import MAX_BATCH_SIZE, MAX_READ_BATCH_SIZE, BatchScheduler
from mcp_gateway.client_connection import is_client_gone
from mcp_gateway.fair_executor import FairExecutor
from mcp_gateway.render import render
from mcp_gateway.tools import all_tools
from tests.assertions import assert_ledger_consistent
from tests.concurrency import BARRIER_TIMEOUT_SECONDS
from tests.factories import Agent, make_agent, make_project
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.processes import GatewayProcess, running_gateways
from tests.mcp_gateway.raw_http import RawConnection, build_tool_call, open_raw_connection

_PROJECT, _OTHER_PROJECT = 1, 2


def _caller(token_id: int, project_id: int = _PROJECT, owner_id: int = 1) -> Ctx:
    return Ctx(project_id, participation_id=token_id, participant_id=1, owner_id=owner_id, token_id=token_id)


def _transaction_id(conn: Connection) -> str:
    return str(conn.fetch_one("SELECT pg_current_xact_id()::text")[0])


def _transaction_time(conn: Connection) -> Any:
    return conn.fetch_one("SELECT pg_backend_pid(), now()")


@pytest.fixture
def executor() -> Iterator[FairExecutor]:
    executor = FairExecutor(4, "batches")
    yield executor
    executor.close()


@pytest.fixture
def scheduler(shared_database_url: str, executor: FairExecutor) -> Iterator[BatchScheduler]:
    with closing(Database(shared_database_url, pool_size=4)) as db:
        yield BatchScheduler(db, executor, reads_per_owner=1)


async def _while_busy(
    submit: Callable[[Ctx, Any], "asyncio.Future[Any]"], ctx: Ctx, submit_more: Callable[[], list[Awaitable[Any]]]
) -> list[Any]:
    """Submit more calls while one occupies the lane; return the results or exceptions of those."""
    is_running, may_end = threading.Event(), threading.Event()

    def occupy(_conn: Connection) -> None:
        is_running.set()
        assert may_end.wait(BARRIER_TIMEOUT_SECONDS)

    occupying = submit(ctx, occupy)
    await asyncio.to_thread(is_running.wait, BARRIER_TIMEOUT_SECONDS)
    more = submit_more()
    may_end.set()
    await occupying
    return await asyncio.gather(*more, return_exceptions=True)


def test_writes_of_a_project_that_wait_together_share_a_transaction(scheduler: BatchScheduler) -> None:
    async def main() -> list[Any]:
        def submit_more() -> list[Awaitable[Any]]:
            callers = [_caller(1), _caller(2), _caller(3), _caller(4, _OTHER_PROJECT), _caller(5, _OTHER_PROJECT)]
            return [scheduler.submit_write(caller, _transaction_id) for caller in callers]

        return await _while_busy(scheduler.submit_write, _caller(1), submit_more)

    *own, elsewhere, elsewhere_too = asyncio.run(main())
    assert len(set(own)) == 1
    assert not set(own) & {elsewhere, elsewhere_too}


def test_reads_of_all_projects_share_a_connection_in_the_order_of_participations(scheduler: BatchScheduler) -> None:
    order: list[int] = []

    def read(caller: Ctx) -> Callable[[Connection], Any]:
        def run(conn: Connection) -> Any:
            order.append(caller.participation_id)
            return conn.fetch_one("SELECT pg_backend_pid(), now()")

        return run

    async def main() -> list[Any]:
        callers = [_caller(9), _caller(3, _OTHER_PROJECT), _caller(7), _caller(5, _OTHER_PROJECT)]
        return await _while_busy(
            scheduler.submit_read,
            _caller(1),
            lambda: [scheduler.submit_read(caller, read(caller)) for caller in callers],
        )

    results = asyncio.run(main())
    assert len(set(results)) == 1
    # whats_new locks the caller's cursor; two batches that lock in different orders would be a deadlock.
    assert order == [3, 5, 7, 9]


def test_a_busy_token_does_not_fill_a_batch(scheduler: BatchScheduler) -> None:
    async def main() -> list[Any]:
        callers = [_caller(1)] * (3 * MAX_BATCH_SIZE) + [_caller(2)]
        return await _while_busy(
            scheduler.submit_write,
            _caller(1),
            lambda: [scheduler.submit_write(caller, _transaction_id) for caller in callers],
        )

    *busy, quiet = asyncio.run(main())
    assert quiet == busy[0]
    sizes = sorted(busy.count(transaction) for transaction in set(busy))
    assert sizes == [1, MAX_BATCH_SIZE - 1, MAX_BATCH_SIZE, MAX_BATCH_SIZE]
    assert sum(sizes) == 3 * MAX_BATCH_SIZE


def test_a_project_with_many_tokens_does_not_fill_a_batch_of_reads(scheduler: BatchScheduler) -> None:
    order: list[int] = []

    async def main() -> None:
        def submit(token_id: int, project_id: int) -> "asyncio.Future[Any]":
            return scheduler.submit_read(_caller(token_id, project_id), lambda _conn: order.append(token_id))

        await _while_busy(
            scheduler.submit_read,
            _caller(1),
            lambda: [*(submit(token, _PROJECT) for token in range(100, 150)), submit(1, _OTHER_PROJECT)],
        )

    asyncio.run(main())
    assert len(order) == 51
    # A batch runs in the order of participations, so the quiet project is the first of the first batch.
    assert order[0] == 1


def test_an_owner_with_many_projects_takes_half_of_a_batch_of_reads(shared_database_url: str) -> None:
    one_thread = FairExecutor(1, "batches")

    async def main(reads: BatchScheduler) -> list[Any]:
        may_begin = threading.Event()
        one_thread.submit(lambda: may_begin.wait(BARRIER_TIMEOUT_SECONDS))
        callers = [_caller(n, project_id=n) for n in range(20)] + [_caller(30, project_id=30, owner_id=2)]
        calls = [reads.submit_read(caller, _transaction_time) for caller in callers]
        may_begin.set()
        return await asyncio.gather(*calls)

    with closing(Database(shared_database_url, pool_size=1)) as db:
        *many, other = asyncio.run(main(BatchScheduler(db, one_thread, reads_per_owner=1)))
        one_thread.close()
    assert many.count(other) == MAX_READ_BATCH_SIZE // 2


def test_a_read_of_another_owner_does_not_wait_for_a_batch(scheduler: BatchScheduler) -> None:
    async def main() -> None:
        is_running, may_end = threading.Event(), threading.Event()

        def occupy(_conn: Connection) -> None:
            is_running.set()
            assert may_end.wait(BARRIER_TIMEOUT_SECONDS)

        occupying = scheduler.submit_read(_caller(1), occupy)
        await asyncio.to_thread(is_running.wait, BARRIER_TIMEOUT_SECONDS)
        own = scheduler.submit_read(_caller(2), lambda _conn: None)
        other = scheduler.submit_read(_caller(3, owner_id=2), lambda _conn: None)
        await asyncio.wait_for(other, BARRIER_TIMEOUT_SECONDS)
        assert not own.done()
        may_end.set()
        await asyncio.gather(occupying, own)

    asyncio.run(main())


def test_projects_of_one_owner_do_not_hold_up_writes_of_another(scheduler: BatchScheduler) -> None:
    async def main() -> None:
        may_end = threading.Event()
        blocked = [
            scheduler.submit_write(_caller(n, project_id=n), lambda _conn: may_end.wait(BARRIER_TIMEOUT_SECONDS))
            for n in range(20)
        ]
        other = scheduler.submit_write(_caller(30, project_id=30, owner_id=2), lambda _conn: 7)
        assert await asyncio.wait_for(other, BARRIER_TIMEOUT_SECONDS) == 7
        may_end.set()
        assert await asyncio.gather(*blocked) == [True] * 20

    asyncio.run(main())


def test_a_call_whose_client_is_gone_is_not_run(scheduler: BatchScheduler) -> None:
    ran: list[int] = []

    async def main() -> list[Any]:
        def submit(number: int, is_gone: bool) -> "asyncio.Future[Any]":
            is_client_gone.set(lambda: is_gone)
            return scheduler.submit_write(_caller(number), lambda _conn: ran.append(number))

        return await _while_busy(
            scheduler.submit_write, _caller(9), lambda: [submit(1, False), submit(2, True), submit(3, False)]
        )

    _, denied, _ = asyncio.run(main())
    assert ran == [1, 3]
    assert (denied.status, denied.outcome) == (499, "gone")


def test_a_call_that_waited_too_long_is_not_run(scheduler: BatchScheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    async def main() -> list[Any]:
        monkeypatch.setattr(batches, "QUEUE_TIMEOUT_SECONDS", -1.0)
        return await asyncio.gather(
            *(scheduler.submit_write(_caller(n), lambda _conn, n=n: ran.append(n)) for n in range(5)),
            return_exceptions=True,
        )

    assert [type(result) for result in asyncio.run(main())] == [Unavailable] * 5
    assert ran == []


def test_a_cancelled_call_is_not_run(scheduler: BatchScheduler) -> None:
    ran: list[int] = []

    async def main() -> list[Any]:
        def submit_more() -> list[Awaitable[Any]]:
            calls = [scheduler.submit_write(_caller(n), lambda _conn, n=n: ran.append(n)) for n in range(3)]
            calls[1].cancel()
            return list(calls)

        return await _while_busy(scheduler.submit_write, _caller(1), submit_more)

    results = asyncio.run(main())
    assert ran == [0, 2]
    assert isinstance(results[1], asyncio.CancelledError)


def test_without_a_connection_every_call_is_told_so(executor: FairExecutor) -> None:
    unreachable = Database("postgresql://unknown@127.0.0.1:1/nothing", pool_size=1)
    scheduler = BatchScheduler(unreachable, executor, reads_per_owner=1)

    async def main() -> list[Any]:
        calls = [scheduler.submit_write(_caller(n), _transaction_id) for n in range(5)]
        return await asyncio.gather(*calls, return_exceptions=True)

    assert [type(result) for result in asyncio.run(main())] == [Unavailable] * 5


def test_a_call_after_the_stop_is_told_so(scheduler: BatchScheduler) -> None:
    closed = FairExecutor(1, "closed")
    closed.close()
    stopped = BatchScheduler(scheduler._db, closed, reads_per_owner=1)

    async def main() -> Any:
        return await stopped.submit_read(_caller(1), _transaction_id)

    with pytest.raises(Unavailable, match="stopping"):
        asyncio.run(main())


_BATCHED_READS = [tool.name for tool in all_tools().values() if tool.batch == "read"]


@pytest.mark.parametrize("name", _BATCHED_READS)
def test_a_read_returns_the_same_in_a_batch(name: str, gateway_db: Database, team: Team) -> None:
    ctx = team.alice.ctx
    with gateway_db.connection() as conn:
        sequences.claim(conn, ctx, "adr")
        posts.create(conn, team.bob.ctx, "look", to_actor=team.alice.label)
        leases.acquire(conn, ctx, "src/*.py")
        presence.register(conn, ctx, "web")
    tool = all_tools()[name]
    arguments = {"advance_cursor": False} if name == "whats_new" else {}

    def call(conn: Connection) -> Any:
        return render(tool.function(conn, ctx, **tool.decode(arguments)))

    with gateway_db.connection() as conn:
        alone = call(conn)
    assert alone
    together = [outcome.get() for outcome in run_pipelined(gateway_db, [call] * 3)]
    for result in together:
        assert _without_ages(result) == _without_ages(alone)


def _without_ages(result: Any) -> Any:
    return re.sub(rb'"expires_in_seconds":\d+', b"", msgspec.json.encode(result))


def test_every_quick_tool_is_batched() -> None:
    alone = {tool.name for tool in all_tools().values() if tool.batch is None}
    assert alone == {
        "wait_for", "register", "seed_sequence",
        "task_create", "task_assign", "task_start", "task_block", "task_resolve", "task_ship", "task_next",
        "create_invite", "admin_provision", "admin_rotate", "admin_revoke",
    }  # fmt: skip


def _wait_for_clock_waiters(db: Database, count: int) -> None:
    """Wait until statements of the gateways wait for a lock."""
    with db.connection() as conn:
        for _ in range(2_000):
            (waiting,) = conn.fetch_one(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if waiting >= count:
                return
            conn.execute("SELECT pg_sleep(0.005)")
    raise AssertionError(f"{count} statements did not begin to wait")


def _error_code(body: bytes) -> Any:
    result = json.loads(body)["result"]
    return result["structuredContent"]["error"]["code"] if result["isError"] else None


def test_a_revocation_and_refusals_in_the_middle_of_a_batch_leave_the_others_alone(
    gateways: list[GatewayProcess], team: Team, gateway_db: Database
) -> None:
    alice, bob, project_id = team.alice, team.bob, team.project_id
    calls: list[tuple[Agent, str, dict[str, Any]]] = [
        (alice, "claim", {"sequence": "adr"}),
        (bob, "claim", {"sequence": "adr"}),
        (alice, "post", {"body": "look", "to_actor": "unknown-participant"}),
        (alice, "claim", {"sequence": "not a name"}),
        (alice, "claim", {"sequence": "adr", "idempotency_key": "k"}),
        (alice, "ack", {"post_id": 999}),
        (alice, "lease", {"surface": "src/*.py"}),
        (bob, "lease", {"surface": "src/*.py"}),
        (alice, "claim", {"sequence": "adr"}),
    ]
    with ExitStack() as stack:
        connections = [stack.enter_context(open_raw_connection(gateways[0])) for _ in calls]
        with gateway_db.transaction() as holder:
            holder.execute("SELECT bus_lock_clock(%s)", (project_id,))
            # The first call waits alone for the clock; the others form the next batch.
            _send(connections[0], *calls[0])
            _wait_for_clock_waiters(gateway_db, 1)
            for connection, call in list(zip(connections, calls, strict=True))[1:]:
                _send(connection, *call)
            # The call with a key does not join the batch and waits on its own.
            _wait_for_clock_waiters(gateway_db, 2)
            with gateway_db.transaction() as conn:
                assert bob.ctx.token_id is not None
                conn.execute("UPDATE token SET revoked_at = clock_timestamp() WHERE id = %s", (bob.ctx.token_id,))
        responses = [connection.exchange()[0] for connection in connections]
    assert [status for status, _, _ in responses] == [200, 401, 200, 200, 200, 200, 200, 401, 200]
    codes = [_error_code(body) for status, _, body in responses if status == 200]
    assert codes == [None, "unknown_recipient", "invalid_argument", None, "not_found", None, None]
    numbers = [json.loads(responses[index][2])["result"]["structuredContent"]["number"] for index in (0, 4, 8)]
    assert sorted(numbers) == [1, 2, 3]
    with gateway_db.connection() as conn:
        assert_ledger_consistent(conn, project_id)
        types = conn.fetch_all("SELECT type FROM event WHERE project_id = %s ORDER BY seq", (project_id,))
    assert sorted(event_type for (event_type,) in types) == ["claim", "claim", "claim", "lease"]


def _send(connection: RawConnection, agent: Agent, tool: str, arguments: dict[str, Any]) -> None:
    connection.socket.sendall(build_tool_call(agent.token, tool=tool, **arguments))


def test_projects_whose_clocks_are_held_hold_up_nobody_else(shared_database_url: str, gateway_db: Database) -> None:
    """Even where they outnumber the threads; when the clocks are free again, every call succeeds."""
    # A loaded machine holds the clocks for longer than a call waits otherwise.
    patience = {"mcp_gateway.engine_runner.LOCK_WAIT_SECONDS": 60.0}
    with gateway_db.transaction() as conn:
        blocked = [make_agent(conn, make_project(conn)) for _ in range(6)]
        free = make_agent(conn, make_project(conn))
    calls = [("claim", {"sequence": "adr"}), ("task_create", {"title": "Look"}), ("register", {"lane": "web"})]
    with running_gateways(shared_database_url, constants=patience) as (gateway,), ExitStack() as stack:
        with gateway_db.transaction() as holder:
            holder.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            for agent in blocked:
                holder.execute("SELECT bus_lock_clock(%s)", (agent.ctx.project_id,))
            waiting = []
            for agent in blocked:
                for tool, arguments in calls:
                    connection = stack.enter_context(open_raw_connection(gateway))
                    _send(connection, agent, tool, arguments)
                    waiting.append(connection)
            with open_raw_connection(gateway) as connection:
                for tool, arguments in calls:
                    ((status, _, _),) = connection.exchange(build_tool_call(free.token, tool=tool, **arguments))
                    assert status == 200
            readable, _, _ = select.select([connection.socket for connection in waiting], [], [], 0)
            assert readable == []
        assert [connection.exchange()[0][0] for connection in waiting] == [200] * len(waiting)
