"""Whether this process can do its work: what /readyz says."""

from typing import Any

from bus.db import schema_version
from mcp_gateway.service import RequestDenied, Service


async def check_readiness(service: Service) -> tuple[bool, dict[str, Any]]:
    """Check what the gateway needs: the database, and its schema. Redis is not needed to answer."""

    def ask() -> str | None:
        with service.db.connection() as conn:
            return schema_version.find_schema_version(conn.raw)

    try:
        found = await service.run_in_thread(ask)
    except RequestDenied:
        return False, {"ok": False, "database": "away"}
    migrated = found == schema_version.EXPECTED_SCHEMA_VERSION
    report = {"ok": migrated, "database": "ok", "migration": found, "expected": schema_version.EXPECTED_SCHEMA_VERSION}
    return migrated, report
