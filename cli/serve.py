"""One listener for web and gateway, for platforms that route one port to one process."""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from bus.config.redaction import Asked
from bus.config.settings import Settings
from bus.operations import telemetry
from bus.operations.metrics import Metrics
from mcp_gateway.__main__ import configure_logs, hypercorn_config, run_in_loop
from mcp_gateway.app import Gateway
from mcp_gateway.raw_http_server import serve
from webapp.app import create_app
from webapp.asgi import Web
from webapp.options import WebOptions

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MCP_PATHS = ("/mcp", "/mcp/")


class OnePort:
    """/mcp and the lifespan belong to the gateway, everything else to the web.

    Usual calls of agents are answered before they come here, from the bytes of the connection.
    """

    def __init__(self, gateway: Gateway, web: Web) -> None:
        self._gateway = gateway
        self._web = web

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _MCP_PATHS:
            await self._web(scope, receive, send)
        else:
            await self._gateway(scope, receive, send)


def run() -> None:
    """Serve both until the process is told to stop; calls under way are answered first.

    Raises:
        SettingError: a setting is missing or malformed.
    """
    configure_logs()
    env = Asked(os.environ)
    settings, options = Settings.from_env(env, port=8787), WebOptions.from_env(env)
    telemetry.start("serve", env)
    metrics = Metrics("serve", settings.metrics_token)
    app = create_app(settings, options, metrics)
    gateway = Gateway(settings, metrics)
    gateway.report_as("serve", env.shown(), app.extensions["bus.requests"])
    web = Web(app, settings)
    run_in_loop(serve(gateway, hypercorn_config(settings), OnePort(gateway, web), web.drain))
