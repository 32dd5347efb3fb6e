"""Concurrent calls through two processes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from bus.db import Database
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess


def test_500_concurrent_claims_through_two_processes_return_500_gap_free_numbers(
    gateways: list[GatewayProcess], team: Team, gateway_db: Database
) -> None:
    threads = 50
    barrier = Barrier(threads)

    def claim_ten(index: int) -> list[int]:
        agent = (team.alice, team.bob)[index % 2]
        client = McpClient(gateways[index % 2].url, agent.token, modern=index % 4 < 2)
        client.call("whoami")
        barrier.wait()
        try:
            return [client.call("claim", sequence="adr").structured_content["number"] for _ in range(10)]
        finally:
            client.close()

    with ThreadPoolExecutor(threads) as pool:
        numbers = [number for batch in pool.map(claim_ten, range(threads)) for number in batch]
    assert sorted(numbers) == list(range(1, 501))
    with gateway_db.connection() as conn:
        (events,) = conn.fetch_one(
            "SELECT count(*) FROM event WHERE project_id = %s AND type = 'claim'", (team.project_id,)
        )
    assert events == 500


def test_concurrent_whats_new_calls_of_one_identity_return_each_event_once(
    gateways: list[GatewayProcess], connect: Callable[..., McpClient], team: Team
) -> None:
    writer = connect(team.alice)
    for _ in range(200):
        writer.call("claim", sequence="adr")

    def read(index: int) -> list[list[int]]:
        client = McpClient(gateways[index % 2].url, team.bob.token)
        barrier.wait()
        try:
            return [
                [event["id"] for event in client.call("whats_new", limit=7).structured_content["events"]]
                for _ in range(10)
            ]
        finally:
            client.close()

    barrier = Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        runs = [run for thread_runs in pool.map(read, range(4)) for run in thread_runs]
    for run in runs:
        assert run == list(range(run[0], run[0] + len(run))) if run else True
    # A new participation starts 100 events before the end.
    assert sorted(event for run in runs for event in run) == list(range(101, 201))
