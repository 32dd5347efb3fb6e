"""Readiness of this process, as reported by /readyz."""

from typing import Any

from bus.db import schema_version
from mcp_gateway.denials import RequestDenied
from mcp_gateway.engine_runner import EngineRunner


async def check_readiness(engine: EngineRunner) -> tuple[bool, dict[str, Any]]:
    """Check the database and its schema. Redis is not checked: the gateway works without it."""

    def find_version() -> str | None:
        with engine.db.connection() as conn:
            return schema_version.find_schema_version(conn.raw)

    try:
        version = await engine.run_in_thread(find_version)
    except RequestDenied:
        return False, {"ok": False, "database": "away"}
    is_migrated = schema_version.is_sufficient(version)
    report = {
        "ok": is_migrated,
        "database": "ok",
        "migration": version,
        "expected": schema_version.EXPECTED_SCHEMA_VERSION,
    }
    return is_migrated, report
