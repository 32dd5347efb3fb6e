"""The web of the bus on a port of its own, for an installer that downloads from it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask
from werkzeug.serving import make_server

from bus.config.settings import Settings
from webapp.app import create_app


@contextmanager
def running_web(database_url: str, mcp_url: str) -> Iterator[tuple[Flask, str]]:
    """Run the web, and yield its application and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = f"http://127.0.0.1:{port}"
    app = create_app(Settings.from_env({"DATABASE_URL": database_url, "PUBLIC_URL": home, "MCP_URL": mcp_url}))
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield app, home
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        app.extensions["bus.db"].close()
