"""Whether this process can do its work: what /readyz says."""

from typing import Any

from bus.db import schema_version
from mcp_gateway.service import Denied, Service


async def readiness(service: Service) -> tuple[bool, dict[str, Any]]:
    """Check what the gateway needs: the database, and its schema. Redis is not needed to answer."""

    def ask() -> str | None:
        with service.db.call() as conn:
            return schema_version.current(conn.raw)

    try:
        found = await service.run(ask)
    except Denied:
        return False, {"ok": False, "database": "away"}
    migrated = found == schema_version.EXPECTED
    report = {"ok": migrated, "database": "ok", "migration": found, "expected": schema_version.EXPECTED}
    return migrated, report
