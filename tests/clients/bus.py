"""A running bus for the clients: gateway, web application and one team for each client."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server

from bus.config.settings import Settings
from bus.db import Database
from tests import servers
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import running_gateways
from webapp.app import create_app


@dataclass(frozen=True)
class Bus:
    """A running bus.

    Attributes:
        mcp_url: the address of the gateway.
        web_url: the address of the web application, which serves the kit's installer.
    """

    mcp_url: str
    web_url: str
    database: Database

    def make_team(self) -> Team:
        """Create a project with the participants alice, whose client is tested, and bob."""
        return make_team(self.database)

    @contextmanager
    def connect(self, token: str) -> Iterator[McpClient]:
        client = McpClient(self.mcp_url, token)
        try:
            yield client
        finally:
            client.close()


class _SilentRequestHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None: ...  # noqa: A002 - the name of the overridden method


@contextmanager
def running_bus() -> Iterator[Bus]:
    """Start PostgreSQL, Valkey, a gateway and the web application, and stop them afterwards."""
    running_servers = servers.Servers()
    try:
        # Both name each other in the metadata for clients that sign in.
        port, gateway_port = servers.free_port(), servers.free_port()
        web_url, mcp_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{gateway_port}/mcp"
        with (
            servers.cloned_database() as database_url,
            running_gateways(database_url, PORT=str(gateway_port), PUBLIC_URL=web_url, MCP_URL=mcp_url),
            _running_web(database_url, web_url, port, mcp_url),
            closing(Database(database_url, pool_size=2)) as database,
        ):
            yield Bus(mcp_url, web_url, database)
    finally:
        running_servers.stop()


@contextmanager
def _running_web(database_url: str, url: str, port: int, mcp_url: str) -> Iterator[None]:
    app = create_app(
        Settings.from_env(
            {"DATABASE_URL": servers.application_url(database_url), "PUBLIC_URL": url, "MCP_URL": mcp_url}
        )
    )
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=_SilentRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        app.extensions["bus.db"].close()
