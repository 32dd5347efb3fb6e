"""The Prometheus metrics of a gateway count its calls exactly."""

import json
import threading
from collections import Counter
from collections.abc import Iterator

import httpx2
import pytest

from bus.db import Database
from bus.rules.token_format import generate_token
from bus.tenancy import owners, token_store
from tests.factories import make_agent, make_project
from tests.mcp_gateway.conftest import make_team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess, running_gateways
from tests.metrics_scrape import METRICS_TOKEN, scrape


@pytest.fixture(scope="module")
def gateway(shared_database_url: str) -> Iterator[GatewayProcess]:
    """A gateway with a metrics token and a rate limit: a burst of ten, then one call a second."""
    with running_gateways(shared_database_url, METRICS_TOKEN=METRICS_TOKEN, RATE_PER_MINUTE="60") as (process,):
        yield process


def _base(process: GatewayProcess) -> str:
    return process.url.removesuffix("/mcp")


def test_every_call_is_counted_once_by_tool_and_outcome(gateway: GatewayProcess, gateway_db: Database) -> None:
    db = gateway_db
    team = make_team(db)
    with db.transaction() as conn:
        suspended, busy = make_agent(conn), make_agent(conn, make_project(conn))
        revoked = make_agent(conn, make_project(conn))
    before = scrape(_base(gateway))
    statuses: Counter[str] = Counter()
    alice, bob = McpClient(gateway.url, team.alice.token), McpClient(gateway.url, team.bob.token, modern=False)
    gone, late, hasty = (McpClient(gateway.url, agent.token) for agent in (revoked, suspended, busy))
    stranger = McpClient(gateway.url, generate_token())
    responses = [
        *(alice.call("claim", sequence="adr") for _ in range(3)),
        bob.call("claim", sequence="adr"),
        alice.call("claim", sequence="NOT A NAME"),
        alice.call("ack", post_id=999_999_999),
        gone.call("whoami"),
        late.call("whoami"),
        stranger.call("whoami"),
    ]
    # An unusual Accept header, so that the SDK answers.
    content = json.dumps(alice.body("tools/call", {"name": "claim", "arguments": {"sequence": "adr"}})).encode()
    unusual = {**alice.headers("tools/call", "claim"), "Accept": "text/event-stream;q=1, application/json"}
    responses.append(alice.send(content, unusual))
    with db.transaction() as conn:
        token_store.revoke_all(conn, [revoked.ctx.participation_id])
        owners.suspend(conn, suspended.ctx.owner_id, reason="unpaid", actor="test")
    responses += [gone.call("whoami"), late.call("whoami")]
    responses += [hasty.call("whoami") for _ in range(15)]
    for response in responses:
        statuses[str(response.status)] += 1
    limited = statuses["429"]
    assert limited >= 2
    after = scrape(_base(gateway))
    for client in (alice, bob, gone, late, hasty, stranger):
        client.close()

    def increases(name: str, *labels: str) -> dict[tuple[str, ...], float]:
        old = before.group_by(name, *labels)
        differences = {key: value - old.get(key, 0) for key, value in after.group_by(name, *labels).items()}
        return {key: value for key, value in differences.items() if value}

    assert increases("llm_bus_tool_calls_total", "tool", "outcome") == {
        ("claim", "ok"): 5,
        ("claim", "invalid_argument"): 1,
        ("ack", "not_found"): 1,
        ("whoami", "ok"): 2 + 15 - limited,
        ("whoami", "unauthenticated"): 1,
        ("whoami", "suspended"): 1,
        ("whoami", "rate_limited"): limited,
        ("unknown", "unauthenticated"): 1,
    }
    # The second scrape counts the first.
    assert increases("llm_bus_gateway_requests_total", "status") == {
        (status,): count + (status == "200") for status, count in statuses.items()
    }
    assert increases("llm_bus_tool_call_seconds_count", "tool") == {
        ("claim",): 6,
        ("ack",): 1,
        ("whoami",): 19 - limited,
    }
    assert after.value("llm_bus_tool_call_seconds_bucket", tool="claim", le="+Inf") >= 6
    assert 0 < after.value("llm_bus_tool_call_seconds_sum", tool="claim") < 60
    assert after.value("llm_bus_db_connections_max", door="gateway") == 4
    assert after.value("llm_bus_gateway_queued_calls") == 0


def test_open_long_polls_are_reported(gateway: GatewayProcess, gateway_db: Database) -> None:
    team = make_team(gateway_db)
    alice, bob = McpClient(gateway.url, team.alice.token), McpClient(gateway.url, team.bob.token)
    waiting = threading.Thread(target=lambda: alice.call("wait_for", kind="inbox", timeout_seconds=40))
    waiting.start()
    gateway.wait_for_waiting_calls(1)
    bob.call("post", body="hello", to_actor="alice")
    waiting.join(30)
    gateway.wait_for_waiting_calls(0)
    for client in (alice, bob):
        client.close()


def test_metrics_require_the_metrics_token(gateway: GatewayProcess, gateways: list[GatewayProcess]) -> None:
    address = f"{_base(gateway)}/metrics"
    for sent in (
        None,
        "Bearer wrong",
        f"Basic {METRICS_TOKEN}",
        f"Bearer {METRICS_TOKEN}x",
        "Bearer",
        f"Bearer {METRICS_TOKEN[:-1]}é",
    ):
        headers = {} if sent is None else {b"Authorization": sent.encode()}
        response = httpx2.get(address, headers=headers)
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        assert "llm_bus" not in response.text
    # Without the setting the path answers like every unknown path.
    responses = [httpx2.get(f"{_base(gateways[0])}/{path}") for path in ("metrics", "nowhere")]
    assert [response.status_code for response in responses] == [404, 404]
    assert responses[0].text == responses[1].text
