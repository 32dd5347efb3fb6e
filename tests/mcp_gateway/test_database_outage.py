"""When the database fails: 503 while it is away, and never a word of it in an answer."""

import time

import httpx2
import psycopg
from psycopg import sql

from bus.db import Database
from tests.mcp_gateway.conftest import make_team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import running_gateways


def test_calls_get_503_while_the_database_is_away_and_work_again_after_it_returns(database_url: str) -> None:
    db = Database(database_url, pool_size=1)
    team = make_team(db)
    db.close()
    with running_gateways(database_url) as (process,):
        modern, legacy = (McpClient(process.url, team.alice.token, modern=modern) for modern in (True, False))
        assert modern.call("claim", sequence="adr").structured_content["number"] == 1
        assert legacy.call("claim", sequence="adr").structured_content["number"] == 2
        name = database_url.rpartition("/")[2].partition("?")[0]
        maintenance = database_url.replace(name, "postgres")
        ready = process.url.removesuffix("/mcp") + "/readyz"
        with psycopg.connect(maintenance, autocommit=True) as conn:
            quoted = sql.Identifier(name)
            conn.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(quoted))
            conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            for wire in (modern, legacy, modern, legacy):
                reply = wire.call("claim", sequence="adr")
                assert (reply.status, reply.headers["retry-after"]) == (503, "2")
                assert "Traceback" not in reply.body
            assert httpx2.get(ready).status_code == 503
            assert httpx2.get(ready.replace("readyz", "healthz")).status_code == 200
            conn.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(quoted))
        returned = time.monotonic()
        while (reply := modern.call("claim", sequence="adr")).status != 200:
            assert time.monotonic() < returned + 15
        # What did not commit consumed nothing.
        assert reply.structured_content["number"] == 3
        assert legacy.call("claim", sequence="adr").structured_content["number"] == 4
        modern.close()
        legacy.close()


def test_a_defect_behind_a_tool_shows_nothing_of_the_database(database_url: str) -> None:
    db = Database(database_url, pool_size=1)
    team = make_team(db)
    with db.connection() as conn:
        conn.raw.execute("ALTER TABLE sequence RENAME COLUMN current TO gone")
    db.close()
    with running_gateways(database_url) as (process,):
        for modern in (True, False):
            wire = McpClient(process.url, team.alice.token, modern=modern)
            reply = wire.call("claim", sequence="adr")
            assert reply.message["error"] == {"code": -32603, "message": "Internal error; the bus has logged it."}
            assert wire.call("post", to_actor="bob", body="still here").status == 200
            wire.close()
        assert "gone" not in reply.body
        assert "UndefinedColumn" in process.log.read_text()
