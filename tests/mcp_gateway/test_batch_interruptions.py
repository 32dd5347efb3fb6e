"""A gateway that is killed, and a client that disconnects, at the worst moments of a batch."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import h11

from bus.coordination import sequences
from bus.db import Connection, Database
from tests.assertions import assert_ledger_consistent
from tests.concurrency import BARRIER_TIMEOUT_SECONDS, wait_until
from tests.factories import Agent, make_agent, make_project
from tests.mcp_gateway.processes import GatewayProcess, running_gateways
from tests.mcp_gateway.raw_http import build_tool_call, open_raw_connection
from tests.metrics_scrape import METRICS_TOKEN, scrape

# Locks that the test holds are waited for until the test releases them.
_PATIENT = {"mcp_gateway.engine_runner.LOCK_TIMEOUT_MS": 30_000}
_CALL_COUNT = 8


def _wait_for_pending_calls(process: GatewayProcess, count: int) -> None:
    """Wait until so many calls run in a thread or wait for one."""

    def has_count() -> bool:
        samples = scrape(process.url.removesuffix("/mcp"))
        return samples.value("llm_bus_gateway_queued_calls") + samples.value("llm_bus_gateway_busy_threads") == count

    wait_until(has_count)


def _wait_for_lock_waiters(db: Database, count: int) -> None:
    """Wait until so many statements of this database wait for a lock."""

    def has_count() -> bool:
        with db.connection() as conn:
            (waiting,) = conn.fetch_one(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(waiting == count)

    wait_until(has_count)


def _wait_until_idle(db: Database, project_id: int) -> None:
    """Wait until no backend holds the clock of a project, and so none will write to it."""
    with db.transaction() as conn:
        conn.execute("SELECT bus_lock_clock(%s)", (project_id,))


def _fetch_claims(conn: Connection, project_id: int) -> list[tuple[str, int]]:
    rows = conn.fetch_all(
        "SELECT payload ->> 'sequence', (payload ->> 'number')::integer FROM event"
        " WHERE project_id = %s AND type = 'claim' ORDER BY seq",
        (project_id,),
    )
    return [(sequence, number) for sequence, number in rows]


def test_a_gateway_killed_between_the_statements_and_the_commit_leaves_a_whole_batch_or_none(
    shared_database_url: str, gateway_db: Database
) -> None:
    """The statements have been sent; those before the held sequence have been executed, and nothing is answered."""
    with gateway_db.transaction() as conn:
        project = make_project(conn)
        agents = [make_agent(conn, project) for _ in range(_CALL_COUNT + 1)]
        sequences.claim(conn, agents[0].ctx, "held")
    with (
        running_gateways(shared_database_url, constants=_PATIENT, METRICS_TOKEN=METRICS_TOKEN) as (process,),
        ExitStack() as stack,
    ):
        connections = [stack.enter_context(open_raw_connection(process)) for _ in agents]
        with gateway_db.transaction() as sequence_holder:
            sequence_holder.execute(
                "SELECT FROM sequence WHERE project_id = %s AND name = 'held' FOR UPDATE", (project.id,)
            )
            with gateway_db.transaction() as clock_holder:
                clock_holder.execute("SELECT bus_lock_clock(%s)", (project.id,))
                # The first call waits alone for the clock; the others form the next batch.
                connections[0].socket.sendall(build_tool_call(agents[0].token, tool="claim", sequence="adr"))
                _wait_for_lock_waiters(gateway_db, 1)
                for connection, agent in list(zip(connections, agents, strict=True))[1:]:
                    name = "held" if agent is agents[_CALL_COUNT // 2] else "adr"
                    connection.socket.sendall(build_tool_call(agent.token, tool="claim", sequence=name))
                _wait_for_pending_calls(process, _CALL_COUNT + 1)
            assert connections[0].exchange()[0][0] == 200
            _wait_for_lock_waiters(gateway_db, 1)
            process.popen.kill()
            process.popen.wait(BARRIER_TIMEOUT_SECONDS)
            # The calls may form several batches; one before that of the held call is answered.
            answered = sum(connection.socket.recv(1) != b"" for connection in connections[1:])
            assert answered < _CALL_COUNT
        _wait_until_idle(gateway_db, project.id)
    with gateway_db.connection() as conn:
        claims = _fetch_claims(conn, project.id)
        assert_ledger_consistent(conn, project.id)
    assert claims[:2] == [("held", 1), ("adr", 1)]
    # What was answered is there.
    assert answered <= len(claims[2:]) <= _CALL_COUNT
    with gateway_db.connection() as conn:
        transactions = conn.fetch_all(
            "SELECT array_agg(payload ->> 'sequence') FROM event"
            " WHERE project_id = %s AND type = 'claim' AND seq > 2 GROUP BY xmin::text",
            (project.id,),
        )
    # The held call was committed with the others of its batch, or not at all.
    assert (["held"],) not in [tuple(row) for row in transactions]


def test_a_retry_after_a_kill_returns_the_number_of_the_call_that_was_killed(
    shared_database_url: str, gateway_db: Database
) -> None:
    with gateway_db.transaction() as conn:
        project = make_project(conn)
        agent = make_agent(conn, project)
        sequences.claim(conn, agent.ctx, "held")
    call = build_tool_call(agent.token, tool="claim", sequence="held", idempotency_key="the-same")
    with running_gateways(shared_database_url, 2, constants=_PATIENT) as (killed, process):
        with open_raw_connection(killed) as connection, gateway_db.transaction() as holder:
            holder.execute("SELECT FROM sequence WHERE project_id = %s AND name = 'held' FOR UPDATE", (project.id,))
            connection.socket.sendall(call)
            _wait_for_lock_waiters(gateway_db, 1)
            killed.popen.kill()
            killed.popen.wait(BARRIER_TIMEOUT_SECONDS)
        with open_raw_connection(process) as connection:
            numbers = [_get_number(connection.exchange(call)) for _ in range(2)]
    assert numbers == [2, 2]
    with gateway_db.connection() as conn:
        assert _fetch_claims(conn, project.id) == [("held", 1), ("held", 2)]
        assert_ledger_consistent(conn, project.id)


def _get_number(responses: list[Any]) -> int:
    ((status, _, body),) = responses
    assert status == 200
    number: int = json.loads(body)["result"]["structuredContent"]["number"]
    return number


def test_a_wait_for_a_lock_that_is_too_long_is_answered_with_503(
    shared_database_url: str, gateway_db: Database
) -> None:
    """In a batch, alone with a key, in a transaction, and for a read whose cursor is locked; nothing is changed."""
    with gateway_db.transaction() as conn:
        project = make_project(conn)
        agent = make_agent(conn, project)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("claim", {"sequence": "adr"}),
        ("claim", {"sequence": "adr", "idempotency_key": "k"}),
        ("task_create", {"title": "Look"}),
        ("whats_new", {}),
    ]
    constants = {"mcp_gateway.engine_runner.LOCK_WAIT_SECONDS": 0.0, "mcp_gateway.engine_runner.LOCK_TIMEOUT_MS": 20}
    with running_gateways(shared_database_url, constants=constants) as (process,):
        with open_raw_connection(process) as connection, gateway_db.transaction() as holder:
            whats_new = build_tool_call(agent.token, tool="whats_new")
            assert connection.exchange(whats_new)[0][0] == 200
            holder.execute("SELECT bus_lock_clock(%s)", (project.id,))
            holder.execute("SELECT FROM cursor WHERE project_id = %s FOR UPDATE", (project.id,))
            for tool, arguments in calls:
                ((status, headers, _),) = connection.exchange(build_tool_call(agent.token, tool=tool, **arguments))
                assert (status, dict(headers)[b"retry-after"]) == (503, b"2"), tool
    with gateway_db.connection() as conn:
        assert assert_ledger_consistent(conn, project.id) == 0


def test_a_queued_call_is_not_begun_when_its_client_has_disconnected(
    shared_database_url: str, gateway_db: Database
) -> None:
    """Neither in a batch nor, with a key, alone."""
    with gateway_db.transaction() as conn:
        project = make_project(conn)
        staying, leaving = make_agent(conn, project), make_agent(conn, project)
    with running_gateways(shared_database_url, constants=_PATIENT, METRICS_TOKEN=METRICS_TOKEN) as (process,):
        with ExitStack() as stack:
            first, keyed = (stack.enter_context(open_raw_connection(process)) for _ in range(2))
            with gateway_db.transaction() as holder:
                holder.execute("SELECT bus_lock_clock(%s)", (project.id,))
                first.socket.sendall(build_tool_call(staying.token, tool="claim", sequence="adr"))
                # Calls with a key wait in a thread, one at a time for each project.
                keyed.socket.sendall(
                    build_tool_call(staying.token, tool="claim", sequence="adr", idempotency_key="stays")
                )
                _wait_for_lock_waiters(gateway_db, 2)
                for arguments in ({}, {"idempotency_key": "leaves"}):
                    with open_raw_connection(process) as connection:
                        request = build_tool_call(leaving.token, tool="claim", sequence="adr", **arguments)
                        connection.socket.sendall(request)
                        _wait_for_pending_calls(process, 3 + len(arguments))
            assert sorted((_get_number(first.exchange()), _get_number(keyed.exchange()))) == [1, 2]
        _wait_for_pending_calls(process, 0)
        samples = scrape(process.url.removesuffix("/mcp"))
        assert samples.value("llm_bus_tool_calls_total", tool="claim", outcome="gone") == 2
    with gateway_db.connection() as conn:
        assert _fetch_claims(conn, project.id) == [("adr", 1), ("adr", 2)]


def test_a_gateway_killed_under_load_answered_only_what_is_committed_once(
    shared_database_url: str, gateway_db: Database
) -> None:
    with gateway_db.transaction() as conn:
        project = make_project(conn)
        agents = [make_agent(conn, project) for _ in range(16)]
    has_started = threading.Barrier(len(agents) + 1)

    def claim_until_killed(agent: Agent) -> list[int]:
        numbers: list[int] = []
        with open_raw_connection(process) as connection:
            while True:
                try:
                    connection.socket.sendall(build_tool_call(agent.token, tool="claim", sequence="adr"))
                    responses = connection.exchange()
                except (ConnectionError, h11.RemoteProtocolError):
                    return numbers
                if not responses:
                    return numbers
                status, _, body = responses[0]
                assert status == 200
                numbers.append(json.loads(body)["result"]["structuredContent"]["number"])
                if len(numbers) == 10:
                    has_started.wait(BARRIER_TIMEOUT_SECONDS)

    with running_gateways(shared_database_url) as (process,), ThreadPoolExecutor(len(agents)) as pool:
        clients = [pool.submit(claim_until_killed, agent) for agent in agents]
        has_started.wait(BARRIER_TIMEOUT_SECONDS)
        process.popen.kill()
        answered = [number for client in clients for number in client.result(BARRIER_TIMEOUT_SECONDS)]
    with gateway_db.connection() as conn:
        rows = conn.fetch_all(
            "SELECT (payload ->> 'number')::integer FROM event WHERE project_id = %s AND type = 'claim'", (project.id,)
        )
        assert_ledger_consistent(conn, project.id)
    committed = sorted(number for (number,) in rows)
    assert committed == list(range(1, len(committed) + 1))
    assert len(set(answered)) == len(answered)
    assert set(answered) <= set(committed)
    # A batch may have been committed and not answered, as a single call may be.
    assert len(committed) - len(answered) <= len(agents)
