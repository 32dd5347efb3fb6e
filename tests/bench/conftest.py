"""The benchmark's tests run against the gateways of tests/mcp_gateway."""

from tests.mcp_gateway.conftest import gateways, served_db

__all__ = ["gateways", "served_db"]
