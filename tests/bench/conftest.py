"""The benchmark's tests run against the gateways of tests/mcp_gateway."""

from tests.mcp_gateway.conftest import gateways, served_db, shared_database_url

__all__ = ["gateways", "served_db", "shared_database_url"]
