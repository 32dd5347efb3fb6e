"""The texts in an agent's context have budgets: one that exceeds bench/budget.json fails here."""

from urllib.parse import urlsplit

from bench import context_size
from bench.requests import Address
from bus.db import Database
from tests.mcp_gateway.processes import GatewayProcess


def test_every_text_that_an_agent_reads_stays_within_its_budget(
    gateway_db: Database, gateways: list[GatewayProcess]
) -> None:
    parts = urlsplit(gateways[0].url)
    assert parts.hostname is not None
    assert parts.port is not None
    sizes = context_size.measure_context_sizes(gateway_db, Address(parts.hostname, parts.port)).as_budget()
    budget = context_size.load_budget()
    assert sizes.keys() == budget.keys()
    grown = {name: f"{size} bytes, budget {budget[name]}" for name, size in sizes.items() if size > budget[name]}
    assert not grown, grown
    # A budget far above the actual size would hide growth.
    slack = {
        name: f"{size} bytes, budget {budget[name]}" for name, size in sizes.items() if budget[name] > 1.3 * size + 50
    }
    assert not slack, slack
