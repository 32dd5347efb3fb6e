"""Fixtures of the benchmark's tests: the gateways of tests/mcp_gateway."""

from tests.mcp_gateway.conftest import gateway_db, gateways, shared_database_url

__all__ = ["gateway_db", "gateways", "shared_database_url"]
