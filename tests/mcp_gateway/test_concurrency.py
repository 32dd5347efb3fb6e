"""Many at once, through two processes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from bus.db import Database
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess


def test_500_claims_at_once_through_two_processes_give_500_numbers_without_a_gap(
    gateways: list[GatewayProcess], team: Team, gateway_db: Database
) -> None:
    threads = 50
    barrier = Barrier(threads)

    def claim_ten(index: int) -> list[int]:
        agent = (team.alice, team.bob)[index % 2]
        wire = McpClient(gateways[index % 2].url, agent.token, modern=index % 4 < 2)
        wire.call("whoami")
        barrier.wait()
        try:
            return [wire.call("claim", sequence="adr").structured_content["number"] for _ in range(10)]
        finally:
            wire.close()

    with ThreadPoolExecutor(threads) as pool:
        numbers = [number for some in pool.map(claim_ten, range(threads)) for number in some]
    assert sorted(numbers) == list(range(1, 501))
    with gateway_db.connection() as conn:
        (events,) = conn.fetch_one(
            "SELECT count(*) FROM event WHERE project_id = %s AND type = 'claim'", (team.project_id,)
        )
    assert events == 500


def test_whats_new_of_two_sub_agents_gives_every_event_once(
    gateways: list[GatewayProcess], connect: Callable[..., McpClient], team: Team
) -> None:
    writer = connect(team.alice)
    for _ in range(200):
        writer.call("claim", sequence="adr")

    def read(index: int) -> list[list[int]]:
        wire = McpClient(gateways[index % 2].url, team.bob.token)
        barrier.wait()
        try:
            return [
                [event["id"] for event in wire.call("whats_new", limit=7).structured_content["events"]]
                for _ in range(10)
            ]
        finally:
            wire.close()

    barrier = Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        runs = [run for some in pool.map(read, range(4)) for run in some]
    for run in runs:
        assert run == list(range(run[0], run[0] + len(run))) if run else True
    # A new participation starts 100 events before the end.
    assert sorted(event for run in runs for event in run) == list(range(101, 201))
