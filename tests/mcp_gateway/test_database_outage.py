"""Database failures: calls get 503 during an outage, and no response shows internals."""

import httpx2
import psycopg
from psycopg import sql

from bus.db import Database
from tests.concurrency import wait_until
from tests.mcp_gateway.conftest import make_team
from tests.mcp_gateway.mcp_client import McpClient, McpResponse
from tests.mcp_gateway.processes import running_gateways


def _claim(client: McpClient) -> McpResponse | None:
    response = client.call("claim", sequence="adr")
    return response if response.status == 200 else None


def test_calls_get_503_during_an_outage_and_work_after_it(database_url: str) -> None:
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
            for client in (modern, legacy, modern, legacy):
                response = client.call("claim", sequence="adr")
                assert (response.status, response.headers["retry-after"]) == (503, "2")
                assert "Traceback" not in response.body
            assert httpx2.get(ready).status_code == 503
            assert httpx2.get(ready.replace("readyz", "healthz")).status_code == 200
            conn.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(quoted))
        claimed = wait_until(lambda: _claim(modern), 15)
        assert claimed is not None
        # Claims that did not commit consumed no number.
        assert claimed.structured_content["number"] == 3
        assert legacy.call("claim", sequence="adr").structured_content["number"] == 4
        modern.close()
        legacy.close()


def test_an_unexpected_error_shows_nothing_of_the_database(database_url: str) -> None:
    db = Database(database_url, pool_size=1)
    team = make_team(db)
    with db.connection() as conn:
        conn.raw.execute("ALTER TABLE sequence RENAME COLUMN current TO gone")
    db.close()
    with running_gateways(database_url) as (process,):
        for modern in (True, False):
            client = McpClient(process.url, team.alice.token, modern=modern)
            response = client.call("claim", sequence="adr")
            assert response.message["error"] == {"code": -32603, "message": "Internal error; the bus has logged it."}
            assert client.call("post", to_actor="bob", body="still here").status == 200
            client.close()
        assert "gone" not in response.body
        assert "UndefinedColumn" in process.log.read_text()
